"""The connections that a listener holds: so many at a time, and room for everybody.

Whoever is let in first could take all the room, and then members would stay outside. So when it is
full somebody has to go: of those that hold most connections, the oldest one with which nobody
talks. Connections are counted for an address until they have shown a certificate, and for its key
from then on; so a stranger makes room for strangers, and a member for itself. Each costs memory, so
there are fewer places for strangers.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class Guest:
    """One connection; `name` is for people."""

    sock: socket.socket
    who: str  # the address, later the key's fingerprint
    name: str
    chain: list[bytes] = field(default_factory=list)  # of certificates, once they were shown
    talks: str = ""  # what about: it is not sent away meanwhile
    gone: bool = False  # it was sent away

    def send_away(self) -> None:
        """End it; its thread closes the socket."""
        self.gone = True
        shut(self.sock)


class Guests:
    """All of them. Safe to share between threads."""

    def __init__(self, most: int, strangers: int) -> None:
        self._most = most
        self._strangers = strangers
        self._lock = threading.Lock()
        self._here: dict[Guest, None] = {}  # in the order in which they came
        self._closed = False

    def enter(self, sock: socket.socket, address: str) -> tuple[Guest | None, Guest | None]:
        """The new guest, and one that had to make room; (None, None) when nobody may come in."""
        guest, leaving = Guest(sock, address, address), None
        with self._lock:
            strangers = [one for one in self._here if not one.chain]
            if len(strangers) >= self._strangers:
                leaving = _dispensable(strangers)
            elif len(self._here) >= self._most:
                leaving = _dispensable(self._here)
            if leaving is not None:
                del self._here[leaving]
                leaving.send_away()
            if self._closed or len(self._here) >= self._most:
                return None, None
            self._here[guest] = None
        return guest, leaving

    def known(self, guest: Guest, chain: list[bytes], key: str, name: str) -> None:
        """It has shown a certificate of `key`."""
        with self._lock:
            guest.chain, guest.who, guest.name = chain, key, f"{name} ({guest.name})"

    @contextmanager
    def talking(self, guest: Guest, about: str) -> Iterator[None]:
        """Keep it while something is done for it; another one about the same has to go."""
        with self._lock:
            for other in [one for one in self._here if one.talks == about]:
                other.send_away()
            guest.talks = about
        try:
            yield
        finally:
            guest.talks = ""

    def leave(self, guest: Guest) -> None:
        """It is no longer here."""
        with self._lock:
            self._here.pop(guest, None)

    def all(self) -> list[Guest]:
        """Those that are here now."""
        with self._lock:
            return list(self._here)

    def close(self) -> None:
        """Send all away and let nobody in."""
        with self._lock:
            self._closed = True
            for guest in self._here:
                guest.send_away()


def _dispensable(guests: Iterable[Guest]) -> Guest | None:
    idle = [guest for guest in guests if not guest.talks]
    counts = Counter(guest.who for guest in idle)
    return max(idle, key=lambda guest: counts[guest.who], default=None)  # the oldest of equals


def shut(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """End a connection beneath TLS, under a thread that may be using it."""
    try:
        socket.socket.shutdown(sock, how)
    except OSError:
        return  # not connected any more
