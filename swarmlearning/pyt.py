"""The callback for PyTorch. The program calls the four hooks from its own training loop:

callback = SwarmCallback(syncFrequency=128, minPeers=2, model=model)
callback.on_train_begin()
for epoch in range(epochs):
    for batch, (x, y) in enumerate(loader):
        ...
        callback.on_batch_end(batch)
    callback.on_epoch_end(epoch)
callback.on_train_end()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader

from swarmlearning import torch_measure
from swarmlearning.errors import SwarmError
from swarmlearning.settings import SLPlatforms
from swarmlearning.torch_callback import TorchCallback

__all__ = ["SwarmCallback", "SwarmError"]


class SwarmCallback(TorchCallback):
    """Merges a PyTorch model with its peers. See SwarmCallbackBase for the hooks.

    `model` is the module that is trained, alone or inside DataParallel; its whole `state_dict` is
    merged, in the types that it has.

    `adsValData` is a DataLoader of (input, target) batches; with more parts, the last is the
    target and the others go into the model. With `lossFunction` (a class in torch.nn) and
    `metricFunction` (a class in torchmetrics), and their `…Args`, the merged model is measured on
    it after each round, for the reports.

    A loop of the program's own cannot be stopped from here: when `isSwarmTrainingOver` is set it
    may end; batches after that are not merged, and `on_train_end` loads the swarm's final model.
    """

    platforms = (SLPlatforms.PYTORCH,)

    def _verifyAndSetPlatformContext(self, params: Mapping[str, Any]) -> None:
        model = params.get("model")
        if model is None:
            raise SwarmError("Pytorch model is None")
        self._take(model)
        self._measure = torch_measure.Measure(params)
        if self._settings.adaptive and not self._measure.has_loss:
            raise SwarmError("Adaptive sync follows the loss: give lossFunction, too")
        if "hfMode" in params:
            self.logger.info("hfMode is ignored: it is for Hugging Face models")
        self._weights()

    def _getValidationDataForAdaptiveSync(
        self, valData: Any, valBatchSize: int | None
    ) -> tuple[Any, Any, Any, Any, Any]:
        if not isinstance(valData, DataLoader):
            raise SwarmError(f"adsValData type passed is {type(valData)}; give a DataLoader")
        return valData, None, None, None, None

    def _calculateLocalLossAndMetrics(self) -> tuple[float, float]:
        device = torch_measure.device_of(self._model)
        self._measure.begin(device)
        with torch_measure.undisturbed(self._model):
            for batch in self.valGen:
                if not isinstance(batch, (tuple, list)) or len(batch) < 2:
                    raise SwarmError("the batches of adsValData have to be (input, target)")
                *inputs, target = torch_measure.moved(batch, device)
                self._measure.add(self._model(*inputs), target)
        return self._measure.result()

    def _stopLocalTraining(self) -> None:
        self.logger.info("Swarm training is over. Batches from here on are not merged")
