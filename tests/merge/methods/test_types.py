"""Types of values, ranges, gaps: what holds for each method whatever its law is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import RemoteError
from swarm.merge import methods
from swarm.merge.mean import Segment, segments
from swarm.merge.methods.distances import Distances, problem, total
from swarm.merge.methods.kinds import is_float
from tests.merge.methods import slow
from tests.merge.methods.running import ALL, ROBUST, merge, reduce

KINDS = [
    "float64", "float32", "float16", "bfloat16", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool",
]  # fmt: skip
COUNT = 32  # values of each type; the bytes of each are a multiple of 64 or padded
PRECISION = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}
PER_COORDINATE = ("mean", "coordmedian", "trimmedmean")


def stored(kind: str, values: np.ndarray[Any, Any]) -> bytes:
    """Values as they lie in a vector, padded to 64 bytes."""
    if kind == "bfloat16":
        raw = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        raw = values.astype("u1" if kind == "bool" else np.dtype(kind).newbyteorder("<")).tobytes()
    return raw + bytes(-len(raw) % 64)


def read(kind: str, raw: bytes) -> np.ndarray[Any, Any]:
    """And back, as float64 or Python's integers."""
    if kind == "bfloat16":
        bits = np.frombuffer(raw, "<u2", COUNT).astype("<u4") << 16
        return bits.view("<f4").astype(np.float64)
    values = np.frombuffer(raw, "u1" if kind == "bool" else kind, COUNT)
    return values.astype(np.float64 if is_float(kind) else object)


def numbers(kind: str, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    if is_float(kind):
        return rng.normal(0, 2, COUNT)
    if kind == "bool":
        return rng.integers(0, 2, COUNT)
    return rng.integers(0, 100, COUNT)


def mixed(members: int, seed: int) -> tuple[list[Segment], list[bytes], dict[str, Any]]:
    """Layout and vectors of all types, with an empty tensor in between, and the values in them."""
    rng = np.random.default_rng(seed)
    tensors, size = [], 0
    for kind in KINDS:
        tensors += [(kind, size), ("float32", size)]  # the second is empty
        size += len(stored(kind, numbers(kind, rng)))
    tensors = [*tensors[::2], ("float32", size)]
    inputs, rows = [b""] * members, {kind: [] for kind in KINDS}
    for kind in KINDS:
        for member in range(members):
            raw = stored(kind, numbers(kind, rng))
            inputs[member] += raw
            rows[kind].append(read(kind, raw))
    return list(segments(tensors, size)), inputs, rows


@pytest.mark.parametrize("name", PER_COORDINATE)
@given(seed=st.integers(0, 2**32 - 1), members=st.integers(3, 6))
@settings(max_examples=20, deadline=None)
def test_each_type_is_merged_by_the_law(name: str, seed: int, members: int) -> None:
    layout, inputs, rows = mixed(members, seed)
    weights = list(range(1, members + 1))
    args = methods.parse_args(name, ALL[name])
    result, _ = reduce(methods.make(name, args, layout, weights), inputs)
    for run in layout:
        x = np.array(rows[run.kind], np.float64)
        expected = slow.LAWS[name](x, weights, args)
        got = read(run.kind, result[run.start : run.stop]).astype(np.float64)
        close = PRECISION.get(run.kind, 0.5 + 1e-6)  # integers are rounded
        np.testing.assert_allclose(got, expected, rtol=close if close < 0.1 else 0, atol=close)


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_equal_inputs_of_all_types_come_back(name: str, seed: int) -> None:
    layout, inputs, rows = mixed(1, seed)
    result, _ = reduce(methods.make(name, ALL[name], layout, [1] * 5), inputs * 5)
    for run in layout:
        got = read(run.kind, result[run.start : run.stop]).astype(np.float64)
        want = rows[run.kind][0].astype(np.float64)
        np.testing.assert_allclose(got, want, rtol=2 * PRECISION.get(run.kind, 0), atol=0)


@pytest.mark.parametrize("name", ["coordmedian", "trimmedmean", "krum"])
def test_these_give_back_equal_inputs_bit_by_bit(name: str) -> None:
    layout, inputs, _ = mixed(1, 5)
    assert reduce(methods.make(name, {}, layout, [3, 1, 1, 1, 2]), inputs * 5)[0] == inputs[0]


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(1, 25), max_size=4))
@settings(max_examples=10, deadline=None)
def test_shards_give_what_the_whole_gives(name: str, seed: int, cuts: list[int]) -> None:
    layout, inputs, _ = mixed(5, seed)
    places = sorted({64 * cut for cut in cuts if 64 * cut < len(inputs[0])})
    whole, shares = reduce(methods.make(name, ALL[name], layout, [1] * 5), inputs)
    parts, same = reduce(methods.make(name, ALL[name], layout, [1] * 5), inputs, places)
    np.testing.assert_allclose(same, shares, rtol=0, atol=1e-6)
    if not shares or same == shares:
        assert parts == whole


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "bfloat16"])
def test_one_member_of_nothing_but_nan_is_left_out_and_named(name: str, kind: str) -> None:
    rng = np.random.default_rng(3)
    layout = [Segment(0, len(stored(kind, np.zeros(COUNT))), kind)]
    inputs = [stored(kind, rng.normal(size=COUNT)) for _ in range(6)]
    inputs[2] = stored(kind, np.full(COUNT, np.nan))
    # The roster's member 0 has no weight, so it does not contribute, whatever it has.
    method = methods.make(name, ALL[name], layout, [0, 1, 1, 1, 1, 1, 1])
    result, shares = reduce(method, inputs)
    assert np.isfinite(read(kind, result)).all()
    assert method.rejected == {3: "NaN or infinity in its weights"}
    assert not shares or shares[2] == 0


