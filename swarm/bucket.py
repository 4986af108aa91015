"""Token buckets: how much somebody may do, in the long run and at once."""

from __future__ import annotations


class Bucket:
    """Holds up to `burst` tokens, which come back at `rate` a second.

    Times are monotonic seconds of the caller's clock.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Take tokens if there are as many."""
        self._fill(now)
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True

    def spend(self, amount: float, now: float) -> float:
        """Take tokens, on credit if need be; returns the seconds until the debt is paid."""
        self._fill(now)
        self._tokens -= amount
        return max(0.0, -self._tokens / self._rate)

    def missing(self, amount: float, now: float) -> float:
        """Seconds until there are as many tokens; 0 when there are."""
        self._fill(now)
        return max(0.0, (amount - self._tokens) / self._rate)

    def full(self, now: float) -> bool:
        """Whether nothing is owed: such a bucket need not be kept."""
        self._fill(now)
        return self._tokens >= self._burst
