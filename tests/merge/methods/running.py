"""Runs a method as an exchange does, in pieces, without any network."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm.merge import methods
from swarm.merge.mean import Segment
from swarm.merge.methods.distances import Distances, problem, total

Array = NDArray[Any]

ROBUST = {
    "coordmedian": {},
    "trimmedmean": {"f": 1},
    "geomedian": {},
    "krum": {"f": 1},
    "multikrum": {"f": 1},
    "centeredclip": {},
}
ALL: Mapping[str, Mapping[str, Any]] = {"mean": {}, **ROBUST}
BY_WEIGHT = ("mean", "coordmedian", "geomedian", "centeredclip")


def reduce(
    method: methods.Method, inputs: Sequence[bytes], cuts: Sequence[int] = ()
) -> tuple[bytes, tuple[float, ...]]:
    """The merged bytes, and the shares of a mixing method. `cuts` are bytes where shards end."""
    size = len(inputs[0])
    edges = [0, *cuts, size]
    spans = list(itertools.pairwise(edges))
    shares: tuple[float, ...] = ()
    if isinstance(method, methods.MixingWeights):
        matrices = []
        for low, high in spans:
            partial = Distances(method.layout, len(inputs))
            partial.add([data[low:high] for data in inputs], low)
            assert problem(partial.matrix) == ""
            matrices.append(partial.matrix)
        shares = method.settle(total(matrices))
    out = bytearray(size)
    for low, high in spans:
        method.reduce([data[low:high] for data in inputs], memoryview(out)[low:high], low)
    return bytes(out), shares


def merge(
    name: str, args: Mapping[str, Any], rows: Sequence[Array], weights: Sequence[int]
) -> Array:
    """Merge float64 or float32 vectors of the same length, a multiple of 16."""
    kind = rows[0].dtype
    layout = [Segment(0, rows[0].nbytes, kind.name)]
    method = methods.make(name, args, layout, weights)
    inputs = [rows[i].tobytes() for i in method.contributors]
    return np.frombuffer(reduce(method, inputs)[0], kind)
