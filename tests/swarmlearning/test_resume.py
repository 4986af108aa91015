"""The program's side when its learner is restarted: it waits, and repeats what was not answered."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarmlearning.errors import SwarmError
from swarmlearning.link import Connection
from swarmlearning.session import Merged, Session
from swarmlearning.settings import CheckinModel, Settings
from swarmlearning.tensors import TensorFile
from tests.processes import until
from tests.swarmlearning.fake_sl import FakeLearner, ScriptedLearner

WEIGHTS = {"w": np.zeros(3, np.float32)}
Script = Callable[[FakeLearner, Connection], None]


class Line:
    """Learners that follow each other: the next starts when the program looks for one."""

    def __init__(self, folder: Path, *scripts: Script) -> None:
        self._folder = folder
        self._scripts = list(scripts)
        self.learners: list[FakeLearner] = []
        self.next()

    def next(self, _: float = 0) -> None:
        if self._scripts and not any(one._thread.is_alive() for one in self.learners):
            self.learners.append(ScriptedLearner(self._folder, self._scripts.pop(0)))

    def heard(self) -> list[list[dict[str, Any]]]:
        return [learner.join() for learner in self.learners]


def opened(has_model: bool = False, round_: int = 0) -> dict[str, Any]:
    return {"type": "opened", "round": round_, "uid": "u", "hasModel": has_model}


def merged(
    round_: int, *, seq: int = 1, over: bool = False, counted: bool = True, shared: bool = True
) -> Any:
    more = {"next": 5, "peers": 2, "counted": counted, "shared": shared}
    return {"type": "merged", "seq": seq, "round": round_, "over": over, **more}


def gone_at(*steps: tuple[str, Any]) -> Script:
    """A learner that hears each kind of message, gives the answer if there is one, and is gone."""

    def script(learner: FakeLearner, connection: Connection) -> None:
        for kind, answer in steps:
            learner.expect(connection, kind)
            if kind in ("sync", "finish"):
                learner._put(learner._take(connection))
            if answer is not None:
                connection.send(answer)
                if answer.get("shared"):
                    connection.send({"type": "saved"})

    return script


def start(folder: Path, line: Line, **more: Any) -> Session:
    session = Session(folder, logging.getLogger("test"))
    session.open(Settings(1, 2, **more), sleep=line.next)
    return session


def load(session: Session) -> None:
    with session.merged(lambda: WEIGHTS):
        pass


def sync(session: Session) -> Merged:
    answer = session.sync(WEIGHTS, weightage=1, samples=0, epochs=0)
    load(session)
    return answer


def test_open_is_repeated(tmp_path: Path) -> None:
    line = Line(tmp_path, gone_at(("open", None)), gone_at(("open", opened()), ("bye", None)))
    start(tmp_path, line).bye()
    first, second = line.heard()
    assert first == second[:1]
    assert first[0]["round"] == -1


def test_a_sync_is_repeated_with_the_model_that_it_was_made_from(tmp_path: Path) -> None:
    line = Line(
        tmp_path,
        gone_at(("open", opened()), ("sync", merged(3)), ("sync", None)),
        gone_at(("open", opened(True, 5))),
        gone_at(
            ("open", opened(True, 5)), ("sync", merged(4, seq=2, counted=False)), ("bye", None)
        ),
    )
    session = start(tmp_path, line)
    assert sync(session).round == 3
    late = sync(session)
    assert (late.round, late.counted) == (4, False)
    assert session.has_model is False  # nothing to load but the answer
    session.bye()
    first, second, third = line.heard()
    assert [m["round"] for m in (second[0], third[0])] == [3, 3]
    assert third[1] == first[2]
    assert third[1]["seq"] == 2


def handed_in(learner: FakeLearner, connection: Connection) -> TensorFile:
    """The memory of a program's first sync."""
    learner.expect(connection, "open")
    connection.send(opened())
    learner.expect(connection, "sync")
    return learner.share(connection)


def test_weights_are_handed_in_again_when_the_learner_asks(tmp_path: Path) -> None:
    """They are in its memory as before, whatever an attempt has left there."""
    seen = []

    def asks_twice(learner: FakeLearner, connection: Connection) -> None:
        memory = handed_in(learner, connection)
        for _ in range(2):
            memory.write({"w": np.full(3, 9, np.float32)})
            connection.send({"type": "again"})
            learner.expect(connection, "again")
            seen.append(memory.arrays()["w"].tolist())
        memory.write({"w": np.full(3, 7, np.float32)})
        connection.send(merged(0))

    line = Line(tmp_path, asks_twice)
    session = start(tmp_path, line)
    weights = {"w": np.arange(3, dtype=np.float32)}
    session.sync(weights, weightage=1, samples=0, epochs=0)
    with session.merged(lambda: weights) as arrays:
        assert arrays["w"].tolist() == [7, 7, 7]
    assert seen == [[0, 1, 2]] * 2
    line.heard()


