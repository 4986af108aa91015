"""The weighted median of each coordinate: the 50th percentile of its values.

Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates", ICML 2018. Breakdown point ½: as long as the wrong members have less than half
of the weight, each coordinate lies between values of right ones.

Where exactly half of the weight lies below a value and half above the next one, the result is in
the middle of both; with equal weights and an even count that is the mean of the middle two.
"""

from __future__ import annotations

import numpy as np

from swarm.merge.methods.base import Matrix, PerCoordinate, Values, whole
from swarm.merge.methods.sorting import around_half, network, sort, sort_with


class CoordMedian(PerCoordinate):
    """See the module's text. Takes no mergeArgs."""

    name = "coordmedian"

    def combine(self, values: Values, weights: Matrix) -> Values:
        """See `PerCoordinate`."""
        count = len(values)
        if whole(weights) and len(set(self.weights)) == 1:
            below, above = (count - 1) // 2, count // 2
            sort(values, network(count, (below, above)))
            return _middle(values[below], values[above])
        moved = sort_with(values, weights, network(count))
        return _middle(*around_half(values, moved))


def _middle(low: Values, high: Values) -> Values:
    """(low + high) / 2 without overflow; exactly `low` where both are equal."""
    half = low.dtype.type(0.5)
    return np.where(low == high, low, low * half + high * half)
