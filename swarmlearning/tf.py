"""The callback for Keras: version 3 inside TensorFlow 2.16 and later, and tf_keras (Keras 2).

from swarmlearning.tf import SwarmCallback
model.fit(x, y, callbacks=[SwarmCallback(syncFrequency=128, minPeers=2)])
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from swarmlearning import keras_compat
from swarmlearning.callback import SwarmCallbackBase
from swarmlearning.errors import SwarmError
from swarmlearning.settings import SLPlatforms
from swarmlearning.tensors import Array

__all__ = ["SwarmCallback", "SwarmError"]

keras_compat.install(tf.keras)

MAX_GENERATED = 1000  # batches that are kept of a generator


class SwarmCallback(SwarmCallbackBase, tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Merges a Keras model with its peers while `fit` runs. See SwarmCallbackBase.

    Keras calls all hooks by itself; its `on_train_batch_end` leads to `on_batch_end`.

    `adsValData` is (x, y), (x, y, sample_weight), or a dataset (also a generator that ends); the
    merged model is evaluated on it after each round, for the reports and for adaptive sync. Loss
    and the first compiled metric are reported.
    """

    platforms = (SLPlatforms.KERAS, SLPlatforms.TF)

    # tf_keras asks these of a callback; Keras 3's base class does not have them.
    _supports_tf_logs = False
    _chief_worker_only = None

    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    def _verifyAndSetPlatformContext(self, params: Mapping[str, Any]) -> None:
        if self._settings.platform is SLPlatforms.TF:
            if params.get("tf") is None or params.get("sess") is None:
                raise SwarmError("tf and sess params are must for Tensorflow platform")
            raise SwarmError("sessions of TensorFlow 1 are not supported; use a Keras model")
        if "hfMode" in params:
            self.logger.info("hfMode is ignored: it is for Hugging Face models")

    def _getValidationDataForAdaptiveSync(
        self, valData: Any, valBatchSize: int | None
    ) -> tuple[Any, Any, Any, Any, Any]:
        if not isinstance(valData, types.GeneratorType):
            return super()._getValidationDataForAdaptiveSync(valData, valBatchSize)
        # It can be read once, and is needed in each round.
        batches = list(itertools.islice(valData, MAX_GENERATED + 1))
        if not 0 < len(batches) <= MAX_GENERATED:
            raise SwarmError(
                f"adsValData is a generator, which is read once and kept; it gave "
                f"{'no batch' if not batches else f'more than {MAX_GENERATED} batches'}. "
                "Give one that ends, arrays, or a tf.data.Dataset"
            )
        return batches, len(batches), None, None, None

    def _saveModelWeightsToDict(self) -> dict[str, Array]:
        weights = self._weights()
        return {_key(i, weight): weight.numpy() for i, weight in enumerate(weights)}

    def _loadModelWeightsFromDict(self, inDict: Mapping[str, Array]) -> None:
        for i, weight in enumerate(self._weights()):
            # A real copy: TensorFlow may adopt aligned memory instead of copying it, and would then
            # see the next round appear in the model.
            value = np.array(inDict[_key(i, weight)])
            if _dtype(weight) == "bfloat16":
                value = value.view(tf.bfloat16.as_numpy_dtype)
            weight.assign(value)

    def _calculateLocalLossAndMetrics(self) -> tuple[float, float]:
        saved, history = self._metric_values(), getattr(self.model, "history", None)
        if self.valX is not None:
            scores = self.model.evaluate(
                self.valX,
                self.valY,
                sample_weight=self.valSampleWeight,
                batch_size=self.valBatchSize,
                verbose=0,
            )
        elif self.validationSteps is not None:
            batches = (batch for batch in self.valGen)
            scores = self.model.evaluate(batches, steps=self.validationSteps, verbose=0)
        else:
            scores = self.model.evaluate(self.valGen, verbose=0)
        # evaluate() has overwritten the running sums of the epoch that is under way, and in
        # tf_keras the history that fit() will return.
        self.model.history = history
        self.model.reset_metrics()
        for variable, value in saved:
            variable.assign(value)
        values = np.ravel(scores)
        return float(values[0]), float(values[1]) if len(values) > 1 else 0.0

    def _stopLocalTraining(self) -> None:
        self.logger.info("Swarm training is over. Stopping local training")
        self.model.stop_training = True

    def _metric_values(self) -> list[tuple[Any, Array]]:
        return [
            (variable, np.array(variable.numpy()))
            for metric in self.model.metrics
            for variable in metric.variables
        ]

    def _weights(self) -> Sequence[Any]:
        """All weights, trained or not (as the statistics of a batch normalisation)."""
        weights: Sequence[Any] = self.model.weights
        if not weights:
            raise SwarmError(
                "the model has no weights when its training begins; "
                "build it first, for example with an Input layer"
            )
        return weights


def _key(index: int, weight: Any) -> str:
    """A name that is the same on all nodes.

    Keras 3's `name` is not unique, and its `path` carries a number that depends on what else the
    program has built; position and last part do not.
    """
    name = getattr(weight, "path", None) or weight.name
    return f"{index:04d}/{name.split(':')[0].rsplit('/', 1)[-1]}"


def _dtype(weight: Any) -> str:
    return str(tf.as_dtype(weight.dtype).name)
