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
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from swarm.merge.methods.base import Matrix, MixingWeights
from swarm.merge.methods.geometry import Geometry, among, median, medoids

TOLERANCE = 1e-6  # what is left of the pull on the result, as a share of all weight
ITERATIONS = 1000
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
    shares = _normal(weights, [max(one, scale) for one in away])
    for _ in range(ITERATIONS):
        near = [max(one, AT * scale) for one in geometry.distances_to(shares)]
        step = _normal(weights, near)
        moved = geometry.length([new - old for new, old in zip(step, shares, strict=True)])
        shares = step
        pull = moved * math.fsum(w / one for w, one in zip(weights, near, strict=True))
        if pull <= TOLERANCE * sum(weights):
            break
    return shares


def _normal(weights: Sequence[int], near: Sequence[float]) -> list[float]:
    pulls = [weight / one for weight, one in zip(weights, near, strict=True)]
    total = math.fsum(pulls)
    return [pull / total for pull in pulls]
