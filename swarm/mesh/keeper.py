"""Keeps one session with each known peer: dials, waits, dials again.

One task for each peer of the address book. While a session is up, the task sleeps. Without one it
dials the peer's addresses in turn; after a round of failures, or a session that did not last, it
waits, twice as long each time up to MAX_PAUSE, give or take a third, so that a whole network that
restarts does not dial in step. A new address, or the peer's own success in reaching us, ends the
wait.

When both sides dial at once, one connection too many comes about. The one with the smaller peer id
therefore goes first, and `mesh` settles what happens nevertheless.

Peers that only others told us of are forgotten when they were not reached for FORGET.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from swarm.errors import RemoteError
from swarm.mesh.book import AddressBook

log = logging.getLogger("swarm.mesh")

FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0  # seconds between rounds of dialling
JITTER = 0.3
LAST_COMES_AFTER = (0.5, 1.5)  # seconds that the larger id leaves to the smaller one
STABLE = 30.0  # seconds; a session of that length makes the next pause the first one again
FORGET = 15 * 60.0  # seconds


class Backoff:
    """Pauses that grow."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pause = FIRST_PAUSE

    def reset(self) -> None:
        self._pause = FIRST_PAUSE

    def next(self) -> float:
        pause = min(self._pause, MAX_PAUSE)
        self._pause = 2 * pause
        return pause * self._rng.uniform(1 - JITTER, 1 + JITTER)


@dataclass
class Kept:
    """The state of one peer's task."""

    up: bool = False
    since: float = 0.0  # when `up` last changed
    news: trio.Event = field(default_factory=trio.Event)
    failure: str = ""  # why the last attempt failed, to log each reason once


class Keeper:
    """All those tasks. `dial` makes a session out of an address, or raises `RemoteError`."""

    def __init__(
        self,
        own_id: str,
        book: AddressBook,
        dial: Callable[[str, str], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self._own_id = own_id
        self._book = book
        self._dial = dial
        self._rng = rng
        self._kept: dict[str, Kept] = {}
        self._banned: set[str] = set()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Keep sessions until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._kept.clear()
            for peer_id in self._book:
                self.watch(peer_id)
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def watch(self, peer_id: str) -> None:
        """Begin with a peer of the book, or try again at once if it is being waited for."""
        if peer_id == self._own_id or self._nursery is None:
            return
        if peer_id in self._kept:
            self._kept[peer_id].news.set()
        else:
            self._kept[peer_id] = Kept(since=trio.current_time())
            self._nursery.start_soon(self._keep, peer_id)

    def report(self, peer_id: str, up: bool) -> None:
        """A session came up, or the last one with that peer ended."""
        kept = self._kept.get(peer_id)
        if kept is not None:
            kept.up, kept.since = up, trio.current_time()
            kept.news.set()

    def ban(self, peer_id: str) -> None:
        """Do not dial that peer any more."""
        self._banned.add(peer_id)

    def failures(self) -> dict[str, str]:
        """Why peers could not be reached, for the status."""
        return {peer_id: kept.failure for peer_id, kept in self._kept.items() if kept.failure}

    async def _keep(self, peer_id: str) -> None:
        kept, backoff = self._kept[peer_id], Backoff(self._rng)
        if self._own_id > peer_id:
            await self._pause(kept, self._rng.uniform(*LAST_COMES_AFTER))
        while True:
            if kept.up:
                began = trio.current_time()
                while kept.up:
                    await self._pause(kept, float("inf"))
                kept.failure = ""
                if trio.current_time() - began > STABLE:
                    backoff.reset()
                else:
                    await self._pause(kept, backoff.next())
                if self._own_id > peer_id:
                    await self._pause(kept, self._rng.uniform(*LAST_COMES_AFTER))
            elif self._forgotten(peer_id, kept):
                del self._kept[peer_id]
                return
            elif peer_id in self._banned or not await self._attempt(peer_id, kept):
                await self._pause(kept, backoff.next())

    async def _pause(self, kept: Kept, seconds: float) -> None:
        """Wait, but no longer than until something happens, or has happened meanwhile."""
        with trio.move_on_after(seconds):
            await kept.news.wait()
        kept.news = trio.Event()

    def _forgotten(self, peer_id: str, kept: Kept) -> bool:
        entry = self._book[peer_id]
        if entry.wanted or trio.current_time() - kept.since < FORGET:
            return False
        self._book.forget(peer_id)
        return True

    async def _attempt(self, peer_id: str, kept: Kept) -> bool:
        """Try all addresses; True when there is a session, whoever brought it about."""
        addresses = self._book[peer_id].addresses
        failure = "" if addresses else "no address is known"
        for address in addresses:
            try:
                await self._dial(peer_id, address)
            except RemoteError as error:
                failure = error.cause
            if kept.up:
                return True
        if failure and failure != kept.failure:
            log.info("%s cannot be reached: %s", peer_id, failure)
        kept.failure = failure
        return False
