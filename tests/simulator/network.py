"""The links between simulated nodes: what they lose, repeat, hold up and carry one way only."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from swarm.ledger.consensus import messages as msg

if TYPE_CHECKING:
    from tests.simulator.profiles import Profile

Link = tuple[str, str]  # from, to
LONG = 4.0  # seconds: longer than the time-outs of a dozen rounds


class Network:
    """Decides for each message when it arrives, if at all. Trouble ends when the world heals."""

    def __init__(self, profile: Profile, rng: random.Random) -> None:
        self.profile = profile
        self.troubled = True
        self._rng = rng
        self._cuts: dict[int, frozenset[Link]] = {}
        self._blocked: frozenset[Link] = frozenset()
        self._latest: dict[Link, float] = {}  # for links that keep the order
        self._deaf: dict[tuple[str, int, int, int], bool] = {}

    # ------------------------------------------------------------------ splits

    def split(self, uids: list[str]) -> frozenset[Link]:
        """Links between two random halves."""
        sides = {uid: self._rng.random() < 0.5 for uid in uids}
        return frozenset((a, b) for a in uids for b in uids if sides[a] != sides[b])

    def one_way(self, uids: list[str]) -> frozenset[Link]:
        """Links from some to some, but not back: those hear these, these do not hear those."""
        rng = self._rng
        if rng.random() < 0.5:  # one node is heard by nobody, or hears nobody
            alone, mute = rng.choice(uids), rng.random() < 0.5
            others = [uid for uid in uids if uid != alone]
            return frozenset((alone, uid) if mute else (uid, alone) for uid in others)
        pairs = [(a, b) if rng.random() < 0.5 else (b, a) for a in uids for b in uids if a < b]
        return frozenset(pair for pair in pairs if rng.random() < 0.5)

    def cut(self, number: int, links: frozenset[Link]) -> None:
        """These links carry nothing until `mend`."""
        self._cuts[number] = links
        self._blocked = frozenset().union(*self._cuts.values())

    def mend(self, number: int) -> None:
        self._cuts.pop(number, None)
        self._blocked = frozenset().union(*self._cuts.values())

    def heal(self) -> None:
        """From now on nothing is lost or repeated, and nothing takes longer than usual."""
        self.troubled = False

    # ------------------------------------------------------------------ messages

    def arrivals(self, source: str, to: str, message: msg.Message, now: float) -> list[float]:
        """When copies of a message arrive: none, one, or two of them."""
        p, rng = self.profile, self._rng
        if not self.troubled:
            return [self._when(source, to, now + rng.random() * p.delay + 0.0005)]
        if (source, to) in self._blocked or (p.loss and rng.random() < p.loss):
            return []
        if p.deaf and self._is_deaf(to, message):
            return []
        delay = rng.random() * p.delay + 0.0005
        if p.tail and rng.random() < p.tail:
            delay = rng.random() * LONG
        first = self._when(source, to, now + delay)
        if p.duplicate and rng.random() < p.duplicate:
            return [first, self._when(source, to, now + rng.random() * p.delay * 3 + 0.0005)]
        return [first]

    def _when(self, source: str, to: str, when: float) -> float:
        if self.profile.reorder:
            return when
        link = (source, to)
        # Strictly later, so that the queue need not break ties by luck.
        when = max(when, self._latest.get(link, 0.0) + 1e-6)
        self._latest[link] = when
        return when

    def _is_deaf(self, to: str, message: msg.Message) -> bool:
        """Drawn once for each node and step, so that repetition does not help it."""
        if not isinstance(message, msg.Vote):
            return False
        key = (to, message.height, message.round, message.kind)
        found = self._deaf.get(key)
        if found is None:
            found = self._deaf[key] = self._rng.random() < self.profile.deaf
        return found
