"""The address book: where peers were last reached, kept over restarts.

A JSON file of our own, mode 0600, replaced as a whole. Nothing in it is trusted: an address is a
place to try, and the certificate that answers there decides. libp2p's own peer store on disk is not
used, since it writes the private key into it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.errors import LocalError

log = logging.getLogger("swarm.mesh")

MAX_PEERS = 256
MAX_ADDRESSES = 4  # of one peer
_MAX_FILE = 1 << 20
_PEER_ID = re.compile(r"[1-9A-HJ-NP-Za-km-z]{40,60}")
# Only TCP: over QUIC and its relatives libp2p would bypass our security transport.
_ADDRESS = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/[A-Za-z0-9.:_-]{1,253}/tcp/[0-9]{1,5}")


@dataclass
class Entry:
    """What is known of one peer's whereabouts."""

    addresses: tuple[str, ...]
    seen: int = 0  # when a session with it was last up, seconds since 1970; 0 for never
    wanted: bool = False  # asked for by this node's ledger or configuration: never forgotten


class AddressBook:
    """Peer ids and addresses. `save` writes what changed."""

    def __init__(self, path: Path) -> None:
        """Read the file; one that is missing, damaged or foreign counts as empty."""
        self._path = path
        self._entries: dict[str, Entry] = {}
        self._changed = False
        for peer_id, addresses, seen in _read(path):
            self._entries[peer_id] = Entry(addresses, seen)

    def __getitem__(self, peer_id: str) -> Entry:
        return self._entries[peer_id]

    def __contains__(self, peer_id: str) -> bool:
        return peer_id in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def learn(
        self, peer_id: str, addresses: Iterable[Any], *, hearsay: bool, wanted: bool = False
    ) -> bool:
        """Note addresses. True when there is something new to try.

        What is not an address is left out. `hearsay` is what a third party says: it comes behind
        what the peer itself said and displaces nothing, so that nobody can make another one
        unreachable; and a full book takes in no more peers by it.
        """
        good = clean(addresses)
        entry = self._entries.get(peer_id)
        if entry is None:
            if not _PEER_ID.fullmatch(peer_id) or (len(self) >= MAX_PEERS and hearsay):
                return False
            self._entries[peer_id] = Entry(good, wanted=wanted)
            self._changed = True
            return True
        entry.wanted |= wanted
        both = (*entry.addresses, *good) if hearsay else (*good, *entry.addresses)
        merged = tuple(dict.fromkeys(both))[:MAX_ADDRESSES]
        fresh = not set(merged) <= set(entry.addresses)
        if merged != entry.addresses:
            entry.addresses = merged
            self._changed = True
        return fresh

    def mark_seen(self, peer_id: str) -> None:
        """A session with it is up."""
        if peer_id in self._entries:
            self._entries[peer_id].seen = int(time.time())
            self._changed = True

    def forget(self, peer_id: str) -> None:
        """Drop a peer."""
        if self._entries.pop(peer_id, None) is not None:
            self._changed = True

    def known(self, most: int) -> dict[str, list[str]]:
        """Peers worth telling others of: reached, or wanted here. At most `most` bytes of them."""
        told: dict[str, list[str]] = {}
        for peer_id, entry in self._entries.items():
            most -= len(peer_id) + sum(map(len, entry.addresses)) + 20
            if most < 0:
                break
            if entry.addresses and (entry.seen or entry.wanted):
                told[peer_id] = list(entry.addresses)
        return told

    def save(self) -> None:
        """Write the file if anything changed. Raises `LocalError` SW2022."""
        if not self._changed:
            return
        content = {
            "version": 1,
            "peers": {
                peer_id: {"addresses": list(entry.addresses), "seen": entry.seen}
                for peer_id, entry in sorted(self._entries.items())
            },
        }
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, 0o600)  # it may lie there, with other rights, from a crash
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(self._path)
        except OSError as error:
            raise LocalError("SW2022", f"{self._path}: {error.strerror}") from error
        self._changed = False


def clean(addresses: Iterable[Any]) -> tuple[str, ...]:
    """Those of the values that are addresses which can be dialled, at most MAX_ADDRESSES."""
    good = (a for a in addresses if isinstance(a, str) and _ADDRESS.fullmatch(a))
    good = (a for a in good if a.split("/")[2] not in ("0.0.0.0", "::"))  # noqa: S104
    return tuple(dict.fromkeys(a for a in good if int(a.rpartition("/")[2]) in range(1, 65536)))[
        :MAX_ADDRESSES
    ]


def _read(path: Path) -> Iterator[tuple[str, tuple[str, ...], int]]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE + 1)
        if len(raw) > _MAX_FILE:
            raise ValueError("too large")
        peers = json.loads(raw)["peers"]
        for peer_id, entry in list(peers.items())[:MAX_PEERS]:
            seen, addresses = entry["seen"], clean(entry["addresses"])
            if _PEER_ID.fullmatch(peer_id) and isinstance(seen, int) and addresses:
                yield peer_id, addresses, seen
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("address book %s cannot be used and is begun anew: %s", path, error)
