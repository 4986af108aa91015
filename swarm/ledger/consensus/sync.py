"""Who is ahead, whom to fetch blocks from, and how much to give to whom.

Bookkeeping for the core; no I/O, no time of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from swarm.ledger.consensus.messages import Answer

MAX_SOURCES = 256
SERVE_RATE = 20.0  # batches or answers a second for one neighbour
SERVE_BURST = 20.0
FETCH_PATIENCE = 1.0  # seconds without a block before another neighbour is asked


@dataclass
class _Bucket:
    tokens: float
    at: float


@dataclass
class Sync:
    """Heights that neighbours claim. A false claim costs one fruitless fetch a second."""

    heights: dict[str, int] = field(default_factory=dict)
    fetching: str = ""
    fetched_at: float = 0.0
    _served: dict[str, _Bucket] = field(default_factory=dict)

    def hear(self, source: str, answer: Answer) -> None:
        """Remember where a neighbour stands."""
        if source in self.heights or len(self.heights) < MAX_SOURCES:
            self.heights[source] = answer.height

    def forget(self, source: str) -> None:
        """It gave nothing, or is gone."""
        self.heights.pop(source, None)
        if self.fetching == source:
            self.fetching = ""

    def best(self) -> int:
        """The greatest height that anybody claims; -1 when nobody answered."""
        return max(self.heights.values(), default=-1)

    def next_source(self, height: int, now: float) -> str | None:
        """Whom to fetch the blocks after `height` from, if anybody should be asked now."""
        if self.fetching and now - self.fetched_at < FETCH_PATIENCE:
            return None
        if self.fetching:
            self.forget(self.fetching)  # it had its time; it may answer again later
        ahead = [uid for uid, claimed in self.heights.items() if claimed > height]
        if not ahead:
            return None
        # In turn by height, so that a joiner does not ask the same one for everything.
        self.fetching = sorted(ahead)[height % len(ahead)]
        self.fetched_at = now
        return self.fetching

    def received(self, source: str, now: float, more: bool) -> None:
        """Blocks arrived; with `more` the same source may be asked again at once."""
        if self.fetching == source:
            self.fetching = ""
            self.fetched_at = now
        if not more:
            self.heights.pop(source, None)

    def allow(self, source: str, now: float) -> bool:
        """Whether `source` may be served now: a bounded rate for each neighbour."""
        bucket = self._served.get(source)
        if bucket is None:
            if len(self._served) >= MAX_SOURCES:
                self._served.clear()
            bucket = self._served[source] = _Bucket(SERVE_BURST, now)
        bucket.tokens = min(SERVE_BURST, bucket.tokens + (now - bucket.at) * SERVE_RATE)
        bucket.at = now
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True