def test_memory_is_written_to_when_the_learner_has_saved_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before: it holds the merged model, which others may be fetching."""
    caplog.set_level(logging.INFO, "test")
    monkeypatch.setattr("swarmlearning.session.SAY_EVERY", 0.01)
    said = "Waiting for the learner (SL) to save the last merged model"

    def saves_late(learner: FakeLearner, connection: Connection) -> None:
        memory = handed_in(learner, connection)
        memory.write({"w": np.full(3, 7, np.float32)})
        connection.send(merged(0))
        until(lambda: said in caplog.messages, 30, "the program waits")
        assert memory.arrays()["w"].tolist() == [7, 7, 7]
        connection.send({"type": "saved"})
        learner.expect(connection, "sync")
        connection.send(merged(1, seq=2))

    line = Line(tmp_path, saves_late)
    session = start(tmp_path, line)
    sync(session)
    assert sync(session).round == 1
    line.heard()


def test_a_call_that_is_repeated_comes_with_new_memory(tmp_path: Path) -> None:
    """The learner that is gone may have merged in the old one."""
    nodes: list[int] = []

    def begins(learner: FakeLearner, connection: Connection) -> None:
        memory = handed_in(learner, connection)
        memory.write({"w": np.full(3, 9, np.float32)})
        nodes.append(os.fstat(memory.descriptor).st_ino)

    def ends(learner: FakeLearner, connection: Connection) -> None:
        memory = handed_in(learner, connection)
        nodes.append(os.fstat(memory.descriptor).st_ino)
        assert memory.arrays()["w"].tolist() == [0, 0, 0]
        connection.send(merged(0))

    line = Line(tmp_path, begins, ends)
    assert sync(start(tmp_path, line)).round == 0
    line.heard()
    assert nodes[0] != nodes[1]


def test_a_finish_says_whether_its_weights_count_still(tmp_path: Path) -> None:
    again = merged(1, over=True, shared=False)
    line = Line(
        tmp_path,
        gone_at(("open", opened()), ("finish", merged(0, shared=False))),
        gone_at(("open", opened()), ("report", None), ("finish", again), ("report", None)),
    )
    session = start(tmp_path, line, mode=CheckinModel.active)
    for answer in session.finish(WEIGHTS, weightage=1, epochs=1):
        line.learners[0].join() if answer.round == 0 else None
        session.report(answer.round, 0.5, 0.5, 1, 1)
    first, second = line.heard()
    assert (first[1]["round"], first[1]["own"]) == (-1, True)
    assert (second[2]["round"], second[2]["own"], second[2]["seq"]) == (0, False, 1)
    # The report that nobody was there to hear comes after the next open.
    assert [m["round"] for m in second if m["type"] == "report"] == [0, 1]
    session.bye()


@pytest.mark.parametrize(("counted", "own"), [(True, True), (False, False)])
def test_a_snapshot_is_brought_again_if_it_came_in_time(
    tmp_path: Path, counted: bool, own: bool
) -> None:
    line = Line(
        tmp_path,
        gone_at(("open", opened()), ("finish", merged(0, counted=counted)), ("report", None)),
        gone_at(("open", opened()), ("finish", merged(1, over=True))),
    )
    session = start(tmp_path, line)
    for answer in session.finish(WEIGHTS, weightage=1, epochs=1):
        if not answer.over:
            session.report(answer.round, 0.5, 0.5, 1, 1)
    assert line.heard()[1][1]["own"] is own
    session.bye()


def test_a_learner_that_gave_up_is_not_waited_for(tmp_path: Path) -> None:
    def gives_up(learner: FakeLearner, connection: Connection) -> None:
        learner.expect(connection, "open")
        connection.send(opened())
        connection.send({"type": "error", "code": "SW4015", "text": "evicted"})

    line = Line(tmp_path, gives_up)
    session = start(tmp_path, line)
    line.learners[0].join()
    with pytest.raises(SwarmError, match="SW4015: evicted"):
        sync(session)


def test_bye_reaches_a_learner_that_was_restarted_meanwhile(tmp_path: Path) -> None:
    line = Line(tmp_path, gone_at(("open", opened())), gone_at(("bye", None)))
    session = start(tmp_path, line)
    line.learners[0].join()
    line.next()
    session.bye()
    assert [message["type"] for message in line.heard()[1]] == ["bye"]


def test_bye_waits_until_the_learner_has_ended_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "test")

    def lingers(learner: FakeLearner, connection: Connection) -> None:
        gone_at(("open", opened()), ("bye", None))(learner, connection)
        connection.send({"type": "waiting", "text": "staying for sl-3"})

    line = Line(tmp_path, lingers)
    start(tmp_path, line).bye()
    assert "staying for sl-3" in caplog.messages


def test_nobody_to_say_good_bye_to(tmp_path: Path) -> None:
    line = Line(tmp_path, gone_at(("open", opened())))
    session = start(tmp_path, line)
    line.learners[0].join()
    session.bye()
