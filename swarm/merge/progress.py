"""Whom to blame when an exchange does not move: what one member has seen of another.

Pure accounting; the clock is given in. The rules:

- Bytes are life. No limit is set to how long a transfer takes, only to how long *nothing* comes
  from a member that owes something. The limit follows what was seen: a link that has paused for
  long and went on each time is given longer pauses.
- Bytes that add up to nothing are not. What is owed comes in parts, each of which can be checked;
  the limit for one follows the time that parts have taken on this link so far, up to what `SLOWEST`
  would need; before the first has come it is that. Making a new connection is no progress.
- Whoever owes bytes because it waits for a third says so once a second (WAIT), names the third, and
  tells how many bytes it has from it. So it is not blamed itself. Counts that do not grow, or less
  than `SLOWEST` would, are no excuse for longer than a part may take: an honest member would have
  accused the third by then.
- A WAIT that names *me* says that my bytes do not get there. The link between us is broken, in one
  direction at least; after one limit both of us say so, and the ledger decides between us.
- While there is no room for its bytes here, a member cannot be late.
- What somebody provably did wrong (a block that does not fit its digest, a malformed frame) needs
  no waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STALL = 10.0  # seconds without a byte from a member that owes some
UNREACHABLE = 3.0  # seconds in which a member could not be connected to
PATIENCE = 3  # limits that a part may take at least, and an unchanging WAIT is believed
SLOWEST = 16 << 10  # bytes a second; what is slower than that is as good as cut
BREAKS = 3  # connections whose bytes did not open, after which it is no accident
LARGEST_STALL = 60.0  # seconds; the limit grows with the pauses seen, up to this
PAUSES = 3.0  # a limit is this many times the longest pause from which the link recovered


@dataclass(frozen=True)
class Limits:
    """Time limits of one exchange, in seconds."""

    stall: float = STALL
    unreachable: float = UNREACHABLE


@dataclass
class Link:
    """One other member, seen from here, in one attempt. All times come from one clock."""

    limits: Limits
    since: float  # when something was due from it, or came from it, for the last time
    part: int = 0  # bytes of the largest part that can be checked
    received: int = 0  # bytes
    complete: bool = False  # all that was due from it is here
    blocked: bool = False  # its bytes have no room here at the moment
    fault: str = ""  # what it provably did wrong
    gone: str = ""  # why its last connection ended
    waits: dict[str, int] = field(default_factory=dict)  # uid -> bytes, from its last WAIT
    heard: dict[str, int] = field(default_factory=dict)  # uid -> the most it has told of
    moved: float = 0.0  # when a part came, or its WAIT counts grew, for the last time
    garbled: int = 0  # connections that brought bytes that did not open
    longest_pause: float = 0.0
    longest_part: float = 0.0  # seconds
    unreachable_since: float | None = None
    unreachable_why: str = ""

    def __post_init__(self) -> None:
        self.moved = self.since

    def bytes_came(self, count: int, now: float) -> None:
        """Some bytes came in from it."""
        pause = now - self.since
        if pause > self.longest_pause:
            self.longest_pause = pause
        self.since = now
        self.received += count

    def data_came(self, now: float) -> None:
        """A part of what it owes is here; its waiting is over."""
        if not self.waits:
            self.longest_part = max(self.longest_part, now - self.moved)
        self.moved = now
        self.waits = {}

    def wait_came(self, waits: dict[str, int], now: float) -> None:
        """It says for whom it waits, and how many bytes it has from them."""
        if not self.waits:
            self.moved = now
        growth = 0
        for uid, count in waits.items():
            growth += max(0, count - self.heard.get(uid, 0))
            self.heard[uid] = max(count, self.heard.get(uid, 0))
        self.moved = min(now, self.moved + growth / SLOWEST)
        self.waits = waits

    def room(self, there_is: bool, now: float) -> None:
        """There is, or is no, room for its next bytes."""
        if there_is and self.blocked:
            self.since = self.moved = now
        self.blocked = not there_is

    def reached(self) -> None:
        """A connection to it works."""
        self.unreachable_since = None

    def not_reached(self, why: str, now: float) -> None:
        """A connection to it could not be made."""
        if self.unreachable_since is None:
            self.unreachable_since = now
        self.unreachable_why = why

    def did_not_open(self) -> None:
        """A connection ended with bytes that its keys do not open."""
        self.garbled += 1
        if self.garbled >= BREAKS:
            self.fault = self.fault or f"{BREAKS} connections brought bytes that do not open"

    def patience(self) -> float:
        """Seconds that the next part may take."""
        most = self.part / SLOWEST
        measured = min(most, PAUSES * self.longest_part or most)
        return max(PATIENCE * self.limit(), measured)

    def limit(self) -> float:
        """Seconds of silence that are believed at the moment."""
        return max(self.limits.stall, min(LARGEST_STALL, PAUSES * self.longest_pause))

    def blame(self, me: str, now: float) -> str:
        """Why it is to blame, in a few words; empty when it is not."""
        if self.fault:
            return self.fault
        if self.unreachable_since is not None:
            tried = now - self.unreachable_since
            if tried >= self.limits.unreachable:
                return f"cannot be reached for {tried:.0f} s ({self.unreachable_why})"
        if self.complete or self.blocked:
            return ""
        silent, still = now - self.since, now - self.moved
        if silent >= self.limit():
            reason = f" ({self.gone})" if self.gone else ""
            return f"no bytes for {silent:.0f} s{reason}"
        if me in self.waits and still >= self.limit():
            return f"does not get our bytes for {still:.0f} s"
        if still >= self.patience():
            if self.waits:
                return f"has sent nothing but excuses for {still:.0f} s"
            return f"has sent nothing that is whole for {still:.0f} s"
        return ""

    def owes(self, now: float) -> str:
        """What is awaited from it, for people; empty when nothing is."""
        if self.complete:
            return ""
        if self.blocked:
            return ""
        if self.unreachable_since is not None:
            return f"not reachable: {self.unreachable_why}"
        if self.waits:
            return "it waits for others"
        return f"silent for {now - self.since:.0f} s" if now - self.since >= 1 else "receiving"
