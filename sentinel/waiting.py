"""Log lines for waits: once when a reason has lasted, once when it changes or ends."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping

log = logging.getLogger("swarm.node")

_SECONDS = re.compile(r"\d+(\.\d+)? s\b")  # "not seen for 12 s" is the same reason a second later
LASTING = 3.0  # seconds; a commit or a check-in that takes less is nothing to tell


class WaitLog:
    """Follows named reasons ("ledger", "contracts/x", …)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[str, tuple[str, float]] = {}
        self._told: dict[str, str] = {}

    def look(self, reasons: Mapping[str, str]) -> None:
        """Compare with the last look; "" means that nothing is waited for."""
        now = self._clock()
        for name, reason in reasons.items():
            gist = _SECONDS.sub("", reason)
            before, since = self._since.get(name, ("", now))
            if gist != before:
                since = now
            self._since[name] = (gist, since)
            told = self._told.get(name, "")
            if gist and gist != told and now - since >= LASTING:
                log.info("%s: %s", name, reason)
                self._told[name] = gist
            elif not reason and told:
                log.info("%s: goes on", name)
                self._told[name] = ""
        for gone in self._since.keys() - reasons.keys():
            del self._since[gone]
            self._told.pop(gone, None)
