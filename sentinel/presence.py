"""Who is alive: event streams of our own clients, and what the other SNs say about theirs.

A client is alive while it keeps an event stream with its uid open. Each SN tells the others, with
every sign of life on the mesh, how long ago it heard of its own clients. None of this is on the
ledger, and no decision is taken from it alone: it tells an SN when to *report* a member lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MOST = 256  # uids in one sign of life, which is bounded
FORGET = 600.0  # seconds after which a node that is gone is no longer listed


@dataclass
class _Client:
    streams: int
    fingerprint: str
    since: float  # when the last stream was closed


class Presence:
    """Ages, in seconds, since each node was last known to be alive. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._clients: dict[str, _Client] = {}
        self._remote: dict[str, dict[str, float]] = {}  # SN uid -> client uid -> last seen

    def attach(self, uid: str, fingerprint: str) -> None:
        """A client opened a stream."""
        client = self._clients.get(uid)
        if client is None or client.fingerprint != fingerprint:
            client = self._clients[uid] = _Client(0, fingerprint, 0.0)
        client.streams += 1

    def detach(self, uid: str, fingerprint: str) -> None:
        """A client's stream ended."""
        client = self._clients.get(uid)
        if client is not None and client.fingerprint == fingerprint:
            client.streams -= 1
            client.since = self._clock()

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

    def fingerprint(self, uid: str) -> str:
        """Return the certificate under which our client `uid` came, "" when it is not ours."""
        client = self._clients.get(uid)
        return client.fingerprint if client else ""

    def beat(self) -> dict[str, int]:
        """Return what the others shall know: uid -> age in milliseconds."""
        ages = sorted(self.local().items(), key=lambda item: item[1])
        return {uid: int(age * 1000) for uid, age in ages[:MOST]}

    def heard(self, sn: str, payload: Any) -> None:
        """Take over what the SN `sn` says; anything malformed in it is left out."""
        if not isinstance(payload, Mapping):
            return
        now = self._clock()
        seen: dict[str, float] = {}
        for uid, age in list(payload.items())[:MOST]:
            if isinstance(uid, str) and len(uid) == 32 and type(age) is int and 0 <= age < 10**9:
                seen[uid] = now - age / 1000
        self._remote[sn] = seen

    def told(self, sn: str, uid: Any) -> None:
        """The SN `sn` says that a client has just come to it."""
        if isinstance(uid, str) and len(uid) == 32:
            seen = self._remote.setdefault(sn, {})
            if uid in seen or len(seen) < MOST:
                seen[uid] = self._clock()

    def gone(self, sn: str) -> None:
        """The SN `sn` left the ledger: forget what it said."""
        self._remote.pop(sn, None)

    def ages(self) -> dict[str, float]:
        """Return uid -> seconds since any SN knew the node to be alive."""
        now = self._clock()
        ages = self.local()
        for seen in self._remote.values():
            for uid, at in seen.items():
                age = now - at
                if age <= FORGET and age < ages.get(uid, FORGET + 1):
                    ages[uid] = age
        return ages
