"""The weighted mean against an exact, slow one."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.merge.mean import Segment, WeightedMean, contributors, segments

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-14}
WEIGHTS = st.lists(st.integers(0, 1_000_000), min_size=1, max_size=6)


def reduce(kind: str, arrays: list[np.ndarray[Any, Any]], weights: list[int]) -> bytes:
    size = arrays[0].nbytes
    mean = WeightedMean([Segment(0, size, kind)], weights)
    out = bytearray(size)
    mean.reduce([arrays[i].tobytes() for i in mean.contributors], memoryview(out), 0)
    return bytes(out)


def slow(arrays: list[np.ndarray[Any, Any]], weights: list[int]) -> np.ndarray[Any, Any]:
    wide = np.stack([a.astype(np.float64) for a in arrays])
    if not any(weights):
        weights = [1] * len(weights)
    mask = np.array(weights) > 0
    result = np.average(wide[mask], axis=0, weights=np.array(weights, float)[mask])
    return np.asarray(result)


@pytest.mark.parametrize("kind", FLOATS)
@given(weights=WEIGHTS, seed=st.integers(0, 2**32 - 1), length=st.integers(1, 300))
@settings(max_examples=25, deadline=None)
def test_floats(kind: str, weights: list[int], seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(0, 10, length).astype(kind) for _ in weights]
    got = np.frombuffer(reduce(kind, arrays, weights), kind)
    np.testing.assert_allclose(
        got.astype(float), slow(arrays, weights), rtol=FLOATS[kind], atol=FLOATS[kind] * 30
    )


@given(weights=WEIGHTS, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_bfloat16(weights: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(0, 10, 96).astype(np.float32) for _ in weights]
    halves = [(a.view(np.uint32) >> 16).astype(np.uint16) for a in arrays]
    values = [(h.astype(np.uint32) << 16).view(np.float32) for h in halves]
    raw = np.frombuffer(reduce("bfloat16", halves, weights), np.uint16)
    got = (raw.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(got, slow(values, weights), rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("kind", INTEGERS)
@given(weights=WEIGHTS, data=st.data())
@settings(max_examples=25, deadline=None)
def test_integers_are_within_half_of_the_exact_mean(
    kind: str, weights: list[int], data: st.DataObject
) -> None:
    info = np.iinfo(kind)
    # Counters of 64 bits may be anywhere, but near each other: see the module's text.
    spread = min(2**40, int(info.max) - int(info.min))
    low = data.draw(st.integers(int(info.min), int(info.max) - spread))
    numbers = st.lists(st.integers(low, low + spread), min_size=8, max_size=8)
    rows = [data.draw(numbers) for _ in weights]
    got = np.frombuffer(reduce(kind, [np.array(r, kind) for r in rows], weights), kind)
    used = contributors(weights)
    shares = [Fraction(weights[i] or 1) for i in used]
    for column, value in enumerate(got):
        exact = sum(share * rows[i][column] for share, i in zip(shares, used, strict=True)) / sum(
            shares
        )
        assert abs(int(value) - exact) <= Fraction(1, 2) + Fraction(1, 10**3)


@pytest.mark.parametrize("kind", ["int64", "uint64"])
def test_far_apart_64_bit_integers_are_right_in_float_precision(kind: str) -> None:
    info = np.iinfo(kind)
    arrays = [np.full(8, info.min, kind), np.full(8, info.max, kind)]
    got = np.frombuffer(reduce(kind, arrays, [1, 1]), kind)
    middle = (int(info.min) + int(info.max)) / 2
    assert all(abs(int(value) - middle) <= 2**12 for value in got)


def test_bool_is_the_majority() -> None:
    rows = [np.array(r) for r in ([True, True, False], [True, False, False], [True, True, True])]
    assert reduce("bool", rows, [1, 1, 1]) == bytes([1, 1, 0])


def test_equal_inputs_come_back_unchanged_in_every_type() -> None:
    rng = np.random.default_rng(1)
    for kind in [*INTEGERS, "bfloat16"]:
        store = "uint16" if kind == "bfloat16" else kind
        info = np.iinfo(store)
        top = 0x7F00 if kind == "bfloat16" else int(info.max)
        array = rng.integers(int(info.min), top, 64, dtype=store, endpoint=True)
        assert reduce(kind, [array, array], [1, 1]) == array.tobytes(), kind


def test_weight_zero_takes_no_part_even_with_nan() -> None:
    poison = np.full(16, np.nan, np.float32)
    good = np.arange(16, dtype=np.float32)
    assert reduce("float32", [poison, good, good], [0, 4, 4]) == good.tobytes()


def test_all_weights_zero_count_alike() -> None:
    arrays = [np.zeros(16, np.float32), np.full(16, 4, np.float32)]
    assert set(np.frombuffer(reduce("float32", arrays, [0, 0]), np.float32)) == {2.0}


@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 60), max_size=5))
@settings(max_examples=25, deadline=None)
def test_ranges_of_a_mixed_vector_give_the_same_bytes_as_the_whole(
    seed: int, cuts: list[int]
) -> None:
    kinds = ["float32", "int64", "float16", "bool", "float64", "uint8", "float32"]
    offsets = [0, 1024, 1280, 1536, 1600, 2048, 2112]
    size = 3840
    layout = segments(list(zip(kinds, offsets, strict=True)), size)
    rng = np.random.default_rng(seed)
    inputs = []
    for _ in range(3):
        raw = np.zeros(size, np.uint8)
        for run in layout:
            piece = raw[run.start : run.stop]
            if run.kind.startswith("float"):
                view = piece.view(run.kind)
                view[:] = rng.normal(size=len(view))
            else:
                piece[:] = rng.integers(0, 2, len(piece))
        inputs.append(raw.tobytes())
    mean = WeightedMean(layout, [1, 2, 3])
    whole, parts = bytearray(size), bytearray(size)
    mean.reduce(inputs, memoryview(whole), 0)
    edges = sorted({0, size, *(cut * 64 for cut in cuts)})
    for low, high in itertools.pairwise(edges):
        mean.reduce([data[low:high] for data in inputs], memoryview(parts)[low:high], low)
    assert parts == whole


def test_segments_join_equal_neighbours_and_skip_empty_tensors() -> None:
    tensors = [("float32", 0), ("float32", 64), ("int8", 128), ("int8", 128), ("float32", 192)]
    assert segments(tensors, 256) == (
        Segment(0, 128, "float32"),
        Segment(128, 192, "int8"),
        Segment(192, 256, "float32"),
    )
