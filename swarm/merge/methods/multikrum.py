"""Multi-Krum: the weighted mean of the `m` vectors with the best scores of Krum.

Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent", NeurIPS 2017, section 5; scores as in `krum`, each computed once. Breakdown point
as Krum, (n − 3)/2n, as long as m ≤ n − f: then a wrong member is averaged only if it lies as near
to right ones as they do to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from swarm.merge.methods.base import Arg
from swarm.merge.methods.krum import MOST_WRONG, Krum


class MultiKrum(Krum):
    """See the module's text. mergeArgs: `f` as Krum, and `m`, by default n − f."""

    name = "multikrum"
    ARGS: ClassVar[Mapping[str, Arg]] = {**Krum.ARGS, "m": Arg(int, 1, 2 * MOST_WRONG)}

    @classmethod
    def needed(cls, args: Mapping[str, Any]) -> int:
        """n ≥ 2f + 3, and n ≥ m + f."""
        return max(super().needed(args), int(args["m"] or 0) + int(args["f"]))

    def chosen(self) -> int:
        """How many of the best are averaged."""
        return int(self.args["m"] or len(self.weights) - int(self.args["f"]))
