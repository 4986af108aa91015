"""Centred clipping: a mean in which no member counts as further away than `tau`.

Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021. From a
centre v, `iterations` times: v ← v + Σ wᵢ·(xᵢ − v)·min(1, τ/‖xᵢ − v‖) / Σ wᵢ. A wrong member of
weight share δ moves the result by at most δ·τ in each iteration, however far away it is. Breakdown
point ½ with τ from the median, as then τ is no more than the right members' own distances; the
paper's bound on the error is proven for δ ≤ 0.1.

The paper starts from the last result. Members that have just joined must derive the same λ from the
distances alone, so this starts from the medoid, the member with the least sum of distances to the
others. τ, when not given, is the weighted median of the members' distances from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from swarm.merge.methods.base import Arg, Matrix
from swarm.merge.methods.geometry import Geometry, among, median, medoids
from swarm.merge.methods.mixing import MixingWeights


class CenteredClip(MixingWeights):
    """See the module's text. mergeArgs: `tau`, by default the median; `iterations`, default 10."""

    name = "centeredclip"
    ARGS: ClassVar[Mapping[str, Arg]] = {
        "tau": Arg(float, 1e-30, 1e30),
        "iterations": Arg(int, 1, 1000, 10),
    }

    def mix(self, distances: Matrix, weights: Sequence[int]) -> Sequence[float]:
        """See `MixingWeights`."""
        middle = medoids(distances, weights)
        geometry = Geometry(distances, middle[0])
        shares, total = among(middle, weights), sum(weights)
        tau = self.args["tau"]
        for _ in range(int(self.args["iterations"])):
            away = geometry.distances_to(shares)
            tau = median(away, weights) if tau is None else tau
            moves = [
                weight / total * min(1.0, tau / one) if one > 0 else 0.0
                for weight, one in zip(weights, away, strict=True)
            ]
            stays = 1 - math.fsum(moves)
            shares = [max(0.0, stays) * old + move for old, move in zip(shares, moves, strict=True)]
        return shares
