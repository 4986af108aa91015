"""Whether a model is the recorded result: its weights, laid out as its program did, and hashed.

Nothing of a model is executed. A `.keras` file is a zip with the model's structure as JSON and its
weights in HDF5; both are read as data, and the classes that they name are not loaded. The order of
the weights follows from the structure: layer by layer, as `model.get_weights()` has them. Whether
that was right is shown by the digest itself, so a mistake here can only refuse a right model (give
its weights as `.npz` then), never accept a wrong one.

Where the contract's rules name a `transferDtype`, the decided vector holds floats in that type, and
programs its exact widening. Weights that are no such widening are not the recorded ones.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from swarm.errors import LocalError
from swarm.merge import blocks
from swarmlearning.tensors import Array, Layout, TensorFileError, bfloat16

UNREADABLE = "SW3205"
MAX_CONFIG = 64 << 20  # bytes of JSON


def difference(
    arrays: list[Array], model: Mapping[str, Any], result: str, transfer: str = ""
) -> str:
    """Why these weights are not the recorded ones; "" when they are. Raises LocalError SW3205.

    `model` is the record's: schema lines, where the ledger has them, and size in bytes. `transfer`
    is the transferDtype of its rules.
    """
    typed = {f"{number:04d}": _typed(array) for number, array in enumerate(arrays)}
    try:
        layout = Layout.of(typed, transfer)
    except TensorFileError as error:
        raise LocalError(UNREADABLE, str(error)) from None
    expected = [line.rsplit(" ", 2)[1:] for line in model["tensors"]]
    found = [line.rsplit(" ", 2)[1:] for line in layout.schema_lines()]
    if expected:
        for number, (one, other) in enumerate(zip(expected, found, strict=False)):
            # Without a package for it, bfloat16 is kept as its bit patterns.
            if one != other and (one[0], other) != ("bfloat16", ["uint16", one[1]]):
                return (
                    f"its tensor {number} is {' '.join(other)}, "
                    f"the record has {model['tensors'][number]}"
                )
        if len(expected) != len(found):
            return f"it has {len(found)} tensors, the record {len(expected)}"
    if layout.size != model["size"]:
        return f"its weights take {layout.size} bytes, those of the record {model['size']}"
    data = bytearray(layout.size)
    with np.errstate(all="ignore"):
        for number, (tensor, array) in enumerate(zip(layout.tensors, typed.values(), strict=True)):
            tensor.put(array, memoryview(data))
            if tensor.of != tensor.dtype and not _same(tensor.get(memoryview(data)), array):
                return f"its tensor {number} is not exactly {tensor.dtype}, which the record's is"
    digest = digest_of(memoryview(data)).hex()
    return "" if digest == result else f"its digest is {digest}, that of the record {result}"


def digest_of(data: memoryview) -> bytes:
    """Root of the hash tree over a vector."""
    return blocks.root(blocks.leaves(data, blocks.block_size(len(data))))


def _typed(array: Array) -> Array:
    """With its type told: files keep bfloat16 as two bytes of no type."""
    return bfloat16(array.view(np.uint16)) if array.dtype == np.dtype("V2") else array


def _same(one: Array, other: Array) -> bool:
    """Whether they are equal bit for bit."""
    return one.tobytes() == other.astype(one.dtype).tobytes()


# What numpy, h5py and zipfile raise for damaged or hostile files (a RuntimeError is also what a
# password, an unknown compression or too deep a nesting make).
_FAULTS = (
    OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, RuntimeError, MemoryError,
    OverflowError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_npz(path: Path) -> list[Array]:
    """Arrays of `numpy.savez(path, *model.get_weights())`. Raises LocalError SW3205."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = sorted(file.files, key=_natural)
            return [file[name] for name in names]
    except _FAULTS as error:
        raise LocalError(UNREADABLE, f"{path}: {error}") from None


def _natural(name: str) -> list[tuple[int, str]]:
    """arr_2 before arr_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def read_keras(path: Path) -> list[Array]:
    """Weights of a `.keras` file, in the order of `model.get_weights()`. LocalError SW3205."""
    try:
        import h5py
    except ImportError:
        raise LocalError(UNREADABLE, f"{path}: reading it takes h5py (pip install h5py)") from None
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as copy:
            if archive.getinfo("config.json").file_size > MAX_CONFIG:
                raise ValueError("its config.json is too large")
            config = json.loads(archive.read("config.json"))
            with archive.open("model.weights.h5") as weights:
                shutil.copyfileobj(weights, copy)
            with h5py.File(copy, "r") as file:
                return [np.array(dataset) for dataset in _weights(config, file)]
    except _FAULTS as error:
        raise LocalError(UNREADABLE, f"{path}: {error}") from None


# In which order Keras's own layers make the layers in them, where that is not the alphabet's.
_MADE = {
    name: place
    for place, name in enumerate(
        ("forward_layer", "backward_layer", "query_dense", "key_dense", "value_dense",
         "output_dense"), 1,
    )
}  # fmt: skip


def _weights(config: Mapping[str, Any], group: Any) -> Iterator[Any]:
    """A layer's own variables, then those of the layers in it."""
    own = group.get("vars")
    if own is not None:
        for name in sorted(own, key=_natural):
            yield own[name]
    layers = (config.get("config") or {}).get("layers")
    if isinstance(layers, list) and "layers" in group:
        yield from _layers(layers, group["layers"])
        return
    # Layers of other kinds keep theirs as attributes; what is no weight is left out as Keras does.
    inner = [name for name in group if name not in ("vars", "layers", "optimizer")]
    for name in sorted(inner, key=lambda name: (_MADE.get(name.strip("_"), 0), _natural(name))):
        if "seed_generator" not in name:
            yield from _weights({}, group[name])


def _layers(layers: list[Mapping[str, Any]], group: Any) -> Iterator[Any]:
    """In the model's order. A layer's group is called after its class, and counted."""
    counts: dict[str, int] = {}
    for layer in layers:
        base = _snake(str(layer["class_name"]).rsplit(">", 1)[-1])
        number = counts.get(base, -1) + 1
        counts[base] = number
        name = f"{base}_{number}" if number else base
        if name in group:
            yield from _weights(layer, group[name])


def _snake(name: str) -> str:
    """As Keras writes class names."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
