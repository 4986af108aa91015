"""The port through which pairs are run. DOCKER and PROCESS pass one conformance suite.

Rules that every runtime keeps:

- All calls may block, and may be made from several threads, but for one program from one at a time.
- `start` is idempotent: a program that runs is left alone, one that was created is started, one
  that ended stays as it is (its exit code is still to be read).
- What was started outlives the operator. `adopt` finds it again by the operator's uid.
- `stop` ends the whole process tree; `remove` leaves nothing, whatever state the program is in,
  but the end of its log, as far as logs are kept.
- Problems are LocalErrors with SW7xxx codes; texts of engines are bounded. AWAY is the code of an
  engine that does not answer at present, whatever was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from swop.content import ContentRequest
from swop.plan import Program
from swop.pulling import PullRequest
from swop.work import Work

LOG_LIMIT = 2000  # characters of a log tail; the ledger's limit for a peer's status text
STOP_GRACE = 8.0  # seconds from SIGTERM to SIGKILL
AWAY = "SW7042"
KILLED = 137  # exit code of a killed program, as engines report it: 128 + SIGKILL


class RunState(str, Enum):
    """Where one program is in its life."""

    MISSING = "MISSING"
    CREATED = "CREATED"
    RUNNING = "RUNNING"
    EXITED = "EXITED"


@dataclass(frozen=True)
class RunStatus:
    """State of a program; `code` is set once it exited, `note` adds what the engine knows."""

    state: RunState
    code: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Found:
    """A program of this operator that exists on the host."""

    name: str
    role: str
    operation: str
    index: int
    link: str


@dataclass(frozen=True)
class BuildRequest:
    """A MAKE_USER_CONTAINER task: the steps, their context volume, and the result's name."""

    outcome: str
    steps: tuple[str, ...]
    context_volume: str | None
    proxies: Mapping[str, str]


class Output(Protocol):
    """What a program says, as it comes; ends with the program, or when another thread closes it."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Runtime(Protocol):
    """Runs programs on this host."""

    def check(self) -> str:
        """Say in one line what runs the programs. Raises LocalError when it cannot."""

    def build(self, request: BuildRequest, work: Work) -> str:
        """Make what the outcome names; returns a sentence on the result.

        LocalError SW7010, SW7014, SW7020.
        """

    def pull(self, request: PullRequest, work: Work) -> str:
        """Get an image, and make it what the outcome names; returns a sentence on the result.

        LocalError SW7014, SW7020, SW7029, SW7030, SW7031.
        """

    def fill(self, request: ContentRequest, work: Work) -> str:
        """Make and fill the volumes that are not there yet; returns a sentence on the result.

        A volume appears whole or not at all. LocalError SW7020 to SW7028.
        """

    def has_image(self, name: str) -> bool:
        """Is the outcome of a build task present on this host?"""

    def start(self, program: Program) -> None:
        """Create what is missing and start it. LocalError SW7007, SW7008, SW7009, SW7011."""

    def status(self, name: str) -> RunStatus:
        """State of one program."""

    def log_tail(self, name: str) -> str:
        """Last lines of its output, at most LOG_LIMIT characters; "" when there is none."""

    def follow(self, name: str, lines: int | None = None) -> Output:
        """Its output, and what is to come of it; `lines`: only so many of the last so far.

        May be asked for at once after `start`. Empty for an unknown name. LocalError SW7006.
        """

    def stop(self, names: Sequence[str], grace: float = STOP_GRACE) -> None:
        """End these programs, all at once; returns when they ended. Unknown names are fine."""

    def remove(self, names: Sequence[str]) -> None:
        """Remove these ended programs and their links. Unknown names are fine."""

    def adopt(self) -> list[Found]:
        """What this operator started before and what still exists, running or not."""

    def close(self) -> None:
        """Give back handles. Programs go on."""


def bounded_tail(text: str, limit: int = LOG_LIMIT) -> str:
    """The end of a text, at most `limit` characters, cut at a line where one is in reach."""
    text = text.strip()
    if len(text) <= limit:
        return text
    tail = text[-(limit - 1) :]
    newline = tail.find("\n")
    if 0 <= newline < limit // 2:
        tail = tail[newline + 1 :]
    return "…" + tail
