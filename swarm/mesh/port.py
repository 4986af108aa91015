"""What the rest of a network node sees of the mesh.

The ledger, the daemon and the tests program against `MeshPort`; the real mesh (`swarm.mesh.mesh`)
and the in-memory double of the tests both implement it and pass one conformance suite. Nothing
here imports libp2p, whose import alone costs more than a second and 60 MB.

Rules that every implementation keeps:

- A peer is *up* from the moment both sides have accepted each other (`on_peer(info, True, "")`)
  until its session ends (`on_peer(info, False, why)`), the two always alternating per peer.
- `call` is answered once or raises; a request may have been executed although the caller saw an
  error, so methods must be idempotent or carry an id of their own.
- `cast` never waits and never raises for a slow or absent peer: the frame is dropped and counted.
  Casts to one peer arrive in order, or not at all.
- Arguments and results are plain values that CBOR can carry (None, bool, int, float, str, bytes,
  list, dict with str keys), at most `MAX_MESSAGE` bytes when encoded. Receivers get copies.
- What a handler raises is answered to the caller as an error; it never ends the node.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

# Largest encoded argument or result, in bytes. A block of the ledger, the largest thing that
# travels here, is limited to the same size; the frame around it has a little room of its own.
MAX_MESSAGE = 1 << 20
MAX_METHOD = 64  # bytes of an encoded method name

# Seconds. A live peer sends something at least every BEAT; one silent for SILENCE is gone.
BEAT = 5.0
SILENCE = 15.0


@dataclass(frozen=True)
class PeerInfo:
    """A peer whose certificate was verified in the handshake.

    `addresses` are multiaddrs that it claims to listen on: hints for dialling, not facts.
    """

    peer_id: str
    uid: str
    fingerprint: str
    organisation: str
    common_name: str
    addresses: tuple[str, ...] = ()


Handler = Callable[[PeerInfo, Any], Awaitable[Any]]
CastHandler = Callable[[PeerInfo, Any], None]
PeerCallback = Callable[[PeerInfo, bool, str], None]
BeatHandler = Callable[[PeerInfo, Any], None]


class MeshPort(Protocol):
    """Authenticated messages among the network nodes of one ledger."""

    @property
    def peer_id(self) -> str:
        """Own peer id."""

    def peers(self) -> list[PeerInfo]:
        """Peers whose session is up."""

    def last_seen(self, uid: str) -> float | None:
        """Seconds since anything was heard from the node `uid`; None if never in this run."""

    async def call(self, peer_id: str, method: str, arg: Any = None, timeout: float = 10.0) -> Any:
        """Ask one peer; return its answer.

        Raises `RemoteError`: SW2001 not connected, SW2002 no answer in `timeout` seconds, SW2003
        connection lost meanwhile, SW2005 the peer's handler failed, SW2006 it knows no such method,
        SW2007 it is busy; or the code that the handler itself raised a `RemoteError` with.
        Raises `LocalError` SW2014 when `arg` cannot be carried.
        """

    async def call_all(
        self, method: str, arg: Any = None, timeout: float = 10.0
    ) -> Mapping[str, Any]:
        """Ask all peers at once: peer id -> answer, or the `RemoteError` that `call` raised."""

    def cast(self, method: str, arg: Any, *, to: str | None = None) -> None:
        """Send to one peer (`to`, a peer id) or to all, without an answer.

        Raises `LocalError` SW2014 when `arg` cannot be carried; nothing else.
        """

    def handle(self, method: str, handler: Handler) -> None:
        """Answer calls of `method`. The latest registration counts."""

    def on_cast(self, method: str, handler: CastHandler) -> None:
        """Receive casts of `method`; must return quickly. The latest registration counts."""

    def on_peer(self, callback: PeerCallback) -> None:
        """Learn that a peer came up or went down, and why. All callbacks are called."""

    def set_beat(self, make: Callable[[], Any]) -> None:
        """Put `make()`, a small value, on each sign of life that is sent."""

    def on_beat(self, handler: BeatHandler) -> None:
        """Receive those of the peers. All handlers are called."""
