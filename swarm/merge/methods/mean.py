"""The weighted mean of each coordinate: Σ wᵢ·xᵢ / Σ wᵢ.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks
from Decentralized Data", AISTATS 2017. Breakdown point 0: a single member moves the result as far
as it likes. Hence a member whose values are not finite is not excluded but refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swarm.merge.mean import Buffer, Segment, WeightedMean
from swarm.merge.methods.base import Method
from swarm.merge.methods.kinds import finite, is_float, pieces


class Mean(Method):
    """See the module's text. The arithmetic is in `swarm.merge.mean`."""

    name = "mean"
    excludes = False

    def __init__(
        self, args: Mapping[str, Any], layout: Sequence[Segment], weights: Sequence[int]
    ) -> None:
        """See `Method`."""
        super().__init__(args, layout, weights)
        self._mean = WeightedMean(layout, weights)

    def reduce(self, inputs: Sequence[Buffer], out: memoryview, start: int) -> None:
        """Write the mean, and note whose values are not finite."""
        self._mean.reduce(inputs, out, start)
        # What is not finite in an input is not finite in the result, so one look is enough.
        for kind, _, target in pieces(self.layout, [], out, start):
            if is_float(kind) and not finite(kind, target).all():
                self._look(inputs, start)
                return

    def _look(self, inputs: Sequence[Buffer], start: int) -> None:
        for row, data in enumerate(inputs):
            view = memoryview(data)
            for kind, _, values in pieces(self.layout, [], view, start):
                if is_float(kind) and not np.all(finite(kind, values)):
                    self.reject(row)
