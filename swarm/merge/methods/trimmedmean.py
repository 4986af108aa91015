"""The trimmed mean: of each coordinate the `f` smallest and `f` largest values are left out.

Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates", ICML 2018. Breakdown point f/n, n ≥ 2f + 1: with at most f wrong members each
coordinate lies between values of right ones.

Members are counted, whatever their weights; the rest is averaged by weight. Among equal values the
one of less weight counts as smaller. A value that is not finite is one of the f wrong ones, known
as such: it is left out, and one less is trimmed on either side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from swarm.merge.methods.base import Arg, Matrix, PerCoordinate, Values, whole
from swarm.merge.methods.sorting import network, sort, sort_with

MOST_WRONG = 127  # of 256 members


class TrimmedMean(PerCoordinate):
    """See the module's text. mergeArgs: `f`, wrong members to endure, default 1."""

    name = "trimmedmean"
    by_weight = False
    ARGS: ClassVar[Mapping[str, Arg]] = {"f": Arg(int, 1, MOST_WRONG, 1)}

    @classmethod
    def needed(cls, args: Mapping[str, Any]) -> int:
        """Something must be left when f are trimmed on both sides."""
        return 2 * int(args["f"]) + 1

    def combine(self, values: Values, weights: Matrix) -> Values:
        """See `PerCoordinate`."""
        count, trimmed = len(values), int(self.args["f"])
        if not whole(weights):
            return self._with_gaps(values, weights, trimmed)
        if len(set(self.weights)) == 1:
            sort(values, network(count))
            kept = np.ones((count, 1))
        else:
            kept = sort_with(values, weights, network(count))
        rows = slice(trimmed, count - trimmed)
        return _mean(values[rows], kept[rows].astype(np.float64), values[rows][0], values[rows][-1])

    def _with_gaps(self, values: Values, weights: Matrix, trimmed: int) -> Values:
        there = weights > 0
        values[~there] = np.inf  # so they come last
        moved = sort_with(values, weights, network(len(values))).astype(np.float64)
        left = np.count_nonzero(there, axis=0)
        cut = np.maximum(0, trimmed - (len(values) - left))
        rank = np.arange(len(values))[:, np.newaxis]
        inside = (rank >= cut) & (rank < left - cut)
        moved[~inside] = 0
        low = np.where(inside, values, np.inf).min(axis=0)
        high = np.where(inside, values, -np.inf).max(axis=0)
        values[~inside] = 0
        return _mean(values, moved, low, high)


def _mean(values: Values, weights: Matrix, low: Values, high: Values) -> Values:
    """Σ w·v / Σ w of each column, in float64; rounding must not leave `low` to `high`."""
    total = np.zeros(values.shape[1])
    for row, weight in zip(values, weights, strict=True):
        total += row * weight
    total /= np.add.reduce(weights, axis=0)
    return np.asarray(np.clip(total.astype(values.dtype), low, high))
