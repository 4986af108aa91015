"""What is fuzzed: a function of bytes, the exceptions that it may raise, inputs to begin with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

CPU_SECONDS = 20.0  # for one input; on a quiet machine the slowest takes a fiftieth of that
MAX_INPUT = 4096  # bytes of an input that is made up; `bombs.py` has larger ones


class Target(NamedTuple):
    """`run` gives bytes to the parsers that `what` names; only `allowed` may leave them."""

    name: str
    what: str
    run: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    seeds: Callable[[], Sequence[bytes]]

    def attempt(self, data: bytes) -> bool:
        """Whether the input was accepted. Anything but a documented exception goes through."""
        started = time.process_time()
        try:
            self.run(data)
        except self.allowed:
            accepted = False
        else:
            accepted = True
        spent = time.process_time() - started
        assert spent < CPU_SECONDS, f"{self.name} took {spent:.1f} s for {len(data)} bytes"
        return accepted
