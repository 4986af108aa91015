"""Trainings in which programs, learners and network nodes come and go at random, from seeds.

`python -m tests.learner.test_simulation --seeds 10000 --from 0` runs more of them.
"""

from __future__ import annotations

import argparse
import random
from functools import partial
from typing import Any

import pytest

from swarm.learner import messages as m
from swarm.learner.core import HANDLERS, PHASES, Core
from tests.learner.simulation import CONTRACT, Jobs, Node, Sim, Sl, Weights, rules

SEEDS = 80
TROUBLE = 60.0  # seconds in which things go wrong
BOUND = 1500.0  # seconds in which all must have ended
MODES = ("snapshot", "snapshot", "inactive", "active")


class Program:
    """What `swarmlearning.session` and a callback do, with nothing to train."""

    def __init__(self, node: Node, rounds: int, mode: str, min_peers: int) -> None:
        self.node, self.sim = node, node.sim
        self.todo, self.mode = rounds, mode
        self.opening = m.Opened(CONTRACT, rules(min_peers), mode)
        self.alive = True
        self.done = False
        self.late = self.was_opened = False
        self.born = self.sim.now
        self.sl: Sl | None = None
        self.inbox = Jobs(self.sim, lambda: self.alive)
        self.call: m.Synced | None = None
        self.report: m.Reported | None = None
        self.round = self.offered = -1
        self.seq = 0
        self.answers = 0  # to the present call
        self.model: Weights | None = None
        node.program = self
        self.connect()

    # ------------------------------------------------------------------- link

    def connect(self) -> None:
        sl = self.node.sl
        if not self.alive or self.done or self.sl is not None:
            return
        if sl is None or sl.program is not None:
            self.sim.after(0.2, self.connect)
            return
        self.sl, sl.program = sl, self
        self.node.reading = False
        sl.hear(self, m.Opened(self.opening.contract, self.opening.rules, self.mode, self.round))

    def say(self, event: m.Event) -> None:
        self.node.reading = False
        if self.sl is not None:
            self.sl.hear(self, event)

    def lost_link(self) -> None:
        if self.alive and self.sl is not None and not self.sl.alive:
            self.sl = None
            if self.call is not None or not self.was_opened:
                self.connect()

    def crash(self) -> None:
        self.alive, self.node.program = False, None
        if self.sl is not None:
            sl = self.sl
            sl._link.add(lambda: sl.feed(m.ProgramGone("killed")) if sl.program is self else None)

    # ---------------------------------------------------------------- session

    def hears(self, sl: Sl, message: dict[str, Any]) -> None:
        if sl is not self.sl:
            return
        kind = message["type"]
        if kind == "error" and message["code"] == "SW4050":
            self.done = self.late = True  # training was over before this node enrolled
            return
        assert kind in ("opened", "merged", "over"), message
        if kind == "opened":
            self.opened(message)
        else:
            assert self.call is not None
            assert message["seq"] == self.call.seq
            self.answered(message)

    def opened(self, message: dict[str, Any]) -> None:
        if self.report is not None:
            self.say(self.report)
            self.report = None
        if self.call is not None:
            self.say(self.call)
            return
        self.was_opened = True
        if message["hasModel"]:
            self.load(message["round"] - 1)
        self.train()

    def train(self) -> None:
        self.sim.after(self.sim.rng.random() * 3, self.hand_in)

    def hand_in(self) -> None:
        if not self.alive:
            return
        done = self.todo <= 0
        self.todo -= 1
        self.seq += 1
        self.answers = 0
        value = self.sim.rng.randrange(100)
        mine = Weights(value, self.round, f"{self.node.name}-{self.born:.3f}-{self.seq}")
        self.sim.weights[mine.root.hex()] = self.node.trained = mine
        weight = 0 if done and self.mode == "inactive" else 10_000
        self.call = m.Synced(self.seq, weight, 1, done, self.round)
        if self.sl is not None:
            self.say(self.call)
        else:
            self.connect()

    def load(self, round_: int) -> None:
        model = self.sim.weights[self.node.offered]
        assert model.base == round_, f"{model} instead of round {round_}"
        decided = {past["round"]: past["digest"] for past in self.sim.record["history"]}
        assert decided[round_] == self.node.offered, "only decided models are given out"
        assert round_ > self.round or (self.call is not None and self.call.done)
        self.round, self.model = round_, model

    def answered(self, message: dict[str, Any]) -> None:
        assert self.call is not None
        self.answers += 1
        over = message["type"] == "over" or message["over"]
        if message["type"] == "merged":
            self.load(message["round"])
            report = m.Reported(message["round"], "0.5", "0.5", 1, 1)
            self.sim.soon(lambda: self.tell(report))
        if over:
            self.call = None
            self.sim.soon(self.bye)
        elif not self.call.done:
            self.call = None
            self.train()
        else:
            own = self.call.own
            if self.answers == 1:
                own = message["counted"] and self.mode != "active"
            call = self.call
            self.call = m.Synced(call.seq, call.weight, 1, True, message["round"], own)

    def tell(self, report: m.Reported) -> None:
        if not self.alive:
            return
        if self.sl is None:
            self.report = report
        self.say(report)

    def bye(self) -> None:
        if not self.alive:
            return
        self.done = True
        if self.sl is None:
            sl = self.node.sl
            if sl is None or sl.program is not None:
                return
            self.sl, sl.program = sl, self
        self.say(m.Bye(True, ""))


