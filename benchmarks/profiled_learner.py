"""A learner that writes down what it spends on its rounds, for `profile_round`.

It is the learner itself with some of its functions wrapped: CPU seconds of the thread that runs
them, and the moments at which a round gets on. After each round all rounds go to profile.json in
the directory of its link.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm.learner import __main__ as program
from swarm.learner import reading
from swarm.learner.learner import Learner
from swarm.learner.messages import ExchangeDone, Synced, Tell
from swarm.learner.vectors import Vectors
from swarm.merge import attempt, receiving
from swarm.merge.mean import WeightedMean
from swarm.merge.seal import Seal

# What is wrapped: owner, name, and under which heading its time goes.
WORK: tuple[tuple[Any, str, str], ...] = (
    (reading, "_read", "read"),
    (Seal, "send", "send"),
    (Seal, "receive_into", "receive"),
    (receiving, "leaf", "check"),
    (attempt, "leaves", "digest"),
    (WeightedMean, "reduce", "reduce"),
    (Vectors, "write", "write"),
)


class Profile:
    """What was spent since the last round ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._rounds: list[dict[str, float]] = []
        self._cpu = 0.0
        self._spent: dict[str, float] = {}

    def timed(self, heading: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            try:
                return work(*args, **kwargs)
            finally:
                spent = time.thread_time() - start
                with self._lock:
                    self._spent[heading] = self._spent.get(heading, 0.0) + spent

        return wrapped

    def mark(self, name: str) -> None:
        """A moment of this round; its first occurrence counts."""
        with self._lock:
            self._spent.setdefault(f"at {name}", time.monotonic())

    def close(self) -> None:
        """The round is over."""
        with self._lock:
            cpu = time.process_time()
            self._rounds.append({**self._spent, "total": cpu - self._cpu})
            self._spent, self._cpu = {}, cpu
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self._rounds))
        fresh.replace(self._path)  # whoever reads it meanwhile finds it whole


def install(profile: Profile) -> None:
    """Wrap what is measured."""
    for owner, name, heading in WORK:
        setattr(owner, name, profile.timed(heading, getattr(owner, name)))
    feed, start, tell, prepare = Learner._feed, Learner._start, Learner._tell, Learner._prepare

    def fed(self: Learner, event: Any) -> None:
        if isinstance(event, Synced):
            profile.mark("asked")
        elif isinstance(event, ExchangeDone):
            profile.mark("merged")
        feed(self, event)

    def started(self: Learner, effect: Any) -> None:
        profile.mark("started")
        start(self, effect)

    def prepared(self: Learner, effect: Any) -> None:
        prepare(self, effect)
        profile.mark("read")

    def told(self: Learner, effect: Tell) -> None:
        tell(self, effect)
        if effect.message["type"] == "merged":
            profile.mark("told")
            profile.close()

    for name, function in (
        ("_feed", fed), ("_start", started), ("_prepare", prepared), ("_tell", told),
    ):  # fmt: skip
        setattr(Learner, name, function)


if __name__ == "__main__":
    install(Profile(Path(os.environ["SWARM_LINK"]) / "profile.json"))
    sys.exit(program.main())
