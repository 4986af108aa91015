"""The methods' laws again: slow, obvious, in float64, one coordinate or one vector at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]  # a row for each member


def mean(x: Vectors, weights: Sequence[int], args: Mapping[str, Any]) -> Vectors:
    return np.asarray(np.average(x, axis=0, weights=weights))


def coordmedian(x: Vectors, weights: Sequence[int], args: Mapping[str, Any]) -> Vectors:
    """Each value as often as its weight says, finite ones only, and then the plain median."""
    return np.array([np.median(_repeated(column, weights)) for column in x.T])


def _repeated(column: Vectors, weights: Sequence[int]) -> list[float]:
    return [
        float(value)
        for value, weight in zip(column, weights, strict=True)
        if np.isfinite(value)
        for _ in range(weight)
    ]


def trimmedmean(x: Vectors, weights: Sequence[int], args: Mapping[str, Any]) -> Vectors:
    result = []
    for column in x.T:
        pairs = sorted(p for p in zip(column, weights, strict=True) if np.isfinite(p[0]))
        cut = max(0, args["f"] - (len(x) - len(pairs)))
        kept = pairs[cut : len(pairs) - cut]
        result.append(sum(v * w for v, w in kept) / sum(w for _, w in kept))
    return np.array(result)


def geomedian(x: Vectors, weights: Sequence[int], args: Mapping[str, Any]) -> Vectors:
    """Weiszfeld's iteration on the vectors themselves, from the mean, until nothing moves."""
    y = mean(x, weights, args)
    for _ in range(20_000):
        away = np.maximum(np.linalg.norm(x - y, axis=1), 1e-14)
        z = np.average(x, axis=0, weights=np.array(weights) / away)
        if np.linalg.norm(z - y) <= 1e-14 * np.linalg.norm(y):
            break
        y = z
    return np.asarray(y)


def spread(x: Vectors, y: Vectors, weights: Sequence[int]) -> float:
    """What the geometric median makes least."""
    return float(np.dot(np.linalg.norm(x - y, axis=1), weights))


def scores(x: Vectors, f: int) -> list[float]:
    """Krum's score of each member."""
    found = []
    for one in x:
        squares = sorted(float(np.sum((one - other) ** 2)) for other in x)
        found.append(sum(squares[1 : len(x) - f - 1]))  # the first is its own
    return found


def krum(x: Vectors, weights: Sequence[int], args: Mapping[str, Any]) -> Vectors:
    return np.asarray(x[int(np.argmin(scores(x, args["f"])))])


def multikrum(x: Vectors, weights: Sequence[int], args: Mapping[str, Any]) -> Vectors:
    best = np.argsort(scores(x, args["f"]))[: args["m"] or len(x) - args["f"]]
    return np.asarray(np.average(x[best], axis=0, weights=np.array(weights)[best]))


def centeredclip(x: Vectors, weights: Sequence[int], args: Mapping[str, Any]) -> Vectors:
    share = np.array(weights) / sum(weights)
    sums = [np.dot(np.linalg.norm(x - one, axis=1), weights) for one in x]
    start = np.isclose(sums, min(sums), rtol=1e-12)
    v = np.average(x[start], axis=0, weights=np.array(weights)[start])
    tau = args["tau"]
    for _ in range(args["iterations"]):
        away = np.linalg.norm(x - v, axis=1)
        if tau is None:
            tau = np.median(_repeated(away, weights))
        factors = [min(1.0, tau / one) if one > 0 else 0.0 for one in away]
        v = v + sum(s * c * (one - v) for s, c, one in zip(share, factors, x, strict=True))
    return np.asarray(v)


LAWS = {
    law.__name__: law
    for law in (mean, coordmedian, trimmedmean, geomedian, krum, multikrum, centeredclip)
}