@pytest.mark.parametrize("name", ["coordmedian", "trimmedmean"])
@given(seed=st.integers(0, 2**32 - 1), members=st.integers(3, 7), data=st.data())
@settings(max_examples=40, deadline=None)
def test_values_that_are_not_finite_are_left_out_one_by_one(
    name: str, seed: int, members: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(members, 16))
    bad = rng.random((members, 16)) < data.draw(st.sampled_from([0.02, 0.2, 0.5]))
    bad[0] = False
    rows[bad] = rng.choice([np.nan, np.inf, -np.inf], bad.sum())
    weights = data.draw(st.lists(st.integers(1, 4), min_size=members, max_size=members))
    args = methods.parse_args(name, ALL[name])
    method = methods.make(name, args, [Segment(0, 128, "float64")], weights)
    result, _ = reduce(method, [row.tobytes() for row in rows])
    expected = slow.LAWS[name](rows, weights, args)
    np.testing.assert_allclose(np.frombuffer(result), expected, rtol=1e-12, atol=1e-12)
    assert set(method.rejected) == set(np.flatnonzero(bad.any(axis=1)))


@pytest.mark.parametrize("name", ["coordmedian", "trimmedmean"])
def test_what_nobody_has_finite_stays_as_the_first_has_it(name: str) -> None:
    """As a mask of -inf that is part of a model."""
    rows = [np.full(16, -np.inf, "<f4") for _ in range(3)]
    np.testing.assert_array_equal(merge(name, {}, rows, [1, 1, 1]), rows[0])


@pytest.mark.parametrize("name", ["geomedian", "krum", "multikrum", "centeredclip"])
def test_nobody_can_be_mixed_when_nobody_is_finite(name: str) -> None:
    with pytest.raises(RemoteError, match=r"SW6109: .*every contributing member"):
        merge(name, {}, [np.full(16, np.nan)] * 5, [1] * 5)


