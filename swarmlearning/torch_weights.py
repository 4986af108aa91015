"""The weights of a PyTorch model as numpy arrays, and back into the same memory.

Every tensor keeps its own type: nothing passes through float32. Arrays share the memory of tensors
in main memory; those on a device are copied from it, and merged values are copied into the model's
own tensors where these are, so optimizers and other modules that hold them see the new values.

Which tensors: those of `state_dict()`, buffers included, each once. Tied tensors (an output layer
that is the embedding) appear in a state dict under several names; the first in the order of names
stands for all. What `get_extra_state` adds is the module's own affair and stays where it is.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from swarmlearning import tensors
from swarmlearning.errors import SwarmError
from swarmlearning.tensors import Array

_TYPES = frozenset(
    getattr(torch, name) for name in tensors.DTYPES if hasattr(torch, name)
)  # uint16 and wider came with PyTorch 2.3
_SHARDED = ("FullyShardedDataParallel", "DTensor")
_EXTRA = "_extra_state"
_COMPILED = "_orig_mod."


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and torch.compile.

    Their names for its tensors begin with a prefix, which other nodes need not have.
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def refuse_many_processes() -> None:
    """Raise SwarmError where this process is one of several that train the same model.

    Each would open a session with the one learner; the merged weights would reach one of them.
    """
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return
    if (count := distributed.get_world_size()) > 1:
        raise SwarmError(
            f"this training runs in {count} processes (torch.distributed); a swarm node trains in "
            "one. Use one process, with torch.nn.DataParallel for several GPUs"
        )


def to_merge(model: nn.Module, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The model's own tensors in `state`, by name, each once; names are in alphabetical order.

    `state` is `model.state_dict(keep_vars=True)`, or a part of it. Raises SwarmError for a tensor
    that cannot be merged.
    """
    own = {id(tensor) for tensor in itertools.chain(model.parameters(), model.buffers())}
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    plain = {name.replace(_COMPILED, ""): tensor for name, tensor in state.items()}
    for name in sorted(plain):
        tensor = plain[name]
        if name.rpartition(".")[2] == _EXTRA or id(tensor) in seen:
            continue
        if id(tensor) not in own:
            raise SwarmError(
                f"{name!r} in the model's state_dict is not a parameter or buffer of the model but "
                "made for the state_dict; merged values cannot be put back into it"
            )
        if reason := _unfit(tensor):
            raise SwarmError(f"tensor {name!r} cannot be merged: {reason}")
        seen.add(id(tensor))
        found[name] = tensor
    if not found:
        raise SwarmError("the model has no weights to merge")
    return found


def to_arrays(weights: Mapping[str, torch.Tensor]) -> dict[str, Array]:
    """Arrays with the values of `weights`; those in main memory are shared, not copied."""
    return {name: _array(tensor) for name, tensor in weights.items()}


def load(weights: Mapping[str, torch.Tensor], arrays: Mapping[str, Array]) -> None:
    """Copy `arrays` (bfloat16 as its bit patterns) into `weights`, wherever these are."""
    with torch.no_grad(), warnings.catch_warnings():
        # The arrays lie in a file that is mapped for reading, and are only read here.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        for name, tensor in weights.items():
            value = torch.from_numpy(arrays[name])
            if tensor.dtype is torch.bfloat16:
                value = value.view(torch.bfloat16)
            tensor.copy_(value)


def _array(tensor: torch.Tensor) -> Array:
    host = tensor.detach().cpu()
    if host.dtype is torch.bfloat16:
        return tensors.bfloat16(host.view(torch.uint16).numpy())
    array: Array = host.numpy()
    return array


def _unfit(tensor: torch.Tensor) -> str:
    """Why this tensor cannot be merged; "" when it can."""
    if nn.parameter.is_lazy(tensor):
        return "it has no shape yet; run one batch through the model before the training begins"
    if type(tensor).__name__ in _SHARDED:
        return "it is a part of a tensor that is spread over processes (FSDP, tensor parallel)"
    if tensor.device.type == "meta":
        return "it is on the device 'meta' and has no values"
    if tensor.layout is not torch.strided:
        return f"its layout is {tensor.layout}; make it dense"
    if tensor.dtype not in _TYPES:
        return f"its type is {tensor.dtype}"
    if isinstance(tensor, nn.Parameter) and not tensor.is_floating_point():
        # As bitsandbytes keeps 8 and 4 bit weights.
        return (
            f"it is a parameter of type {tensor.dtype}, so its values are codes and have no mean; "
            "train adapters on top of it and merge those (hfMode='peft')"
        )
    return ""
