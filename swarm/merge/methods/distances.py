"""Squared distances between the contributors, shard by shard.

Each owner measures the shard that it reduces; the matrices of all shards add up to that of the
whole vectors. Only floats count: counters and flags are no place in which models lie near or far.

Every pair is subtracted value by value, in float64. A Gram matrix would take fewer operations for
many members, but one vector far away from the others would drown their distances in its rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swarm.merge.mean import Buffer, Segment
from swarm.merge.methods.base import SHORTEST, Matrix
from swarm.merge.methods.kinds import is_float, pieces, widen

LARGEST = 1e140  # squares of differences of such values add up to something finite
CACHED = 96 << 10  # float64 values of all rows together that stay in the cache


class Distances:
    """The matrix of one shard, fed range by range. One thread at a time."""

    def __init__(self, layout: Sequence[Segment], count: int) -> None:
        """`count` contributors."""
        self._layout = layout
        self._step = max(SHORTEST, CACHED // max(1, count))
        self._rows = np.empty((count, self._step))
        self._tmp = np.empty(self._step)
        self.matrix: Matrix = np.zeros((count, count))

    def add(self, inputs: Sequence[Buffer], start: int) -> None:
        """Add a range: one buffer for each contributor, the vector's bytes from `start` on.

        NaN, infinity or a float64 beyond `LARGEST` makes a member's entry of the diagonal NaN.
        """
        span = memoryview(bytearray(0)) if not inputs else memoryview(inputs[0])
        with np.errstate(all="ignore"):
            for kind, rows, _ in pieces(self._layout, inputs, span, start, self._step):
                if is_float(kind):
                    count = len(rows[0])
                    wide = self._rows[:, :count]
                    for row, target in zip(rows, wide, strict=True):
                        widen(kind, row, target)
                    self._measure(wide, self._tmp[:count])

    def _measure(self, wide: Matrix, tmp: Matrix) -> None:
        for i, one in enumerate(wide):
            if not -LARGEST <= one.min() <= one.max() <= LARGEST:
                self.matrix[i, i] = np.nan
            for j in range(i):
                np.subtract(one, wide[j], out=tmp)
                np.square(tmp, out=tmp)
                square = np.add.reduce(tmp)
                self.matrix[i, j] += square
                self.matrix[j, i] += square


def total(matrices: Sequence[Matrix]) -> Matrix:
    """The sum of all shards' matrices, in the order given; the same bits on every machine."""
    result = np.zeros_like(matrices[0])
    with np.errstate(all="ignore"):
        for matrix in matrices:
            result += matrix
    return result


def problem(matrix: Matrix) -> str:
    """Why `matrix`, which came from another member, is not one of distances; "" if it can be."""
    diagonal = np.diagonal(matrix)
    if not np.array_equal(matrix, matrix.T, equal_nan=True):
        return "the distances are not symmetric"
    if not np.all((diagonal == 0) | np.isnan(diagonal)):
        return "a member is at a distance from itself"
    sound = ~np.isnan(diagonal)
    if not np.all(matrix[np.ix_(sound, sound)] >= 0):
        return "a distance is negative, or NaN between members whose weights are finite"
    return ""
