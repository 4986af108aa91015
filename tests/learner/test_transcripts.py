"""What programs hear and learners bring, from beginning to end: golden transcripts.

Each command is an act of a program (`sl-1 syncs 3`) or of the world (`40 s pass`); what follows is
all that comes of it. Everything but the programs is real or as in the simulation, without delays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.learner import messages as m
from tests import golden
from tests.learner.simulation import CONTRACT, Jobs, Node, Sim, Sl, Weights, rules

FILES = golden.files(Path(__file__).parent / "transcripts")


class Program:
    """Does what it is told, and writes down what it hears."""

    def __init__(self, node: Node, mode: str, min_peers: int) -> None:
        self.node, self.sim, self.mode = node, node.sim, mode
        self.rules = rules(min_peers)
        self.inbox = Jobs(node.sim, lambda: node.program is self)
        self.sl: Sl | None = None
        self.call: m.Synced | None = None
        self.round, self.seq = -1, 0
        node.program = self

    def connect(self) -> None:
        sl = self.node.sl
        assert sl is not None and sl.program is None
        self.sl = sl
        sl.program = self
        self.say(m.Opened(CONTRACT, self.rules, self.mode, self.round))

    def say(self, event: m.Event) -> None:
        assert self.sl is not None
        self.node.reading = False
        self.sl.hear(self, event)

    def hand_in(self, value: float, done: bool) -> None:
        self.seq += 1
        made = Weights(value, self.round, f"{self.node.name}-{self.seq}")
        self.sim.weights[made.root.hex()] = self.node.trained = made
        weight = 0 if done and self.mode == "inactive" else 10_000
        self.call = m.Synced(self.seq, weight, 1, done, self.round)
        if self.sl is None:
            self.connect()
        else:
            self.say(self.call)

    def lost_link(self) -> None:
        self.sl = None

    def hears(self, sl: Sl, message: dict[str, Any]) -> None:
        kind, name = message["type"], self.node.name
        if kind == "opened":
            self._hears_opened(message)
        elif kind == "merged":
            self._load(message["round"])
            text = f"  {name} gets round {message['round']} of {message['peers']}: {self._value()}"
            text += "" if message["counted"] else ", without its own weights"
            self.sim.say(text + ("; training is over" if message["over"] else ""))
            self._answered(message)
        else:
            self.call = None
            self.sim.say(f"  {name} hears {kind} {message.get('text', '')}".rstrip())

    def _hears_opened(self, message: dict[str, Any]) -> None:
        text = f"  {self.node.name} is in, round {message['round']} is open"
        if self.call is not None:
            self.sim.say(f"{text}; it repeats its call")
            self.say(self.call)
        elif message["hasModel"]:
            self._load(message["round"] - 1)
            self.sim.say(f"{text}; the model before is {self._value()}")
        else:
            self.sim.say(text)

    def _answered(self, message: dict[str, Any]) -> None:
        assert self.call is not None
        call, first = self.call, self.call.round < message["round"] and self.call.own
        if not call.done or message["over"]:
            self.call = None
            return
        own = call.own and self.mode != "active" and (message["counted"] or not first)
        self.call = m.Synced(call.seq, call.weight, 1, True, message["round"], own)

    def _load(self, round_: int) -> None:
        assert self.sim.weights[self.node.offered].base == round_
        self.round = round_

    def _value(self) -> str:
        return f"{self.sim.weights[self.node.offered].value:g}"


class Session:
    """Executes the commands of one transcript."""

    def __init__(self) -> None:
        self.sim = Sim()
        self.min_peers = 2

    def run(self, line: str) -> list[str]:
        self.sim.story.clear()
        for pattern, act in COMMANDS.items():
            match = re.fullmatch(pattern, line)
            if match:
                act(self, *match.groups())
                self.sim.run(self.sim.now)
                return list(self.sim.story)
        raise AssertionError(f"unknown command {line!r}")

    def _node(self, name: str) -> Node:
        return self.sim.nodes.get(name) or Node(self.sim, name)

    def peers(self, number: str) -> None:
        self.min_peers = int(number)

    def start(self, name: str) -> None:
        node = self._node(name)
        node.start_sl()
        if node.program is not None and node.program.call is not None:
            node.program.connect()

    def open(self, name: str, mode: str) -> None:
        node = self._node(name)
        node.start_sl()
        Program(node, mode or "snapshot", self.min_peers).connect()

    def sync(self, name: str, value: str) -> None:
        self._node(name).program.hand_in(float(value), False)

    def finish(self, name: str, value: str) -> None:
        self._node(name).program.hand_in(float(value), True)

    def report(self, names: str) -> None:
        for name in names.split(", "):
            program = self._node(name).program
            program.say(m.Reported(program.round, "0.5", "0.9", 1, 1))

    def bye(self, names: str) -> None:
        for name in names.split(", "):
            self._node(name).program.say(m.Bye(True, ""))
            self.sim.run(self.sim.now)
            node = self._node(name)
            text = "stays" if node.sl is not None else f"ends with status {node.status}"
            self.sim.say(f"  the learner of {name} {text}")

    def kill_learner(self, name: str) -> None:
        self._node(name).crash_sl()

    def kill_program(self, name: str) -> None:
        node = self._node(name)
        assert node.sl is not None
        node.program = None
        node.sl.feed(m.ProgramGone("the other side closed the link"))

    def lost(self, name: str) -> None:
        self.sim.lose(self._node(name))

    def down(self, seconds: str) -> None:
        self.sim.outage(float(seconds))

    def wait(self, seconds: str) -> None:
        self.sim.run(self.sim.now + float(seconds))

    def waiting(self) -> None:
        for name, node in sorted(self.sim.nodes.items()):
            text = "is not there" if node.sl is None else f"says: {node.sl.core.waiting}"
            self.sim.say(f"  {name} {text}")
        self.sim.say(f"  the contract says: {self.sim.record['waiting'] or 'nothing'}")


COMMANDS: dict[str, Callable[..., None]] = {
    r"minPeers (\d+)": Session.peers,
    r"(sl-\d) opens ?(\w*)": Session.open,
    r"(sl-\d) syncs (\S+)": Session.sync,
    r"(sl-\d) finishes (\S+)": Session.finish,
    r"((?:sl-\d(?:, )?)+) reports?": Session.report,
    r"((?:sl-\d(?:, )?)+) says? bye": Session.bye,
    r"the learner of (sl-\d) is killed": Session.kill_learner,
    r"the learner of (sl-\d) starts": Session.start,
    r"the program of (sl-\d) is killed": Session.kill_program,
    r"(sl-\d) is reported lost": Session.lost,
    r"no network node answers for (\d+) s": Session.down,
    r"(\d+) s pass": Session.wait,
    r"what is waited for\?": Session.waiting,
}


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 9


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    golden.check(path, Session())
