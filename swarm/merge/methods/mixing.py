"""Methods that weigh whole members: from distances to shares, from shares to the result.

Floats become Σ λᵢ·xᵢ. Integers and bools have no part in the distances, so a member near the others
may hold any numbers there, and a mean would be moved by them as far as that member likes. They
become the median weighted by λ instead: with less than half of λ nobody moves it beyond what others
hold.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from swarm.errors import LocalError, RemoteError
from swarm.merge.mean import Buffer, WeightedMean
from swarm.merge.methods.base import NOT_FINITE, Matrix, Method, guarded
from swarm.merge.methods.coordmedian import CoordMedian
from swarm.merge.methods.kinds import is_float

FARTHEST = 1e300  # no squared distance is more; sums over 256 members stay finite
PARTS = 1 << 40  # shares as whole numbers, for the median


class MixingWeights(Method):
    """A method that is a weighted mean with shares of its own. `settle`, then `reduce`."""

    _mean: WeightedMean | None = None
    _median: CoordMedian | None = None

    @abstractmethod
    def mix(self, distances: Matrix, weights: Sequence[int]) -> Sequence[float]:
        """Shares λ ≥ 0 from squared distances, float64 (n, n): symmetric, finite, diagonal 0.

        All members must find the same bits: add with `math.fsum`, and use no BLAS.
        """

    def settle(self, distances: Matrix) -> tuple[float, ...]:
        """Derive the shares of all contributors from the summed matrix, and get ready to reduce.

        A diagonal that is not finite marks a member whose values are not, or are too large to be
        squared; its share is 0. Raises RemoteError (SW6109) when that is true of all.
        """
        rows = range(len(self.weights))
        sound = [row for row in rows if math.isfinite(distances[row, row])]
        for row in rows:
            if row not in sound:
                self.reject(row)
        if not sound:
            raise RemoteError("SW6109", f"{self.name}: {NOT_FINITE} of every contributing member")
        near = np.nan_to_num(distances[np.ix_(sound, sound)], nan=FARTHEST, posinf=FARTHEST)
        near = np.clip(near, 0.0, FARTHEST)
        found = guarded(self.name, lambda: self.mix(near, [self.weights[i] for i in sound]))
        shares = [0.0] * len(self.weights)
        for row, share in zip(sound, _normal(self.name, found, len(sound)), strict=True):
            shares[row] = share
        self._mean = WeightedMean([run for run in self.layout if is_float(run.kind)], shares)
        rest = [run for run in self.layout if not is_float(run.kind)]
        if rest:
            self._median = CoordMedian({}, rest, [round(share * PARTS) for share in shares])
        return tuple(shares)

    def reduce(self, inputs: Sequence[Buffer], out: memoryview, start: int) -> None:
        """Write Σ λᵢ·xᵢ, and λ's median of integers; inputs of share 0 are not looked at."""
        if self._mean is None:
            raise ValueError("the shares are not settled yet")
        for part in (self._mean, self._median):
            if part is not None:
                part.reduce([inputs[row] for row in part.contributors], out, start)


def _normal(name: str, found: Sequence[float], count: int) -> list[float]:
    """`found` as floats that add up to 1. Raises LocalError (SW6012) when that makes no sense."""
    shares = guarded(name, lambda: [float(share) for share in found])
    fine = len(shares) == count and all(math.isfinite(share) and share >= 0 for share in shares)
    total = math.fsum(shares) if fine else 0.0
    if not (math.isfinite(total) and total > 0):
        raise LocalError("SW6012", f"{name}: {shares[:8]} are not shares of {count} members")
    return [share / total for share in shares]
