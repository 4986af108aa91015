"""Sorting the rows of a matrix column by column, with whole rows at a time.

A sorting network compares fixed pairs of rows, whatever the values; so each step is one vector
operation over all columns. This one is Batcher's odd-even merge sort (K. E. Batcher, "Sorting
networks and their applications", AFIPS 1968), which sorts any number n of rows in O(n log² n)
steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pairs = Sequence[tuple[int, int]]

EXACT = 1 << 24  # whole numbers below it are exact in float32


@cache
def network(count: int, wanted: tuple[int, ...] | None = None) -> Pairs:
    """Pairs of rows to compare, in order, so that `count` rows ascend.

    With `wanted`, those rows alone need to end up with what belongs there.
    """
    pairs = list(_batcher(count))
    if wanted is None:
        return pairs
    needed, kept = set(wanted), []
    for low, high in reversed(pairs):
        if low in needed or high in needed:
            needed |= {low, high}
            kept.append((low, high))
    return kept[::-1]


def _batcher(count: int) -> Iterator[tuple[int, int]]:
    """Knuth, The Art of Computer Programming 3, algorithm 5.2.2M."""
    size = 1 << max(0, count - 1).bit_length()
    block = 1
    while block < size:
        step = block
        while step:
            for start in range(step % block, count - step, 2 * step):
                for low in range(start, min(start + step, count - step)):
                    if low // (2 * block) == (low + step) // (2 * block):
                        yield low, low + step
            step //= 2
        block *= 2


def sort(values: Array, pairs: Pairs) -> None:
    """Sort `values` (n, k) without NaN in place by a network."""
    tmp = np.empty_like(values[0])
    for low, high in pairs:
        np.maximum(values[low], values[high], out=tmp)
        np.minimum(values[low], values[high], out=values[low])
        values[high] = tmp


def sort_with(values: Array, weights: Array, pairs: Pairs) -> Array:
    """Sort `values` (n, k) as `sort` does; returns `weights` (n, k), which went with them.

    Equal values are in the order of their weights, so the rows' order before does not matter.
    Weights must be whole numbers that add up to less than 2**53.
    """
    total = float(weights.sum(axis=0).max(initial=0))
    moved = weights.astype(np.float32 if total < EXACT else np.float64)
    larger, tmp = np.empty_like(values[0]), np.empty_like(moved[0])
    for low, high in pairs:
        # A masked copy takes ten times as long as adding and taking off what may be nothing.
        np.subtract(moved[high], moved[low], out=tmp)
        swap = values[low] > values[high]
        swap |= (values[low] == values[high]) & (tmp < 0)
        np.multiply(tmp, swap, out=tmp)
        np.add(moved[low], tmp, out=moved[low])
        np.subtract(moved[high], tmp, out=moved[high])
        np.maximum(values[low], values[high], out=larger)
        np.minimum(values[low], values[high], out=values[low])
        values[high] = larger
    return moved


def around_half(values: Array, weights: Array) -> tuple[Array, Array]:
    """The first values of each sorted column at which half of its weight is reached, and passed.

    0 in a column without any weight.
    """
    half = np.add.reduce(weights, axis=0) / 2
    at_half, beyond = np.zeros_like(values[0]), np.zeros_like(values[0])
    below = unpassed = np.ones(values.shape[1], bool)
    sofar = np.zeros_like(half)
    for row, weight in zip(values, weights, strict=True):
        sofar += weight
        before, below = below, sofar < half
        at_half += row * (before > below)
        before, unpassed = unpassed, sofar <= half
        beyond += row * (before > unpassed)
    return at_half, beyond
