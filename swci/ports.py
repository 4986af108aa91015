"""What the interpreter needs from outside: an API client and a clock. Tests bring their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from swarm.api.models import Verdict

Record = dict[str, Any]


class Watch(Protocol):
    """Latest values of some records, and a way to wait for a change."""

    connected: bool
    error: str
    height: int
    records: dict[str, Record | None]

    def wait(self, predicate: Callable[[Any], bool], timeout: float | None) -> bool:
        """Wait until the predicate holds; False after `timeout` seconds."""

    def close(self) -> None:
        """Stop following."""


class Client(Protocol):
    """The part of `swarm.api.client.ApiClient` that commands use."""

    def wait_up(
        self,
        timeout: float | None = None,
        on_wait: Callable[[str], None] | None = None,
        every: float = 5.0,
    ) -> bool: ...
    def status(self) -> Record: ...
    def version(self) -> Record: ...
    def presence(self) -> dict[str, float]: ...
    def table(self, name: str, *, min_height: int = 0) -> dict[str, Record]: ...
    def record(self, table: str, key: str, *, min_height: int = 0) -> Record | None: ...
    def submit(self, op: str, args: Mapping[str, Any]) -> Verdict: ...
    def watch(self, keys: Sequence[str], *, uid: str = "") -> Watch: ...
    def close(self) -> None: ...


Connect = Callable[[str, int], Client]


SLICE = 0.5  # seconds


class Clock:
    """The real one: `now_s` in Unix seconds, `monotonic` in seconds, `pause` sleeps."""

    def now_s(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        # In slices: a signal that comes just before the system call is only seen after it.
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, SLICE))
