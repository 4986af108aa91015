"""Sorting networks, by the 0–1 principle: one that sorts all zeros and ones sorts everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from swarm.merge.methods.sorting import network, sort, sort_with


@pytest.mark.parametrize("count", range(1, 12))
def test_all_zeros_and_ones(count: int) -> None:
    inputs = np.array(list(itertools.product([0.0, 1.0], repeat=count))).T
    middle = ((count - 1) // 2, count // 2)
    whole, some = inputs.copy(), inputs.copy()
    sort(whole, network(count))
    sort(some, network(count, middle))
    np.testing.assert_array_equal(whole, np.sort(inputs, axis=0))
    np.testing.assert_array_equal(some[list(middle)], whole[list(middle)])


@pytest.mark.parametrize("count", [2, 3, 7, 64, 100, 256])
@pytest.mark.parametrize("largest", [10, 1_000_000])
def test_weights_stay_with_their_values(count: int, largest: int) -> None:
    rng = np.random.default_rng(count)
    values, weights = rng.integers(0, 50, (count, 40)) / 4, rng.integers(0, largest, (count, 40))
    ascending = values.copy()
    moved = sort_with(ascending, weights.astype(float), network(count))
    order = np.lexsort((weights, values), axis=0)
    np.testing.assert_array_equal(ascending, np.take_along_axis(values, order, 0))
    np.testing.assert_array_equal(moved, np.take_along_axis(weights, order, 0))
