"""The weighted geometric median: the point with the least sum of distances, Σ wᵢ·‖xᵢ − y‖.

Over whole vectors, found by Weiszfeld's iteration, "Sur le point pour lequel la somme des distances
de n points donnés est minimum", Tôhoku Mathematical Journal 43, 1937. In federated learning:
Pillutla, Kakade, Harchaoui, "Robust Aggregation for Federated Learning", IEEE Transactions on
Signal Processing 70, 2022. Breakdown point ½ (of the weight): Lopuhaä, Rousseeuw, "Breakdown Points
of Affine Equivariant Estimators", Annals of Statistics 19, 1991.

Weiszfeld's iteration stalls at members' own vectors. Whether one of those is the answer can be told
beforehand: it must be a medoid, and the pull of all others on it, Σ wᵢ·(xᵢ − y)/‖xᵢ − y‖, must not
exceed its own weight (Vardi, Zhang, "The multivariate L1-median and associated data depth", PNAS
97, 2000). When several are answers, so is everything between them, and their mean is taken.

Near a member's vector the iteration creeps. So two steps are extrapolated along their curve, and
what comes out is taken when it is better (SQUAREM: Varadhan, Roland, "Simple and Globally
Convergent Methods for Accelerating the Convergence of Any EM Algorithm", Scandinavian Journal of
Statistics 35, 2008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from swarm.merge.methods.base import Matrix
from swarm.merge.methods.geometry import Geometry, among, median, medoids
from swarm.merge.methods.mixing import MixingWeights

TOLERANCE = 1e-6  # what is left of the pull on the result, as a share of all weight
CYCLES = 200  # of three steps each; five are the rule
AT = 1e-9  # a pull that exceeds the weight by such a share does not: rounding
TINY = 1e-150  # no distance that is divided by is smaller


class GeoMedian(MixingWeights):
    """See the module's text. Takes no mergeArgs."""

    name = "geomedian"

    def mix(self, distances: Matrix, weights: Sequence[int]) -> Sequence[float]:
        """See `MixingWeights`."""
        middle = medoids(distances, weights)
        answers = [k for k in middle if _is_answer(distances, weights, k)]
        if answers:
            return among(answers, weights)
        return _weiszfeld(distances, weights, middle[0])


def _is_answer(distances: Matrix, weights: Sequence[int], k: int) -> bool:
    away = np.sqrt(distances[k]).tolist()
    pulls = [weight / one if one > TINY else 0.0 for weight, one in zip(weights, away, strict=True)]
    own = sum(weight for weight, one in zip(weights, away, strict=True) if one <= TINY)
    return Geometry(distances, k).length(pulls) <= own * (1 + AT)


def _weiszfeld(distances: Matrix, weights: Sequence[int], origin: int) -> list[float]:
    geometry = Geometry(distances, origin)
    away = np.sqrt(distances[origin]).tolist()
    scale = max(median(away, weights), TINY)

    def near(shares: Sequence[float]) -> list[float]:
        return [max(one, AT * scale) for one in geometry.distances_to(shares)]

    shares = _next(weights, [max(one, scale) for one in away])
    for _ in range(CYCLES):
        around = near(shares)
        first = _next(weights, around)
        step = _difference(first, shares)
        pull = geometry.length(step) * math.fsum(_over(weights, around))
        if pull <= TOLERANCE * sum(weights):
            return first
        around = near(first)
        second = _next(weights, around)
        shares = second
        bend = _difference(_difference(second, first), step)
        curve = geometry.length(bend)
        if curve > 0:
            leap = max(1.0, geometry.length(step) / curve)
            ahead = [
                old + 2 * leap * one + leap * leap * other
                for old, one, other in zip(_difference(first, step), step, bend, strict=True)
            ]
            landed = near(ahead)
            if _spread(weights, landed) < _spread(weights, near(second)):
                shares = _next(weights, landed)
    return shares


def _over(weights: Sequence[int], near: Sequence[float]) -> list[float]:
    return [weight / one for weight, one in zip(weights, near, strict=True)]


def _next(weights: Sequence[int], near: Sequence[float]) -> list[float]:
    """Weiszfeld's step: shares in proportion to weight over distance."""
    pulls = _over(weights, near)
    total = math.fsum(pulls)
    return [pull / total for pull in pulls]


def _spread(weights: Sequence[int], near: Sequence[float]) -> float:
    return math.fsum(weight * one for weight, one in zip(weights, near, strict=True))


def _difference(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]
