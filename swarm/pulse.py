"""A sign of life that a node's main loop gives to whoever watches it on the same host.

The loop touches the file that SWARM_PULSE names, now and then; the health check of the image
(`swarm.health`) looks at the file's age. Without the variable nothing happens.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

EVERY = 5.0  # seconds between two beats
STALE = 45.0  # seconds without one, after which a loop counts as stuck

log = logging.getLogger("swarm")


class Pulse:
    """Call `beat` from the loop, at least every few seconds."""

    def __init__(
        self, env: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = Path(env["SWARM_PULSE"]) if env.get("SWARM_PULSE") else None
        self._clock = clock
        self._last: float | None = None

    def beat(self) -> None:
        """The loop goes round."""
        if self._path is None:
            return
        now = self._clock()
        if self._last is not None and now - self._last < EVERY:
            return
        self._last = now
        try:
            self._path.touch(mode=0o600)
        except OSError as fault:
            log.warning("no sign of life for the health check: %s (%s)", self._path, fault.strerror)
            self._path = None
