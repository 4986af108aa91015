"""A network for the interpreter: the real state machine behind a client without any connection.

Members other than the interpreter act through the commands of the state machine's own transcripts.
Time stands still until somebody waits; `at` lets things happen while they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swarm.api.models import Verdict, VerdictError
from swarm.ledger.state import Header
from swci.ports import Clock, Record
from tests.state import transcript
from tests.state.world import World

START = 1_790_000_000  # Unix seconds: 2026-09-21 13:33:20 UTC


class FakeClock(Clock):
    """Moves only when somebody waits, and lets what is due happen on the way."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def now_s(self) -> float:
        return START + self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def pause(self, seconds: float) -> None:
        self.advance(seconds, lambda: False)

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Let something happen so many seconds from now."""
        self.due.append((self.seconds + seconds, act))
        self.due.sort(key=lambda item: item[0])

    def advance(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Let time pass until the condition holds; False when it did not in so many seconds."""
        end = self.seconds + seconds
        while not until():
            if not self.due or self.due[0][0] > end:
                self.seconds = end
                return False
            self.seconds, act = self.due.pop(0)
            act()
        return True


class TimedWorld(World):
    """Blocks carry the fake clock's time."""

    clock: FakeClock

    def header(self) -> Header:
        before = super().header()
        return before._replace(time_ms=int(self.clock.now_s() * 1000))


class FakeNetwork:
    """All that a client can ask for."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.actors = transcript.Session()
        world = TimedWorld()
        world.clock = self.clock
        self.actors.world = world
        self.world = world
        self.world.add("swci-1")
        self.up = True
        self.silent: set[str] = set()
        self.trouble = ""
        self.clients: list[FakeClient] = []

    def connect(self, host: str, port: int) -> FakeClient:
        self.clients.append(FakeClient(self, f"{host}:{port}"))
        return self.clients[-1]

    def act(self, line: str) -> None:
        """Something that another member does, or that happens to the network.

        Several things at once are joined with " ; ".
        """
        for one in line.split(" ; "):
            self._act(one)

    def _act(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word in ("up", "down"):
            self.up = word == "up"
        elif word == "silent":
            self.silent.add(self.world.uid(rest))
        elif word == "trouble":
            self.trouble = rest
        elif word == "interrupt":
            raise KeyboardInterrupt
        else:
            said = self.actors.run(line)
            assert all(not one.startswith("SW") for one in said), said


class FakeWatch:
    """Records as they are at any moment."""

    def __init__(self, network: FakeNetwork, keys: Sequence[str]) -> None:
        self._network = network
        self._keys = keys
        self.closed = False

    @property
    def connected(self) -> bool:
        return not self.error

    @property
    def error(self) -> str:
        return self._network.trouble

    @property
    def height(self) -> int:
        return self._network.world.state.height

    @property
    def records(self) -> dict[str, Record | None]:
        found = {}
        for key in self._keys:
            table, _, name = key.partition("/")
            record = self._network.world.state.get(table, name)
            found[key] = None if record is None else _as_json(record)
        return found

    def wait(self, predicate: Callable[[FakeWatch], bool], timeout: float | None) -> bool:
        assert timeout is not None, "a wait without an end"
        return self._network.clock.advance(timeout, lambda: predicate(self))

    def close(self) -> None:
        self.closed = True


class FakeClient:
    """The methods of ApiClient that commands use."""

    def __init__(self, network: FakeNetwork, address: str) -> None:
        self.network = network
        self.address = address
        self.closed = False
        self.watches: list[FakeWatch] = []

    def wait_up(
        self,
        timeout: float | None = None,
        on_wait: Callable[[str], None] | None = None,
        every: float = 5.0,
    ) -> bool:
        clock = self.network.clock
        end = clock.monotonic() + (timeout or 0)
        while not self.network.up:
            if on_wait is not None:
                on_wait(f"{self.address}: nothing listens there")
            left = end - clock.monotonic()
            if left <= 0:
                return False
            clock.advance(min(every, left), lambda: self.network.up)
        return True

    def status(self) -> Record:
        return {"uid": self.network.world.uid("sn-1")}

    def version(self) -> Record:
        return {"version": "0.1.0", "protocol": 1}

    def presence(self) -> dict[str, float]:
        nodes = self.network.world.state.table("nodes")
        return {
            uid: 600.0 if uid in self.network.silent else 2.0
            for uid in nodes
            if uid != self.network.world.uid("sn-1")
        }

    def table(self, name: str, *, min_height: int = 0) -> dict[str, Record]:
        return {key: _as_json(r) for key, r in self.network.world.state.table(name).items()}

    def record(self, table: str, key: str, *, min_height: int = 0) -> Record | None:
        record = self.network.world.state.get(table, key)
        return None if record is None else _as_json(record)

    def submit(self, op: str, args: Mapping[str, Any]) -> Verdict:
        said = self.network.world.do("swci-1", op, **args)
        height = self.network.world.state.height
        verdict = Verdict(said.ok, said.code, said.text, _as_json(said.result), height)
        if not verdict.ok:
            raise VerdictError(op, verdict)
        return verdict

    def watch(self, keys: Sequence[str], *, uid: str = "") -> FakeWatch:
        self.watches.append(FakeWatch(self.network, keys))
        return self.watches[-1]

    def close(self) -> None:
        self.closed = True


def _as_json(value: Any) -> Any:
    """A record as it comes out of the API: byte strings in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value
