"""A PyTorch model's tensors out and back in: every type, every device, tied ones once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarmlearning import SwarmError, tensors
from swarmlearning.tensors import Layout
from tests.swarmlearning.fake_sl import save

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from swarmlearning import torch_weights  # noqa: E402

pytestmark = pytest.mark.slow
torch.set_num_threads(1)  # so small models are fastest on one core

KINDS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8")


class Everything(nn.Module):
    """A buffer of each type and of each awkward shape, parameters of two, and a tied one."""

    def __init__(self) -> None:
        super().__init__()
        for kind in KINDS:
            dtype = getattr(torch, kind)
            self.register_buffer(f"of_{kind}", torch.arange(-3, 3).to(dtype).reshape(2, 3))
            self.register_buffer(f"scalar_{kind}", torch.tensor(7, dtype=dtype))
            self.register_buffer(f"empty_{kind}", torch.zeros((0, 4), dtype=dtype))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("passing", torch.ones(9), persistent=False)
        self.half = nn.Linear(3, 2).to(torch.bfloat16)
        self.embedding = nn.Embedding(5, 4)
        self.output = nn.Linear(4, 5, bias=False)
        self.output.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(2)
        self.turned = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())

    def get_extra_state(self) -> Any:
        return {"calls": 3}

    def set_extra_state(self, state: Any) -> None:
        raise AssertionError("stays where it is")


def of(model: nn.Module) -> dict[str, Any]:
    return torch_weights.to_merge(model, model.state_dict(keep_vars=True))


def through_a_file(path: Path, model: nn.Module, other: nn.Module) -> None:
    """Bring the weights of `model` into `other` as the product does."""
    arrays = torch_weights.to_arrays(of(model))
    save(path, arrays)
    with tensors.open(path) as file:
        torch_weights.load(of(other), file.arrays())


def test_all_types_and_shapes_survive_exactly(tmp_path: Path) -> None:
    model, other = Everything(), Everything()
    model.norm.num_batches_tracked.fill_(2**53 + 1)  # no float32, nor float64, holds it
    model.of_float64.fill_(1 + 2**-52)
    model.of_bfloat16.copy_(torch.tensor([[float("inf"), -0.0, 1e-40], [3e38, float("nan"), 1]]))
    with torch.no_grad():
        for tensor in other.state_dict(keep_vars=True).values():
            if isinstance(tensor, torch.Tensor):
                tensor.zero_()
    before = {name: (id(tensor), tensor.data_ptr()) for name, tensor in of(other).items()}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        through_a_file(tmp_path / "weights", model, other)

    mine, theirs = of(model), of(other)
    assert list(mine) == sorted(mine)
    assert not {"passing", "_extra_state", "output.weight"} & set(mine)
    assert mine.keys() | {"output.weight", "_extra_state"} == model.state_dict().keys()
    for name, tensor in mine.items():
        assert theirs[name].dtype is tensor.dtype
        assert bits(theirs[name]) == bits(tensor), name
    assert {name: (id(t), t.data_ptr()) for name, t in theirs.items()} == before
    assert other.output.weight is other.embedding.weight
    assert int(other.norm.num_batches_tracked) == 2**53 + 1


def bits(tensor: Any) -> bytes:
    plain = tensor.detach().contiguous().reshape(-1)
    return bytes(plain.view(torch.uint8).numpy()) if plain.numel() else b""


def test_tensors_in_main_memory_are_not_copied_on_the_way_out() -> None:
    model = Everything()
    for name, array in torch_weights.to_arrays(of(model)).items():
        tensor = of(model)[name]
        assert array.ctypes.data == tensor.data_ptr() or not array.size
    layout = Layout.of(torch_weights.to_arrays(of(model)))
    assert {t.name: t.dtype for t in layout.tensors}["half.weight"] == "bfloat16"


class Elsewhere(torch.Tensor):
    """A tensor on a device: it can be copied from there and to there, and nothing else."""

    copies: list[tuple[str, Any]]
    inner: Any

    @staticmethod
    def __new__(cls, inner: Any) -> Any:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device="lazy:0"
        )
        tensor.inner, tensor.copies = inner, []
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        tensor = args[0]
        if func is aten.detach.default:
            view = cls(tensor.inner)
            view.copies = tensor.copies
            return view
        if func is aten._to_copy.default:
            assert kwargs["device"] == torch.device("cpu")
            assert kwargs.get("dtype") in (None, tensor.dtype)
            tensor.copies.append(("out", tensor.dtype))
            return tensor.inner.clone()
        assert func is aten.copy_.default, func
        assert args[1].device == torch.device("cpu")
        tensor.copies.append(("in", args[1].dtype))
        tensor.inner.copy_(args[1])
        return tensor


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_sees_one_copy_each_way_in_the_tensors_own_type(tmp_path: Path, kind: str) -> None:
    dtype = getattr(torch, kind)
    models = []
    for start in (1, 5):
        model = nn.Module()
        model.register_buffer("there", Elsewhere(torch.arange(start, start + 4).to(dtype)))
        models.append(model)
    model, other = models
    through_a_file(tmp_path / "weights", model, other)
    assert torch.equal(other.there.inner, model.there.inner)
    assert model.there.copies == [("out", dtype)]
    assert other.there.copies == [("in", dtype)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu(tmp_path: Path) -> None:
    model, other = Everything().cuda(), Everything().cuda()
    model.norm.num_batches_tracked.fill_(2**53 + 1)
    through_a_file(tmp_path / "weights", model, other)
    for name, tensor in of(other).items():
        assert tensor.device.type == "cuda"
        assert bits(tensor.cpu()) == bits(of(model)[name].cpu())


def test_wrappers_leave_no_trace_in_the_names() -> None:
    plain = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    expected = list(of(plain))
    for wrapped in (
        nn.DataParallel(plain),
        torch.compile(plain),
        torch.compile(nn.DataParallel(plain)),
    ):
        inner = torch_weights.unwrap(wrapped)
        assert inner is plain
        assert list(of(inner)) == expected
    half = nn.Sequential(torch.compile(plain[0]), plain[1])
    assert list(of(half)) == expected


def test_the_order_in_which_modules_were_made_does_not_matter() -> None:
    models = []
    for names in (("a", "b"), ("b", "a")):
        model = nn.Module()
        for name in names:
            model.add_module(name, nn.Linear(2, 2))
        models.append(Layout.of(torch_weights.to_arrays(of(model))))
    assert models[0].schema_digest() == models[1].schema_digest()


class Copies(nn.Linear):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {name: tensor.clone() for name, tensor in super().state_dict().items()}


def buffer(tensor: Any) -> nn.Module:
    model = nn.Module()
    model.register_buffer("b", tensor)
    return model


def codes() -> nn.Module:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Copies(2, 2), "made for the state_dict"),
        (lambda: nn.LazyLinear(3), "run one batch through the model"),
        (lambda: buffer(torch.zeros(2, dtype=torch.complex64)), "its type is torch.complex64"),
        (lambda: buffer(torch.zeros(2, dtype=torch.float8_e4m3fn)), "float8_e4m3fn"),
        (lambda: buffer(torch.zeros(2).to_sparse()), "its layout is torch.sparse_coo"),
        (lambda: buffer(torch.zeros(2, device="meta")), "has no values"),
        (codes, "hfMode='peft'"),
        (nn.ReLU, "no weights to merge"),
    ],
)
def test_what_cannot_be_merged_is_named(make: Any, said: str) -> None:
    with pytest.raises(SwarmError, match=said):
        of(make())


def test_one_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_weights.refuse_many_processes()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    torch_weights.refuse_many_processes()
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    with pytest.raises(SwarmError, match="4 processes"):
        torch_weights.refuse_many_processes()


def test_ddp_of_one_process_is_the_module_inside(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )
    try:
        torch_weights.refuse_many_processes()
        plain = nn.Linear(2, 2)
        wrapped = nn.parallel.DistributedDataParallel(plain)
        assert torch_weights.unwrap(wrapped) is plain
    finally:
        torch.distributed.destroy_process_group()


def test_bit_patterns_are_seen_as_bfloat16() -> None:
    array = tensors.bfloat16(np.zeros((2, 3), np.uint16))
    assert tensors.dtype_tag(array, "x") == "bfloat16"
    assert tensors.dtype_tag(np.zeros(2, np.uint16), "x") == "uint16"
