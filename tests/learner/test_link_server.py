"""The learner's end of the link: one program after the other."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.learner.link_server import BUSY, MOST_WAITING, LinkServer, Rewritten, Shared
from swarm.learner.messages import Broken, Bye, Event, Opened, ProgramGone, Reported, Synced
from swarmlearning import link

BOUND = 30.0
OPEN = {
    "type": "open",
    "protocol": link.PROTOCOL,
    "library": "1",
    "contract": "c",
    "minPeers": 2,
    "syncFrequency": 5,
    "adaptive": False,
    "mergeMethod": "mean",
    "mergeArgs": {},
    "mode": "snapshot",
    "weightage": 1,
    "totalEpochs": 1,
    "round": 4,
}
SYNC = {"type": "sync", "seq": 1, "weightage": 2, "samples": 3, "epochs": 1, "round": 4}
FINISH = {"type": "finish", "seq": 2, "weightage": 2, "epochs": 1, "round": 5, "own": False}


class Door:
    """A server, and what it has posted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: queue.Queue[Event | Shared | Rewritten] = queue.Queue()
        self.memory = os.memfd_create("weights")
        self.server = LinkServer(folder, self.events.put)
        self.server.start()

    def next(self) -> Event | Shared | Rewritten:
        return self.events.get(timeout=BOUND)

    def program(self, *messages: dict[str, Any]) -> link.Connection:
        connection = link.connect(self.folder)
        for message in messages:
            memory = self.memory if message["type"] in ("sync", "finish") else -1
            connection.send(message, memory)
        return connection

    def shared(self) -> None:
        """The next event is the memory."""
        event = self.next()
        assert isinstance(event, Shared)
        assert os.path.sameopenfile(event.descriptor, self.memory)
        assert not os.get_inheritable(event.descriptor)
        os.close(event.descriptor)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path)
    yield made
    made.server.close()
    os.close(made.memory)


def test_a_conversation_becomes_events(door: Door) -> None:
    report = {"type": "report", "round": 5, "loss": "1", "metric": "", "epochs": 1}
    bye = {"type": "bye", "ok": True, "text": ""}
    again = {"type": "again"}
    with door.program(OPEN, SYNC, again, FINISH, {**report, "totalEpochs": 2}, bye) as program:
        opened = door.next()
        assert isinstance(opened, Opened)
        assert (opened.contract, opened.round, opened.mode) == ("c", 4, "snapshot")
        assert opened.rules["min_peers"] == 2
        door.shared()
        assert door.next() == Synced(1, 20_000, 3, False, 4)
        assert isinstance(door.next(), Rewritten)
        door.shared()
        assert door.next() == Synced(2, 20_000, 0, True, 5, False)
        assert door.next() == Reported(5, "1", "", 1, 2)
        assert door.next() == Bye(True, "")
        # The link stays until the learner has ended.
        with pytest.raises(link.LinkTimeout):
            program.receive(0)
        door.server.close()
        with pytest.raises(link.LinkClosed):
            program.receive(BOUND)


def test_weights_without_their_memory_are_refused(door: Door) -> None:
    for message in (SYNC, FINISH):
        with link.connect(door.folder) as program:
            program.send(OPEN)
            program.send(message)
            answer = program.receive(BOUND)
            assert answer["code"] == "SW6008" and "without the memory" in answer["text"]
            assert isinstance(door.next(), Opened)
            assert isinstance(door.next(), ProgramGone)
        door.server.release()


def test_programs_are_served_one_after_the_other(door: Door) -> None:
    first = door.program(OPEN)
    assert isinstance(door.next(), Opened)
    with door.program({**OPEN, "contract": "d"}) as second:
        assert second.receive(BOUND) == {"type": "waiting", "text": BUSY}
        door.server.tell({"type": "waiting", "text": "for the first"})
        assert first.receive(BOUND)["text"] == "for the first"
        first.close()
        assert isinstance(door.next(), ProgramGone)
        # What the driver still had to say to the first is not heard by the second.
        door.server.tell({"type": "over", "seq": 1, "hasModel": False})
        assert door.events.empty()
        door.server.release()
        opened = door.next()
        assert isinstance(opened, Opened)
        assert opened.contract == "d"
        door.server.tell({"type": "waiting", "text": "for the second"})
        assert second.receive(BOUND)["text"] == "for the second"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([SYNC], "'sync' at the wrong time"),
        ([OPEN, OPEN], "'open' at the wrong time"),
        ([{"type": "again"}], "'again' at the wrong time"),
        ([OPEN, FINISH, SYNC], "'sync' at the wrong time"),
        ([{**OPEN, "round": -2}], "-2 as 'round'"),
        ([OPEN, {**SYNC, "weightage": -1}], "-1 as 'weightage'"),
        ([OPEN, {**SYNC, "samples": 10**4000}], "with 10000000000000000000 as 'samples'"),
        ([OPEN, {**SYNC, "round": True}], "'round' of type int"),
        ([{"type": "nonsense"}], "unexpected message"),
    ],
)
def test_a_program_that_breaks_the_rules_is_told_and_dropped(
    door: Door, messages: list[dict[str, Any]], said: str
) -> None:
    with door.program(*messages) as program:
        answer = program.receive(BOUND)
        assert (answer["type"], answer["code"]) == ("error", "SW6008")
        assert said in answer["text"]
    while not isinstance(event := door.next(), ProgramGone):
        pass
    assert said in event.why
    door.server.release()
    with door.program(OPEN):
        assert isinstance(door.next(), Opened)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"protocol": 1}, "SW6005"),
        ({"protocol": 4, "mergeArgs": None, "round": "no number"}, "SW6005"),
        ({"mergeMethod": "vote"}, "SW6006"),
    ],
)
def test_a_program_that_asks_for_what_is_not_there(
    door: Door, change: dict[str, Any], code: str
) -> None:
    with door.program({**OPEN, **change}):
        event = door.next()
        assert isinstance(event, Broken)
        assert event.code == code


def test_bye_comes_alone_when_the_learner_was_restarted(door: Door) -> None:
    with door.program({"type": "bye", "ok": True, "text": ""}):
        assert door.next() == Bye(True, "")


def test_too_many_programs_are_turned_away(door: Door) -> None:
    crowd = [door.program(OPEN)]
    assert isinstance(door.next(), Opened)
    for _ in range(MOST_WAITING):
        crowd.append(door.program())
        assert crowd[-1].receive(BOUND)["text"] == BUSY
    with door.program() as one_too_many, pytest.raises(link.LinkClosed):
        while one_too_many.receive(BOUND):
            pass
    for program in crowd:
        program.close()
