"""The life cycle of swarm training in a user's program, whatever the framework.

A framework's module subclasses `SwarmCallbackBase` and implements the five methods at its end; the
framework, or the user, calls the four `on_…` hooks. What happens when:

    constructor      parameters are checked, the session with the learner is opened
    on_train_begin   one merge, so that all nodes start from the same weights
    on_batch_end     a merge after syncFrequency + 1 batches, then every syncFrequency batches: the
                     counter is looked at before it is lowered
    on_epoch_end     counted, for reports
    on_train_end     the final weights are handed in; merges go on until minPeers nodes are done;
                     the final swarm model is loaded

With SWARM_LOOPBACK=true in the environment nothing is opened and nothing merged: the program runs
alone, with its parameters checked. The log lines are those that users' filters know.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from swarmlearning import link
from swarmlearning.errors import SwarmError
from swarmlearning.session import Merged, Session
from swarmlearning.settings import (
    DEFAULT_CONTRACT,
    CheckinModel,
    Settings,
    SLPlatforms,
)
from swarmlearning.tensors import Array

LOG_FORMAT = "%(asctime)s : %(name)s : %(levelname)s : %(message)s"
FINISHED = "All peers and Swarm training rounds finished. Final Swarm model was loaded."


class SwarmCallbackBase:
    """What the callbacks of all frameworks share."""

    platforms: ClassVar[tuple[SLPlatforms, ...]] = (SLPlatforms.KERAS,)

    def __init__(
        self,
        syncFrequency: int,
        minPeers: int,
        trainingContract: str = DEFAULT_CONTRACT,
        **kwargs: Any,
    ) -> None:
        """Check the parameters and open the session; returns when the learner has enrolled.

        Raises SwarmError on a bad parameter, or when the learner refuses.
        """
        super().__init__()
        self._read_parameters(syncFrequency, minPeers, trainingContract, kwargs)
        self._verifyAndSetPlatformContext(kwargs)
        self._swarmInitialize()

    def _read_parameters(
        self, sync_frequency: int, min_peers: int, contract: str, params: Mapping[str, Any]
    ) -> None:
        self.logger: logging.Logger = params.get("logger") or default_logger()
        self.logger.info("SwarmCallbackBase logger is set")
        settings = Settings.read(sync_frequency, min_peers, contract, params, self.platforms)
        self._settings = settings
        self.mlPlatform = settings.platform
        self.valData = settings.validation_data
        self.valBatchSize = settings.validation_batch
        parts: tuple[Any, Any, Any, Any, Any] = (None,) * 5
        if self.valData is not None:
            parts = self._getValidationDataForAdaptiveSync(self.valData, self.valBatchSize)
        self.valGen, self.validationSteps, self.valX, self.valY, self.valSampleWeight = parts
        self._log_parameters()
        self.loopback = os.environ.get("SWARM_LOOPBACK", "").lower() == "true"
        self.logger.info("***** Is Swarm callback in loopback mode: %s *****", self.loopback)

        self.isSwarmTrainingOver = False
        self.epochsCompleted = 0
        self.nextSyncInterval = settings.sync_frequency
        self.stepsBeforeNextSync = settings.sync_frequency
        self.userMergeDone = False
        self.roundsMerged = 0
        self.mergeSeconds: list[float] = []  # of each merge, waiting for the peers included
        self._session = Session(link.directory(), self.logger)
        self._begun = False
        self._has_merged = False

    def _swarmInitialize(self) -> None:
        """Open the session. The last step of the constructor."""
        if not self.loopback:
            self._session.open(self._settings)

    # The hooks. Frameworks pass more or fewer arguments; none of them is needed.

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Merge once before the first batch. A late joiner starts from the swarm's model."""
        if self.loopback:
            return
        if self._begun:
            raise SwarmError("this SwarmCallback has been used; make a new one for each training")
        self._begun = True
        if self._session.has_model:
            self.logger.info("Loading the last merged swarm model")
            self._load_merged()
        self._merge()

    def on_batch_end(self, *_: Any, **__: Any) -> None:
        """Merge when it is time to."""
        if self.loopback or self.isSwarmTrainingOver:
            return
        if self.stepsBeforeNextSync == 0:
            self.userMergeDone = True
            self._merge()
        self.stepsBeforeNextSync -= 1

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Count."""
        self.epochsCompleted += 1

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Take part until the swarm is done, and load its final model."""
        if self.loopback:
            return
        if self.isSwarmTrainingOver:
            self.logger.info("Swarm training is over before local training. Exit gracefully.")
            if self._has_merged:
                self.logger.info("Loading the last merged swarm model")
                self._load_merged()
        else:
            self._finish()
        self.logger.info("Informing SL to shutdown gracefully")
        self._session.bye()
        self.logger.info(FINISHED)

    def _merge(self) -> None:
        """One round: hand in, load what comes back, report."""
        self.logger.info("Starting Swarm merging round ...")
        started = time.monotonic()
        merged = self._session.sync(
            self._saveModelWeightsToDict(),
            weightage=self._settings.weightage,
            # Keras does not tell its callbacks how many samples a batch had; 0 stands for unknown.
            samples=0,
            epochs=self.epochsCompleted,
        )
        if merged.has_model:
            self._load_merged()
        if merged.decided:
            self.mergeSeconds.append(time.monotonic() - started)
            self._report(merged)
        if merged.over:
            self._training_is_over()
            return
        self.logger.info("Merge Done: RVInt [cur: %d Nxt: %d]", self.nextSyncInterval, merged.next)
        self.nextSyncInterval = merged.next
        self.stepsBeforeNextSync = merged.next

    def _finish(self) -> None:
        self.logger.info("Finished local training !!!")
        if not self.userMergeDone:
            self.logger.warning(
                "No user merge done during swarm training. syncFrequency=%d may be high.",
                self._settings.sync_frequency,
            )
        self.logger.info("Swarm training may continue till trainings in min peers are done!")
        self.logger.info(
            "Final merging starts at training end. Waiting for other peers to complete ..."
        )
        weightage = self._settings.weightage
        if self._settings.mode is CheckinModel.inactive:
            weightage = 0
        rounds = self._session.finish(
            self._saveModelWeightsToDict(), weightage=weightage, epochs=self.epochsCompleted
        )
        for merged in rounds:
            # Only the last model stays; those before are loaded where they can be measured.
            if merged.has_model and (merged.over or self._settings.validation_data is not None):
                self._load_merged()
            if merged.decided:
                self._report(merged)
        self.isSwarmTrainingOver = True

    def _load_merged(self) -> None:
        with self._session.merged(self._saveModelWeightsToDict) as arrays:
            self._loadModelWeightsFromDict(arrays)
        self._has_merged = True

    def _report(self, merged: Merged) -> None:
        self.roundsMerged += 1
        loss, metric = 0.0, 0.0
        if self._settings.validation_data is not None:
            loss, metric = self._calculateLocalLossAndMetrics()
            self.logger.info("Calculated local loss using merged parameters = %s", loss)
        self.logger.info("Round %d: merged parameters of %d peers", merged.round, merged.peers)
        self._session.report(
            merged.round, loss, metric, self.epochsCompleted, self._settings.total_epochs
        )

    def _training_is_over(self) -> None:
        self.isSwarmTrainingOver = True
        self._stopLocalTraining()

    def _log_parameters(self) -> None:
        settings = self._settings
        lines = [
            "*" * 60,
            "Swarm parameters:",
            f"  trainingContract       = {settings.contract}",
            f"  syncFrequency          = {settings.sync_frequency}",
            f"  minPeers               = {settings.min_peers}",
            f"  mergeMethod            = {settings.merge_method}",
            *(f"    {name:<20} = {value}" for name, value in settings.merge_args.items()),
            f"  useAdaptiveSync        = {settings.adaptive}",
            f"  nodeWeightage          = {settings.weightage}",
            f"  checkinModelOnTrainEnd = {settings.mode.name}",
            f"  totalEpochs            = {settings.total_epochs}",
            f"  validation data        = {settings.validation_data is not None}",
            "*" * 60,
        ]
        for line in lines:
            self.logger.info(line)
        if not settings.total_epochs:
            for line in (
                "*" * 60,
                "totalEpochs is not given: progress of this node is shown without its end.",
                "*" * 60,
            ):
                self.logger.warning(line)
        if settings.unknown:
            self.logger.warning("Ignoring unknown parameters: %s", ", ".join(settings.unknown))

    # What a framework's module implements.

    def _verifyAndSetPlatformContext(self, params: Mapping[str, Any]) -> None:
        """Check the parameters that only this framework knows. Raises SwarmError."""
        raise NotImplementedError

    def _getValidationDataForAdaptiveSync(
        self, valData: Any, valBatchSize: int | None
    ) -> tuple[Any, Any, Any, Any, Any]:
        """`adsValData`, which is not None, as (generator, steps, x, y, sample weights).

        Called by the constructor, before `_verifyAndSetPlatformContext`. The parts are kept as
        `valGen`, `validationSteps`, `valX`, `valY` and `valSampleWeight`; what is not used is None.
        This implementation knows (x, y) and (x, y, sample_weight), and takes everything else for a
        data set that can be read again and again. Raises SwarmError.
        """
        if not isinstance(valData, (tuple, list)):
            return valData, None, None, None, None
        if len(valData) not in (2, 3):
            raise SwarmError(
                f"adsValData has {len(valData)} parts; "
                "give (x, y), (x, y, sample_weight) or a dataset"
            )
        x, y, *weights = valData
        return None, None, x, y, weights[0] if weights else None

    def _saveModelWeightsToDict(self) -> dict[str, Array]:
        """The model's weights. Names and order must be the same on all nodes."""
        raise NotImplementedError

    def _loadModelWeightsFromDict(self, inDict: Mapping[str, Array]) -> None:
        """Put weights into the model, as copies: the next round is written into the same memory."""
        raise NotImplementedError

    def _calculateLocalLossAndMetrics(self) -> tuple[float, float]:
        """Loss and first metric of the model on the validation data."""
        raise NotImplementedError

    def _stopLocalTraining(self) -> None:
        """Stop the training loop where the framework allows that; otherwise do nothing."""


class _StandardOutput(logging.StreamHandler):  # type: ignore[type-arg]  # no generic in 3.10
    """Writes to whatever `sys.stdout` is at that moment, as programs and tests replace it."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def default_logger() -> logging.Logger:
    """The logger `SwarmCallback`: standard output, INFO, apart from the program's own logging."""
    logger = logging.getLogger("SwarmCallback")
    if not any(isinstance(handler, _StandardOutput) for handler in logger.handlers):
        handler = _StandardOutput()
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger
