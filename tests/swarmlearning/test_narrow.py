"""Narrowing: the stated bounds hold, widening is exact, and bfloat16 is what others take it for."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from swarmlearning.narrow import TRANSFER, narrow, stored, widen
from swarmlearning.tensors import DTYPES

Array = NDArray[Any]


def travelled(values: Array, kind: str) -> Array:
    """What the others get of `values`."""
    out = np.empty(values.shape, DTYPES[kind])
    narrow(values, kind, out)
    return widen(out, kind, values.dtype.name)


def test_only_floats_that_are_wider_are_narrowed() -> None:
    unchanged = {"": DTYPES, "float32": set(DTYPES) - {"float64"}}
    unchanged["float16"] = unchanged["bfloat16"] = set(DTYPES) - {"float64", "float32"}
    for transfer, kinds in unchanged.items():
        for kind in DTYPES:
            assert stored(kind, transfer) == (kind if kind in kinds else transfer)


@pytest.mark.parametrize("of", ["float32", "float64"])
@pytest.mark.parametrize("kind", TRANSFER)
def test_the_stated_bounds_hold(kind: str, of: str) -> None:
    """Over all magnitudes, subnormal ones included, with both signs and many digits."""
    bounds = TRANSFER[kind]
    rng = np.random.default_rng(1)
    scale = np.exp2(rng.uniform(-160, np.log2(bounds.largest), 200_000))
    values = (rng.choice([-1, 1], scale.size) * scale).astype(of)
    values = np.concatenate([values, [0, bounds.largest, -bounds.largest]]).astype(of)
    exact = values.astype(np.float64)
    error = np.abs(travelled(values, kind).astype(np.float64) - exact)
    through_float32 = 2.0**-24 * np.abs(exact) if (kind, of) == ("bfloat16", "float64") else 0.0
    allowed = np.maximum(bounds.relative * np.abs(exact), bounds.absolute)
    assert np.all(error <= allowed + through_float32)
    if DTYPES[kind].itemsize < DTYPES[of].itemsize:
        assert np.max(error / np.maximum(allowed, 1e-300)) > 0.9, (
            "the bounds are no larger than it takes"
        )


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("of", ["float32", "float64"])
def test_widening_is_exact(kind: str, of: str) -> None:
    """Every number of the type comes back as the same bits; NaN stays one."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    theirs = np.dtype(ml_dtypes.bfloat16) if kind == "bfloat16" else np.dtype(np.float16)
    wide = widen(bits.view(DTYPES[kind]), kind, of)
    assert wide.dtype == of
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(wide, bits.view(theirs).astype(of))
    again = np.empty(bits.shape, DTYPES[kind])
    narrow(wide, kind, again)
    nan = np.isnan(wide)
    np.testing.assert_array_equal(again.view(np.uint16)[~nan], bits[~nan])
    assert np.isnan(widen(again, kind, of)[nan]).all()


@settings(deadline=None)
@given(st.binary(min_size=4, max_size=400))
def test_bfloat16_is_rounded_as_others_do(data: bytes) -> None:
    values = np.frombuffer(data[: len(data) // 4 * 4], np.float32)
    out = np.empty(values.shape, np.uint16)
    narrow(values, "bfloat16", out)
    with np.errstate(all="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(out.view(ml_dtypes.bfloat16), expected)


@pytest.mark.parametrize("kind", TRANSFER)
def test_what_is_too_large_becomes_infinite_without_a_warning(
    kind: str, recwarn: pytest.WarningsRecorder
) -> None:
    large = np.array([1e39, -1e39, np.nan, np.inf])
    np.testing.assert_array_equal(travelled(large, kind), [np.inf, -np.inf, np.nan, np.inf])
    assert not recwarn.list


@pytest.mark.parametrize("kind", TRANSFER)
def test_shapes_and_strides(kind: str) -> None:
    rng = np.random.default_rng(2)
    large = rng.normal(size=(3, 70_001))  # more than a piece
    for values in (np.float64(1.5), large[:0], large, large.T, large[:, ::2], large.astype(">f8")):
        array = np.asarray(values)
        got = travelled(array, kind)
        assert got.shape == array.shape
        np.testing.assert_allclose(got, array, rtol=2.0**-8)
