"""Whom the API turned away: one log line each, however often they come back."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable

log = logging.getLogger("swarm.api")

QUIET = 60.0  # seconds in which the same refusal is counted and not logged again
MOST = 1024  # refusals remembered; beyond, the oldest is forgotten


class Refusals:
    """Counts refusals by kind, and logs each (who, kind) at most once a minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def note(self, who: str, kind: str, why: str) -> None:
        """Record that `who` (an address, or a certificate's name) was refused.

        `kind` is one word for the counter, `why` the sentence for the log.
        """
        self.counts[kind] += 1
        key, now = (who, kind), self._clock()
        since, silent = self._seen.pop(key, (-QUIET, 0))
        if now - since < QUIET:
            self._seen[key] = (since, silent + 1)
            return
        more = f" ({silent} more of these in the meantime)" if silent else ""
        log.warning("refused %s: %s%s", who, why, more)
        self._seen[key] = (now, 0)
        while len(self._seen) > MOST:
            self._seen.popitem(last=False)