@pytest.mark.parametrize("kind", ["int64", "uint64"])
@pytest.mark.parametrize("name", ["coordmedian", "trimmedmean"])
def test_counters_of_64_bits_are_exact_whatever_some_members_say(name: str, kind: str) -> None:
    low, high = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
    near = high - 1000
    for wrong in (low, high, low + 2**40):
        rows = [[near + i] * 8 for i in (10, 20, 31)]
        inputs = [np.array(row, kind).tobytes() for row in ([wrong] * 8, *rows, [wrong] * 8)]
        method = methods.make(name, {"f": 2} if name == "trimmedmean" else {}, [Segment(
            0, 64, kind)], [1] * 5)  # fmt: skip
        got = np.frombuffer(reduce(method, inputs)[0], kind)
        wanted = near + 10 if wrong < near else near + 31
        assert set(got.tolist()) == {wanted}


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not is_float(kind) and kind != "bool"])
def test_integers_stay_among_the_right_members_whose_floats_a_wrong_one_copies(
    name: str, kind: str
) -> None:
    """It may copy the best vector, so that no distance gives it away."""
    layout = [Segment(0, 64, "float32"), Segment(64, 128, kind)]
    floats = [np.full(16, value, "<f4").tobytes() for value in (0.0, 1.0, 1.5, 2.0, 9.0, 1.5)]
    counts = [stored(kind, np.full(COUNT, value))[:64] for value in (50, 51, 52, 53, 54)]
    extreme = stored(kind, np.full(COUNT, np.iinfo(kind).max, kind))[:64]
    inputs = [a + b for a, b in zip(floats, [*counts, extreme], strict=True)]
    result, _ = reduce(methods.make(name, ALL[name], layout, [2, 2, 2, 2, 2, 1]), inputs)
    got = np.frombuffer(result[64:], kind, 8)  # without padding
    assert got.min() >= 50 and got.max() <= 54


def test_distances_are_those_of_the_floats() -> None:
    layout, inputs, rows = mixed(4, 7)
    whole = np.zeros((4, 4))
    for kind in KINDS:
        if is_float(kind):
            x = np.array(rows[kind])
            whole += ((x[:, np.newaxis] - x) ** 2).sum(axis=2)
    distances = Distances(layout, 4)
    distances.add(inputs, 0)
    np.testing.assert_allclose(distances.matrix, whole, rtol=1e-12)
    parts = []
    for low, high in itertools.pairwise([0, 128, 512, 1024, len(inputs[0])]):
        part = Distances(layout, 4)
        part.add([data[low:high] for data in inputs], low)
        parts.append(part.matrix)
    np.testing.assert_allclose(total(parts), whole, rtol=1e-12)


def test_values_too_large_to_be_squared_count_as_not_finite() -> None:
    distances = Distances([Segment(0, 64, "float64")], 2)
    distances.add([np.full(8, 1e141).tobytes(), np.zeros(8).tobytes()], 0)
    assert np.isnan(distances.matrix[0, 0]) and distances.matrix[1, 1] == 0
    assert problem(distances.matrix) == ""


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        ((0, 1), 3.0, "not symmetric"),
        ((1, 1), 3.0, "from itself"),
        ((0, 2), -1.0, "negative"),
        ((0, 2), np.nan, "NaN between"),
    ],
)
def test_matrices_that_cannot_be_are_found(place: tuple[int, int], value: float, text: str) -> None:
    matrix = np.ones((3, 3)) - np.eye(3)
    assert problem(matrix) == ""
    matrix[place] = value
    if text != "not symmetric":
        matrix[place[::-1]] = value
    assert text in problem(matrix)


@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(sorted(ROBUST)))
@settings(max_examples=60, deadline=None)
def test_a_matrix_of_lies_still_gives_shares(seed: int, name: str) -> None:
    """An owner may send distances that no vectors have: the outcome is finite and adds up to 1."""
    rng = np.random.default_rng(seed)
    matrix = 10.0 ** rng.integers(-300, 308, (6, 6)) * rng.random((6, 6))
    matrix = np.triu(matrix, 1) + np.triu(matrix, 1).T
    method = methods.make(name, {}, [Segment(0, 64, "float32")], [1, 2, 3, 1, 1, 1])
    if isinstance(method, methods.MixingWeights):
        shares = method.settle(matrix)
        assert min(shares) >= 0 and abs(sum(shares) - 1) < 1e-12