class Swarm:
    """A training with trouble."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        rng = self.rng
        self.sim = Sim(seed, delay=rng.choice([0.01, 0.1, 0.5]), grace=rng.choice([5.0, 30.0]))
        count = rng.randint(2, 5)
        self.min_peers = rng.randint(1, count)
        names = [f"sl-{number}" for number in range(count)]
        self.modes = [rng.choice(MODES) for _ in names]
        if "inactive" in self.modes:
            self.modes[0] = "snapshot"
        for name, mode in zip(names, self.modes, strict=True):
            node = Node(self.sim, name)
            self.sim.after(rng.random() * 5, node.start_sl)
            self.sim.after(rng.random() * 5, partial(self.start, node, mode))
        self.calm = rng.random() * TROUBLE
        self.hurt: set[str] = set()
        for _ in range(rng.randint(0, 10)):
            self.sim.after(rng.random() * self.calm, self.trouble)

    def start(self, node: Node, mode: str) -> None:
        if node.program is None:
            Program(node, self.rng.randint(0, 6), mode, self.min_peers)

    def trouble(self) -> None:
        rng = self.rng
        node = rng.choice(list(self.sim.nodes.values()))
        kind = rng.choice(["learner", "program", "both", "network", "presence"])
        if kind == "network":
            self.sim.outage(rng.random() * 10)
            return
        if kind == "presence":
            self.sim.lose(node)
            return
        program = node.program
        if program is not None and program.done:
            return
        self.hurt.add(node.name)
        self.sim.say(f"{self.sim.now:.2f} crash of {kind} at {node.name}")
        if kind in ("program", "both") and program is not None:
            program.crash()
            mode = self.modes[int(node.name[3:])]
            self.sim.after(rng.random() * 15, lambda: self.start(node, mode))
        if kind in ("learner", "both"):
            node.crash_sl()
            self.sim.after(rng.random() * 15, node.start_sl)

    def ended(self) -> bool:
        if self.sim.now < self.calm + 20:
            return False
        programs = [node.program for node in self.sim.nodes.values()]
        return all(program is not None and program.done for program in programs)

    def run(self) -> None:
        ended = self.sim.run(BOUND, self.ended)
        assert ended, {
            name: (node.sl and (node.sl.core.phase, node.sl.core.waiting))
            for name, node in self.sim.nodes.items()
        }
        self.sim.run(self.sim.now + 60)
        last = self.sim.record["last"]
        for node in self.sim.nodes.values():
            model = node.program.model
            if last is not None and node.name not in self.hurt and not node.program.late:
                assert model is not None, node.name
                assert model.root.hex() == last["digest"], f"{node.name} ends with {model}"
            lasts = node.name in self.hurt or node.program.late
            assert node.sl is None or lasts, "learners end with their programs"


def play(seed: int) -> None:
    swarm = Swarm(seed)
    try:
        swarm.run()
    except BaseException:
        print("\n".join(swarm.sim.story[-60:]))
        print(f"seed {seed}, {swarm.min_peers} minPeers, {swarm.modes}, time {swarm.sim.now:.2f}")
        raise


@pytest.mark.parametrize("part", range(10))
def test_random_trainings(part: int) -> None:
    for seed in range(part * SEEDS // 10, (part + 1) * SEEDS // 10):
        play(seed)


def taken_for_new(core: Core, event: m.Synced) -> None:
    """Planted bug: weights are taken for what was made from the last model."""
    Core.on_synced(core, event)
    core.given = max(core.given, core.newest if core.record else -1)


def not_released(core: Core, event: m.ProgramGone) -> None:
    """Planted bug: the next program is not listened to."""
    Core.on_program_gone(core, event)
    core.out = [effect for effect in core.out if not isinstance(effect, m.Release)]


@pytest.mark.parametrize(
    ("event", "handler"), [(m.Synced, taken_for_new), (m.ProgramGone, not_released)]
)
def test_planted_bugs_are_found(
    event: type, handler: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(HANDLERS, event, handler)
    with pytest.raises(AssertionError):
        for seed in range(20):
            play(seed)


@pytest.mark.parametrize("missing", ["returning", "delivering"])
def test_missing_phases_are_found(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = tuple(phase for phase in PHASES if phase.name != missing)
    monkeypatch.setattr("swarm.learner.core.PHASES", rest)
    with pytest.raises(AssertionError):
        for seed in range(20):
            play(seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    asked = parser.parse_args()
    for number in range(asked.first, asked.first + asked.seeds):
        play(number)
