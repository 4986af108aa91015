"""Krum: the one member's vector that lies nearest to its nearest neighbours.

Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent", NeurIPS 2017. With n members of which at most f are wrong, n ≥ 2f + 3, the score
of a member is the sum of the squared distances to its n − f − 2 nearest others; the least score
wins, among equals the first of the roster. Breakdown point (n − 3)/2n: f wrong members move the
result by no more than the right ones differ.

Members are counted, whatever their weights. One whose values are not finite is infinitely far away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from swarm.merge.methods.base import Arg, Matrix
from swarm.merge.methods.geometry import among
from swarm.merge.methods.mixing import MixingWeights

MOST_WRONG = 126  # of 256 members


class Krum(MixingWeights):
    """See the module's text. mergeArgs: `f`, wrong members to endure, default 1."""

    name = "krum"
    ARGS: ClassVar[Mapping[str, Arg]] = {"f": Arg(int, 1, MOST_WRONG, 1)}

    @classmethod
    def needed(cls, args: Mapping[str, Any]) -> int:
        """n ≥ 2f + 3."""
        return 2 * int(args["f"]) + 3

    def mix(self, distances: Matrix, weights: Sequence[int]) -> Sequence[float]:
        """See `MixingWeights`."""
        return among(self.best(distances)[: self.chosen()], weights)

    def chosen(self) -> int:
        """How many of the best are averaged."""
        return 1

    def best(self, distances: Matrix) -> list[int]:
        """Members whose values are finite, the least score first."""
        nearest = len(self.weights) - int(self.args["f"]) - 2
        scores = []
        for i, row in enumerate(distances.tolist()):
            others = sorted(row[:i] + row[i + 1 :])
            scores.append((math.fsum(others[:nearest]), i))
        return [i for _, i in sorted(scores)]
