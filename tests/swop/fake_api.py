"""The network as an operator sees it, without one: operations go to the real state machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swarm.api.models import Verdict, VerdictError
from swarm.ledger.state import DEFAULT_RUNNER
from tests.state.world import World


class FakeWatch:
    """Like `swarm.api.watch.Watch`, fed by `FakeNetwork`."""

    connected = True
    chain = "c0"

    def __init__(self, network: FakeNetwork, keys: Sequence[str]) -> None:
        self.network = network
        self.keys = tuple(keys)
        self.callbacks: list[Callable[[Any], None]] = []

    @property
    def records(self) -> dict[str, Any]:
        return {key: self.network.record(*key.split("/", 1)) for key in self.keys}

    def on_change(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)


class FakeNetwork:
    """One ledger; `as_member` gives the API as that member has it."""

    def __init__(self, *operators: str) -> None:
        self.world = World()
        for name in (*operators, "swci-1"):
            self.world.add(name)
        self.changed = threading.Condition()
        self.watches: list[FakeWatch] = []
        self.log: list[tuple[str, str, dict[str, Any]]] = []

    def as_member(self, name: str) -> FakeApi:
        return FakeApi(self, name)

    def do(self, member: str, op: str, args: Mapping[str, Any]) -> Verdict:
        with self.changed:
            verdict = self.world.do(member, op, **args)
            self.log.append((member, op, dict(args)))
            self.changed.notify_all()
        for watch in list(self.watches):
            for callback in watch.callbacks:
                callback(watch)
        answer = Verdict(verdict.ok, verdict.code, verdict.text, verdict.result)
        if not answer.ok:
            raise VerdictError(op, answer)
        return answer

    def record(self, table: str, key: str) -> Any:
        with self.changed:
            return self.world.state.get(table, key)

    def runner(self) -> Any:
        return self.record("taskrunners", DEFAULT_RUNNER)

    def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Wait until a condition on the ledger holds; it is looked at after each transaction."""
        with self.changed:
            met = self.changed.wait_for(condition, seconds)
        assert met, f"never: {self.runner()}"
        with self.changed:
            return condition()

    # What SWCI does

    def task(
        self,
        name: str,
        kind: str,
        body: Sequence[str],
        prereq: str = "ROOTTASK",
        outcome: str = "",
    ) -> None:
        outcome = outcome or f"{name}-outcome"
        head = {"name": name, "type": kind, "author": "a", "prereq": prereq, "outcome": outcome}
        self.do("swci-1", "task.create", head)
        self.do("swci-1", "task.append", {"task": name, "index": 1, "lines": list(body)})
        self.do("swci-1", "task.finalize", {"task": name})

    def assign(self, task: str, peers: int = 0, target: str = "*") -> None:
        args = {"runner": DEFAULT_RUNNER, "task": task, "peers": peers, "target": target}
        self.do("swci-1", "runner.assign", args)

    def reset(self) -> None:
        self.do("swci-1", "runner.reset", {"runner": DEFAULT_RUNNER})


class FakeApi:
    """What `swop.daemon.Api` asks for."""

    def __init__(self, network: FakeNetwork, name: str) -> None:
        self.network = network
        self.name = name
        self.down_for = 0  # how many looks at is_up fail first

    def is_up(self) -> bool:
        self.down_for -= 1
        return self.down_for < 0

    def status(self) -> dict[str, Any]:
        return {"uid": self.network.world.uid("sn-1")}

    def record(self, table: str, key: str, *, min_height: int = 0) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.network.record(table, key)
        return found

    def submit(self, op: str, args: Mapping[str, Any], *, patience: float = 60.0) -> Verdict:
        return self.network.do(self.name, op, args)

    def watch(self, keys: Sequence[str], *, uid: str = "", start_over: bool = False) -> FakeWatch:
        watch = FakeWatch(self.network, keys)
        self.network.watches.append(watch)
        return watch

    def close(self) -> None:
        self.network.watches = [w for w in self.network.watches if w.network is not self.network]
