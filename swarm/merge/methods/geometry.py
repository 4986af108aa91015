"""Places among the members' vectors, of which only the squared distances are known.

A point y = Σ λⱼxⱼ with Σ λ = 1 is known by its λ. With one member a as the origin, the products of
the vectors are gᵢⱼ = ⟨xᵢ − a, xⱼ − a⟩ = ½(dₐᵢ² + dₐⱼ² − dᵢⱼ²), and so is every distance:
‖xᵢ − y‖² = gᵢᵢ − 2 Σⱼ λⱼ gᵢⱼ + Σⱼₖ λⱼ λₖ gⱼₖ.

One vector of any size must not drown the others in its rounding. So the origin is a member in their
midst, and products are limited to what Cauchy and Schwarz allow, |gᵢⱼ| ≤ √gᵢᵢ·√gⱼⱼ: what of gᵢⱼ is
noise is then multiplied by a λⱼ that is as small as xⱼ is far.

Sums are exactly rounded (`math.fsum`) and the rest are single operations of IEEE 754, so every
machine finds the same bits, in whatever order members come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from swarm.merge.methods.base import Matrix


class Geometry:
    """Vectors seen from member `origin`. Matrices are float64 (n, n), lists have n entries."""

    def __init__(self, distances: Matrix, origin: int) -> None:
        """`distances` are squared."""
        away = distances[origin]
        size = np.sqrt(away)
        bound = size[:, np.newaxis] * size
        products = (away[:, np.newaxis] + away - distances) / 2
        self._products = np.clip(products, -bound, bound)
        np.fill_diagonal(self._products, away)

    def length(self, amounts: Sequence[float]) -> float:
        """‖Σ amountⱼ·(xⱼ − a)‖."""
        each = np.array(amounts)
        terms = self._products * each * each[:, np.newaxis]
        return math.sqrt(max(0.0, math.fsum(terms.ravel().tolist())))

    def distances_to(self, shares: Sequence[float]) -> list[float]:
        """‖xᵢ − Σ λⱼxⱼ‖ for all i."""
        each = np.array(shares)
        toward = [math.fsum(row.tolist()) for row in self._products * each]
        own = math.fsum((np.array(toward) * each).tolist())
        squares = [
            math.fsum((float(self._products[i, i]), -2 * one, own)) for i, one in enumerate(toward)
        ]
        return [math.sqrt(max(0.0, square)) for square in squares]


def medoids(distances: Matrix, weights: Sequence[int]) -> list[int]:
    """The members with the least weighted sum of distances to all others; mostly one."""
    sums = [math.fsum(row.tolist()) for row in np.sqrt(distances) * np.array(weights, np.float64)]
    return [i for i, one in enumerate(sums) if one == min(sums)]


def among(members: Sequence[int], weights: Sequence[int]) -> list[float]:
    """Shares of a weighted mean of `members` alone."""
    total = sum(weights[i] for i in members)
    shares = [0.0] * len(weights)
    for i in members:
        shares[i] = weights[i] / total
    return shares


def median(values: Sequence[float], weights: Sequence[int]) -> float:
    """Weighted median; the middle of two where half of the weight lies on either side."""
    total, sofar = sum(weights), 0
    ascending = sorted(zip(values, weights, strict=True))
    for place, (value, weight) in enumerate(ascending):
        sofar += weight
        if 2 * sofar == total:
            return (value + ascending[place + 1][0]) / 2
        if 2 * sofar > total:
            return value
    raise ValueError("no weight")
