"""The life cycle, told by what the learner hears and what the user's log shows."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarmlearning import SwarmError, link
from swarmlearning.callback import FINISHED, SwarmCallbackBase
from swarmlearning.client import swarm as client
from swarmlearning.link import Connection
from swarmlearning.session import Session
from swarmlearning.settings import Settings
from tests.swarmlearning.fake_sl import Arrays, FakeLearner, ScriptedLearner


class PlainCallback(SwarmCallbackBase):
    """A framework with one tensor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.weights = np.zeros(3, np.float32)
        self.stopped = False
        super().__init__(*args, **kwargs)

    def _verifyAndSetPlatformContext(self, params: Mapping[str, Any]) -> None:
        pass

    def _saveModelWeightsToDict(self) -> dict[str, np.ndarray[Any, Any]]:
        return {"w": self.weights}

    def _loadModelWeightsFromDict(self, inDict: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self.weights = np.array(inDict["w"])

    def _calculateLocalLossAndMetrics(self) -> tuple[float, float]:
        return float(self.weights.sum()), 0.5

    def _stopLocalTraining(self) -> None:
        self.stopped = True

    def fit(self, epochs: int, batches: int) -> None:
        """A training loop that adds one to each weight in each batch."""
        self.on_train_begin()
        for _ in range(epochs):
            for _ in range(batches):
                if self.stopped:
                    break
                self.weights = self.weights + 1
                self.on_batch_end()
            self.on_epoch_end()
        self.on_train_end()


class PortedCallback(client.SwarmCallbackBase):
    """A platform of a user's own, written step by step for the base class under its known path."""

    def __init__(
        self, syncFrequency: int, minPeers: int, trainingContract: str = "c", **kwargs: Any
    ) -> None:
        self.asked: list[str] = []
        client.SwarmCallbackBase.__init__(self, syncFrequency, minPeers, trainingContract, kwargs)
        self._verifyAndSetPlatformContext(kwargs)
        self._swarmInitialize()

    def on_train_begin(self) -> None:
        self._swarmOnTrainBegin()

    def on_batch_end(self, batch: int | None = None) -> None:
        self._swarmOnBatchEnd()

    def on_epoch_end(self, epoch: int | None = None) -> None:
        self._swarmOnEpochEnd()

    def on_train_end(self) -> None:
        self._swarmOnTrainEnd()

    def _verifyAndSetPlatformContext(self, params: Mapping[str, Any]) -> None:
        platform = params.get("ml_platform", client.SLPlatforms.PYTORCH.name)
        if platform != client.SLPlatforms.PYTORCH.name:
            self._logAndRaiseError(f"Invalid ml platform type: {platform}")
        self.mlPlatform = client.SLPlatforms[platform]
        self.weights = np.zeros(2)

    def _getValidationDataForAdaptiveSync(self, valData: Any, valBatchSize: Any) -> Any:
        self.asked.append(f"{valData} {valBatchSize}")
        return None, None, valData, None, None

    def _saveModelWeightsToDict(self) -> dict[str, np.ndarray[Any, Any]]:
        return {"w": self.weights}

    def _loadModelWeightsFromDict(self, paramsDict: Mapping[str, Any]) -> None:
        self.weights = np.array(paramsDict["w"])

    def _calculateLocalLossAndMetrics(self) -> tuple[float, float]:
        return float(self.valX), 0.0


def test_a_users_port_to_another_platform(folder: Path) -> None:
    learner = FakeLearner(folder, merge=lambda _, arrays: {"w": arrays["w"] + 10})
    swarm = PortedCallback(2, 1, adsValData=7, adsValBatchSize=4, mergeMethod="MEAN")
    assert swarm.asked == ["7 4"]
    assert (swarm.valData, swarm.valBatchSize, swarm.valX) == (7, 4, 7)
    assert swarm.mlPlatform == 3
    assert (swarm.syncFrequency, swarm.minPeers, swarm.trainingContract) == (2, 1, "c")
    assert (swarm.nodeWeightage, swarm.checkinModelOnTrainEnd.name) == (1, "snapshot")
    swarm.on_train_begin()
    for number in range(4):
        swarm.weights = swarm.weights + 1
        swarm.on_batch_end(number)
    swarm.on_epoch_end(0)
    swarm.on_train_end()
    learner.join()
    assert [int(array["w"][0]) for array in learner.handed_in] == [0, 13, 24]
    assert {m["loss"] for m in learner.received if m["type"] == "report"} == {"7"}
    with pytest.raises(client.SwarmError, match="Invalid ml platform type: KERAS"):
        PortedCallback(2, 1, ml_platform="KERAS")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARM_LINK", str(tmp_path))
    monkeypatch.delenv("SWARM_LOOPBACK", raising=False)
    return tmp_path


def add_ten(_: int, arrays: Arrays) -> Arrays:
    return {name: array + np.float32(10) for name, array in arrays.items()}


def lines(output: str) -> list[str]:
    """Messages without time stamps; checks the format on the way."""
    found = []
    for line in output.splitlines():
        time, name, level, message = line.split(" : ", 3)
        assert len(time) == 23
        assert name == "SwarmCallback"
        assert level in ("INFO", "WARNING")
        found.append(message)
    return found


def test_a_whole_training(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learner = FakeLearner(folder, merge=add_ten, rounds_while_finishing=2)
    callback = PlainCallback(2, 2, totalEpochs=2, adsValData=([0], [0]))
    callback.fit(epochs=2, batches=3)

    # Merges before the first batch, after batch 3 = N+1, and after 5 = 2N+1; then the end.
    assert [array["w"][0] for array in learner.handed_in] == [0, 13, 25, 36]
    assert learner.kinds() == [
        *["open", "sync", "report", "sync", "report", "sync", "report"],
        *["finish", "report", "report", "bye"],
    ]
    np.testing.assert_array_equal(callback.weights, np.full(3, 46, np.float32))
    assert callback.roundsMerged == 5
    assert len(callback.mergeSeconds) == 3  # those within training
    opened = learner.received[0]
    assert opened["minPeers"] == 2
    assert opened["mode"] == "snapshot"
    assert learner.received[2] == {
        "type": "report",
        "round": 0,
        "loss": "30",
        "metric": "0.5",
        "epochs": 0,
        "totalEpochs": 2,
    }
    said = lines(capsys.readouterr().out)
    assert said[0] == "SwarmCallbackBase logger is set"
    expected = iter(said)
    for wanted in (
        "***** Is Swarm callback in loopback mode: False *****",
        "Starting Swarm merging round ...",
        "Calculated local loss using merged parameters = 30.0",
        "Merge Done: RVInt [cur: 2 Nxt: 2]",
        "Finished local training !!!",
        "Swarm training may continue till trainings in min peers are done!",
        "Final merging starts at training end. Waiting for other peers to complete ...",
        "Informing SL to shutdown gracefully",
        FINISHED,
    ):
        assert wanted in expected, f"{wanted!r} is missing or in the wrong place"
    assert not any("totalEpochs is not given" in line for line in said)


@pytest.mark.parametrize(
    ("frequency", "batches", "after"),
    [(1, 5, [0, 2, 3, 4, 5]), (2, 7, [0, 3, 5, 7]), (3, 3, [0]), (128, 300, [0, 129, 257])],
)
def test_merges_come_after_n_plus_1_batches_then_every_n(
    folder: Path, frequency: int, batches: int, after: list[int]
) -> None:
    learner = FakeLearner(folder)
    PlainCallback(frequency, 1).fit(epochs=1, batches=batches)
    learner.join()
    assert [int(array["w"][0]) for array in learner.handed_in] == [*after, batches]


def test_the_learner_sets_the_next_interval(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = FakeLearner(folder, interval=4)
    PlainCallback(2, 1).fit(epochs=1, batches=10)
    learner.join()
    assert [int(array["w"][0]) for array in learner.handed_in] == [0, 5, 9, 10]
    said = lines(capsys.readouterr().out)
    assert "Merge Done: RVInt [cur: 2 Nxt: 4]" in said
    assert "Merge Done: RVInt [cur: 4 Nxt: 4]" in said


def test_training_over_before_local_training_ends(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = FakeLearner(folder, merge=add_ten, over_after_syncs=2)
    callback = PlainCallback(2, 2)
    callback.fit(epochs=1, batches=9)
    assert callback.stopped
    assert learner.kinds()[-2:] == ["report", "bye"]
    np.testing.assert_array_equal(callback.weights, np.full(3, 23, np.float32))
    said = lines(capsys.readouterr().out)
    tail = said[said.index("Swarm training is over before local training. Exit gracefully.") :]
    assert tail[1:] == [
        "Loading the last merged swarm model",
        "Informing SL to shutdown gracefully",
        FINISHED,
    ]


def test_a_batch_trained_after_the_end_is_undone(folder: Path) -> None:
    """PyTorch programs go on to the end of their loop; the swarm's model is what stays."""
    learner = FakeLearner(folder, merge=add_ten, over_after_syncs=1)
    callback = PlainCallback(1, 2)
    callback.on_train_begin()
    callback.weights = callback.weights + 1
    callback.on_batch_end()
    callback.on_train_end()
    learner.join()
    np.testing.assert_array_equal(callback.weights, np.full(3, 10, np.float32))


def test_a_sync_after_the_end_gets_over_without_a_round(folder: Path) -> None:
    def script(learner: FakeLearner, connection: Connection) -> None:
        learner.expect(connection, "open")
        connection.send({"type": "opened", "round": 7, "uid": "u", "hasModel": False})
        learner.expect(connection, "sync")
        connection.send({"type": "over", "seq": 1, "hasModel": False})
        learner.expect(connection, "bye")

    learner = ScriptedLearner(folder, script)
    callback = PlainCallback(2, 2)
    callback.fit(epochs=1, batches=4)
    assert learner.kinds() == ["open", "sync", "bye"]
    assert callback.isSwarmTrainingOver


def test_a_late_joiner_starts_from_the_swarms_model(folder: Path) -> None:
    learner = FakeLearner(folder, earlier_model={"w": np.full(3, 5, np.float32)})
    PlainCallback(2, 2).fit(epochs=1, batches=1)
    learner.join()
    np.testing.assert_array_equal(learner.handed_in[0]["w"], np.full(3, 5, np.float32))


def test_a_model_that_does_not_fit_is_named(folder: Path) -> None:
    FakeLearner(folder, earlier_model={"w": np.zeros(4, np.float32)})
    with pytest.raises(SwarmError, match="here w float32 3, there w float32 4"):
        PlainCallback(2, 2).on_train_begin()


def test_an_inactive_node_ends_with_weight_0(folder: Path) -> None:
    learner = FakeLearner(folder)
    PlainCallback(9, 2, checkinModelOnTrainEnd="inactive", nodeWeightage=7).fit(1, 1)
    weights = {m["type"]: m["weightage"] for m in learner.join() if "weightage" in m}
    assert weights == {"open": 7, "sync": 7, "finish": 0}


def test_warnings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learner = FakeLearner(folder)
    PlainCallback(100, 2, mlPlatform="KERAS").fit(epochs=1, batches=3)
    learner.join()
    said = lines(capsys.readouterr().out)
    assert "No user merge done during swarm training. syncFrequency=100 may be high." in said
    assert "Ignoring unknown parameters: mlPlatform" in said
    assert any("totalEpochs is not given" in line for line in said)


def test_what_the_learner_waits_for_is_logged_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = FakeLearner(folder, waiting=["for 1 more", "for 1 more", "for sl-2"])
    PlainCallback(1, 1).fit(epochs=1, batches=1)
    learner.join()
    said = lines(capsys.readouterr().out)
    assert [line for line in said if line.startswith("for ")] == ["for 1 more", "for sl-2"]


def test_loopback_needs_no_learner(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWARM_LOOPBACK", "True")
    callback = PlainCallback(2, 2)
    callback.fit(epochs=2, batches=5)
    assert callback.weights[0] == 10
    assert callback.epochsCompleted == 2
    said = lines(capsys.readouterr().out)
    assert said[-1] == "***** Is Swarm callback in loopback mode: True *****"
    with pytest.raises(SwarmError, match="minPeers have to be"):
        PlainCallback(2, 0)


def test_a_logger_of_the_user_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SWARM_LOOPBACK", "true")
    caplog.set_level(logging.INFO)
    callback = PlainCallback(2, 2, logger=logging.getLogger("mine"))
    assert callback.logger.name == "mine"
    assert caplog.records[0].name == "mine"


MERGED = {"type": "merged", "seq": 1, "round": 0, "over": False, "peers": 2, "counted": True}
MERGED["shared"] = False


def refuses(learner: FakeLearner, connection: Connection) -> None:
    learner.expect(connection, "open")
    connection.send({"type": "error", "code": "SW6001", "text": "minPeers is 3 there, 2 here"})


def answers_nonsense(learner: FakeLearner, connection: Connection) -> None:
    learner.expect(connection, "open")
    connection.send({"type": "opened", "round": "0"})


def answers_out_of_turn(learner: FakeLearner, connection: Connection) -> None:
    learner.expect(connection, "open")
    connection.send({"type": "over", "seq": 1, "hasModel": True})


def answers_another_call(learner: FakeLearner, connection: Connection) -> None:
    learner.expect(connection, "open")
    connection.send({"type": "opened", "round": 0, "uid": "u", "hasModel": False})
    learner.expect(connection, "sync")
    connection.send({"type": "over", "seq": 9, "hasModel": False})


def merges_without_a_file(learner: FakeLearner, connection: Connection) -> None:
    learner.expect(connection, "open")
    connection.send({"type": "opened", "round": 0, "uid": "u", "hasModel": False})
    learner.expect(connection, "sync")
    connection.send({**MERGED, "next": 1})


def merges_never_again(learner: FakeLearner, connection: Connection) -> None:
    learner.expect(connection, "open")
    connection.send({"type": "opened", "round": 0, "uid": "u", "hasModel": False})
    learner.expect(connection, "sync")
    connection.send({**MERGED, "next": 0})


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (refuses, "Init .* - SW6001: minPeers is 3 there, 2 here"),
        (answers_nonsense, "makes no sense"),
        (answers_out_of_turn, "'over' at the wrong time"),
        (answers_another_call, "answered call 9, expected 1"),
        (merges_without_a_file, "cannot read the merged weights"),
        (merges_never_again, "every 0 batches"),
    ],
)
def test_what_the_learner_does_wrong_is_said(folder: Path, script: Any, said: str) -> None:
    ScriptedLearner(folder, script)
    with pytest.raises(SwarmError, match=said):
        PlainCallback(9, 2).fit(epochs=1, batches=1)


def test_a_callback_serves_one_training(folder: Path) -> None:
    learner = FakeLearner(folder)
    callback = PlainCallback(9, 2)
    callback.fit(epochs=1, batches=1)
    learner.join()
    with pytest.raises(SwarmError, match="make a new one for each training"):
        callback.fit(epochs=1, batches=1)


def test_weights_that_change_their_shape_are_refused(folder: Path) -> None:
    FakeLearner(folder)
    callback = PlainCallback(1, 2)
    callback.on_train_begin()
    callback.weights = np.zeros(4, np.float32)
    callback.on_batch_end()
    with pytest.raises(SwarmError, match=r"'w' is float32 \(4,\), the file holds"):
        callback.on_batch_end()


def test_the_program_waits_for_a_learner_that_starts_later(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "test")
    seconds = itertools.count(0.0, 2.0)
    started: list[FakeLearner] = []

    def said() -> list[str]:
        # Threads of earlier tests may still have something to say.
        return [record.message for record in caplog.records if record.name == "test"]

    def sleep(_: float) -> None:
        if len(said()) == 2 and not started:
            started.append(FakeLearner(folder))

    session = Session(folder, logging.getLogger("test"))
    session.open(Settings(1, 1), clock=lambda: next(seconds), sleep=sleep)
    session.bye()
    started[0].join()
    waiting = (
        f"Waiting for the learner (SL) to start: no learner listens on {folder / link.SOCKET}: "
        "No such file or directory"
    )
    assert said() == [waiting, waiting]
