"""The base class under the path and with the calls that existing ports to other platforms use.

New ports subclass `swarmlearning.callback.SwarmCallbackBase`, whose constructor and hooks do
everything. Older ones take these steps one by one: their constructor calls this one with all
keyword arguments as a dictionary, then `_verifyAndSetPlatformContext` and `_swarmInitialize`; their
hooks call the `_swarmOn…` methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from swarmlearning import callback
from swarmlearning.errors import SwarmError
from swarmlearning.settings import (
    DEFAULT_CONTRACT,
    CheckinModel,
    HFMode,
    SLMergeMethod,
    SLPlatforms,
)

__all__ = [
    "CheckinModel",
    "HFMode",
    "SLMergeMethod",
    "SLPlatforms",
    "SwarmCallbackBase",
    "SwarmError",
]


class SwarmCallbackBase(callback.SwarmCallbackBase):
    """What the callbacks of all platforms share, to be driven step by step."""

    platforms: ClassVar[tuple[SLPlatforms, ...]] = tuple(SLPlatforms)

    def __init__(
        self,
        syncFrequency: int,
        minPeers: int,
        trainingContract: str = DEFAULT_CONTRACT,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        """Check the parameters and log them; nothing is opened yet. Raises SwarmError."""
        self._read_parameters(syncFrequency, minPeers, trainingContract, params or {})
        # Under the names of the parameters, for ports that read them.
        settings = self._settings
        self.syncFrequency, self.minPeers = settings.sync_frequency, settings.min_peers
        self.trainingContract, self.totalEpochs = settings.contract, settings.total_epochs
        self.nodeWeightage, self.checkinModelOnTrainEnd = settings.weightage, settings.mode
        self.mergeMethod, self.useAdaptiveSync = settings.merge_method, settings.adaptive

    def _swarmOnTrainBegin(self) -> None:
        callback.SwarmCallbackBase.on_train_begin(self)

    def _swarmOnBatchEnd(self) -> None:
        callback.SwarmCallbackBase.on_batch_end(self)

    def _swarmOnEpochEnd(self) -> None:
        callback.SwarmCallbackBase.on_epoch_end(self)

    def _swarmOnTrainEnd(self) -> None:
        callback.SwarmCallbackBase.on_train_end(self)

    def _logAndRaiseError(self, message: str) -> NoReturn:
        """Log and raise SwarmError."""
        self.logger.error(message)
        raise SwarmError(message)
