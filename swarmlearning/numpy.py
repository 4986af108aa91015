"""The bare callback, for any framework: weights are a dictionary of numpy arrays.

from swarmlearning.numpy import SwarmCallback
swarm = SwarmCallback(syncFrequency=128, minPeers=2)
weights = swarm.on_train_begin(weights)
for batch in batches:
    weights = swarm.on_batch_end(step(weights, batch))
weights = swarm.on_train_end(weights)

Names, shapes and types of the arrays, and their order, must be the same on all nodes and in all
calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from swarmlearning.callback import SwarmCallbackBase
from swarmlearning.errors import SwarmError
from swarmlearning.settings import SLPlatforms
from swarmlearning.tensors import Array

__all__ = ["SwarmCallback", "SwarmError"]

Weights = Mapping[str, Array]


class SwarmCallback(SwarmCallbackBase):
    """Merges whatever arrays the hooks are given. See SwarmCallbackBase for the parameters.

    The program calls the hooks with its weights and goes on with what they return: the same object
    when nothing was merged, otherwise a new dictionary of new arrays. Arrays of the type bfloat16
    (of the package ml_dtypes) come back as such, 0-d and empty ones, too.

    `lossFunction(weights, adsValData)` and `metricFunction(weights, adsValData)` measure the merged
    weights after each round, for the reports and for adaptive sync; both are optional.
    """

    platforms = (SLPlatforms.NUMPY,)

    _weights: Weights  # what the last hook was given, and gives back

    def on_train_begin(self, weights: Weights) -> Weights:  # type: ignore[override]
        """Merge once before the first batch."""
        self._weights = weights
        super().on_train_begin()
        return self._weights

    def on_batch_end(self, weights: Weights) -> Weights:  # type: ignore[override]
        """Merge when it is time to."""
        self._weights = weights
        super().on_batch_end()
        return self._weights

    def on_train_end(self, weights: Weights) -> Weights:  # type: ignore[override]
        """Take part until the swarm is done; returns its final model."""
        self._weights = weights
        super().on_train_end()
        return self._weights

    def _verifyAndSetPlatformContext(self, params: Mapping[str, Any]) -> None:
        self._loss, self._metric = params.get("lossFunction"), params.get("metricFunction")
        for name, function in (("lossFunction", self._loss), ("metricFunction", self._metric)):
            if function is not None and not callable(function):
                raise SwarmError(f"{name} has to be a function of the weights and of adsValData")
        if self._settings.adaptive and self._loss is None:
            raise SwarmError("For adaptive sync, a lossFunction is mandatory")

    def _getValidationDataForAdaptiveSync(
        self, valData: Any, valBatchSize: int | None
    ) -> tuple[Any, Any, Any, Any, Any]:
        return valData, None, None, None, None  # only the program's own functions read it

    def _saveModelWeightsToDict(self) -> dict[str, Array]:
        if not isinstance(self._weights, Mapping) or not self._weights:
            raise SwarmError("the weights have to be a dictionary with at least one numpy array")
        for name, array in self._weights.items():
            if not isinstance(array, (np.ndarray, np.generic)):
                raise SwarmError(f"weights[{name!r}] is no numpy array but {type(array).__name__}")
        return {name: np.asarray(array) for name, array in self._weights.items()}

    def _loadModelWeightsFromDict(self, inDict: Mapping[str, Array]) -> None:
        # Bit patterns get the program's own type back: numpy has none for bfloat16.
        self._weights = {
            name: np.array(inDict[name]).view(np.asarray(array).dtype)
            for name, array in self._weights.items()
        }

    def _calculateLocalLossAndMetrics(self) -> tuple[float, float]:
        data = self.valData
        loss = float(self._loss(self._weights, data)) if self._loss is not None else 0.0
        metric = float(self._metric(self._weights, data)) if self._metric is not None else 0.0
        return loss, metric
