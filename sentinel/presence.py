"""Who is alive: event streams of our own clients, and what the other SNs say about theirs.

A client is alive while it keeps an event stream with its uid open. Each SN tells the others, with
every sign of life on the mesh, how long ago it heard of its own clients. None of this is on the
ledger, and no decision is taken from it alone: it tells an SN when to *report* a member lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from swarm.mesh.port import SILENCE

MOST = 256  # uids in one sign of life, which is bounded
FORGET = 600.0  # seconds after which a node that is gone is no longer listed


@dataclass
class _Client:
    streams: int
    fingerprint: str
    since: float  # when the last stream was closed


class _Claim(NamedTuple):
    """What another SN said of one of its clients."""

    at: float  # when the client was alive, by our clock
    connected: bool


class Presence:
    """Ages, in seconds, since each node was last known to be alive. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._clients: dict[str, _Client] = {}
        self._remote: dict[str, dict[str, _Claim]] = {}  # by SN, then by client

    def attach(self, uid: str, fingerprint: str) -> bool:
        """A client opened a stream. True when it is its only one."""
        client = self._clients.get(uid)
        if client is None or client.fingerprint != fingerprint:
            client = self._clients[uid] = _Client(0, fingerprint, 0.0)
        client.streams += 1
        return client.streams == 1

    def detach(self, uid: str, fingerprint: str) -> bool:
        """A client's stream ended. True when it was its last one."""
        client = self._clients.get(uid)
        if client is None or client.fingerprint != fingerprint:
            return False
        client.streams -= 1
        client.since = self._clock()
        return client.streams == 0

    def local(self) -> dict[str, float]:
        """Return uid -> age of our own clients; forgets those that are gone for long."""
        now = self._clock()
        ages = {
            uid: 0.0 if client.streams > 0 else now - client.since
            for uid, client in self._clients.items()
        }
        for uid, age in ages.items():
            if age > FORGET:
                del self._clients[uid]
        return {uid: age for uid, age in ages.items() if age <= FORGET}

    def beat(self) -> dict[str, int]:
        """Return what the others shall know: uid -> age in milliseconds."""
        ages = sorted(self.local().items(), key=lambda item: item[1])
        return {uid: int(age * 1000) for uid, age in ages[:MOST]}

    def heard(self, sn: str, payload: Any) -> None:
        """Take over what the SN `sn` says; anything malformed in it is left out."""
        if not isinstance(payload, Mapping):
            return
        now = self._clock()
        seen: dict[str, _Claim] = {}
        for uid, age in list(payload.items())[:MOST]:
            if isinstance(uid, str) and len(uid) == 32 and type(age) is int and 0 <= age < 10**9:
                seen[uid] = _Claim(now - age / 1000, age == 0)
        self._remote[sn] = seen

    def told(self, sn: str, news: Any) -> None:
        """The SN `sn` says at once that a client has come (`[uid, True]`) or gone."""
        if not isinstance(news, list) or len(news) != 2:
            return
        uid, came = news
        if isinstance(uid, str) and len(uid) == 32 and isinstance(came, bool):
            seen = self._remote.setdefault(sn, {})
            if uid in seen or len(seen) < MOST:
                seen[uid] = _Claim(self._clock(), came)

    def ages(self) -> dict[str, float]:
        """Return uid -> seconds since any SN knew the node to be alive.

        A client that an SN has said to be connected is alive for as long as that SN would have been
        noticed to be gone.
        """
        now = self._clock()
        ages = self.local()
        for seen in self._remote.values():
            for uid, claim in seen.items():
                age = now - claim.at
                if claim.connected and age <= SILENCE:
                    age = 0.0
                if age <= FORGET and age < ages.get(uid, FORGET + 1):
                    ages[uid] = age
        return ages
