"""One reading finds the digests of a contribution, and each number that is not finite."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.learner import reading, vectors
from swarm.merge import blocks
from swarm.merge.mean import segments
from swarmlearning.tensors import DTYPES, Layout

KINDS = ("float16", "bfloat16", "float32", "float64", "int64", "bool", "uint16")
BLOCK = 1 << 10  # of a vector below a megabyte
models = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 3 * BLOCK)), min_size=1, max_size=6
)


def made(model: list[tuple[str, int]]) -> tuple[Layout, bytearray, tuple[Any, ...]]:
    """A vector with tensors of these types and lengths; all bits of what is no float are set."""
    layout = Layout([(str(n), kind, (length,)) for n, (kind, length) in enumerate(model)])
    data = bytearray(layout.size)
    for tensor in layout.tensors:
        end = tensor.offset + tensor.nbytes
        whole = "float" not in tensor.dtype
        data[tensor.offset : end] = (b"\xff" if whole else b"\x11") * tensor.nbytes
    return layout, data, segments([(t.dtype, t.offset) for t in layout.tensors], layout.size)


@settings(deadline=None)
@given(models, st.data())
def test_each_odd_number_is_found_with_its_tensor(
    model: list[tuple[str, int]], data: st.DataObject
) -> None:
    layout, raw, runs = made(model)
    view = memoryview(raw)
    leaves = blocks.leaves(view, blocks.block_size(len(raw)))
    assert reading.read(view, runs) == (leaves, True)
    assert reading.odd_tensors(view, layout) == []
    floats = [t for t in layout.tensors if "float" in t.dtype and t.nbytes]
    if not floats:
        return
    tensor = data.draw(st.sampled_from(floats))
    place = data.draw(st.integers(0, tensor.shape[0] - 1))
    value = data.draw(st.sampled_from([np.inf, -np.inf, np.nan, -np.nan]))
    kind = ml_dtypes.bfloat16 if tensor.dtype == "bfloat16" else DTYPES[tensor.dtype]
    one = np.array([value]).astype(kind).tobytes()
    at = tensor.offset + place * len(one)
    raw[at : at + len(one)] = one
    assert not reading.read(view, runs).finite
    assert reading.odd_tensors(view, layout) == [tensor]


@pytest.mark.parametrize("place", [0, 4_999_999, 2_600_000])
def test_a_large_vector_is_read_by_two_threads(place: int) -> None:
    view = memoryview(bytearray(20_000_000 // 64 * 64))
    values = np.frombuffer(view, np.float32)
    values.fill(np.finfo(np.float32).max)
    runs = segments([("float32", 0)], len(view))
    leaves = blocks.leaves(view, blocks.block_size(len(view)))
    assert reading.read(view, runs) == (leaves, True)
    values[place] = np.nan
    assert not reading.read(view, runs).finite


def test_the_sentence_names_tensors_and_a_narrow_type() -> None:
    layout = Layout([(name, "float32", (1,)) for name in "abcde"], "float16")
    text = vectors.not_finite(list(layout.tensors))
    assert text.startswith("tensors 'a', 'b', 'c' and 2 more of this node: NaN or infinity")
    assert text.endswith("or above 65504, the largest float16 (transferDtype)")
    (plain,) = Layout([("x", "float64", ())], "").tensors
    assert vectors.not_finite([plain]) == "tensor 'x' of this node: NaN or infinity"
