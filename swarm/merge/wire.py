"""Frames between learners, over connections that TLS 1.3 has opened (see `seal`).

    u8 kind · u8 0 · u16 0 · u32 length · payload              big-endian

Every kind has a largest length, checked before a byte of the payload is read, and the bulk kinds
are read straight into memory that the receiver has set aside for exactly that many bytes. A
connection carries bulk data in one direction only; the few answers in the other direction come at
points where both sides know who speaks.

    dialler                                   listener
    HELLO {want: merge | fetch | leaves} ->
                                        <-    ANSWER {ok, …}

    merge: DIGESTS? (CONTRIB | REDUCED | WAIT)* END   ->
           with DISTANCES? WITNESS? between CONTRIB and REDUCED, for methods that mix
                                        <-    END
    fetch:                              <-    LAYOUT DIGESTS
           NEED bitmap                  ->
                                        <-    REDUCED* END
    leaves:                             <-    DIGESTS
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

from swarm.errors import RemoteError
from swarm.merge.blocks import DIGEST
from swarm.merge.seal import Seal, SealError

PROTOCOL = 3

TOGETHER = 128 << 10  # bytes of frames that are sent together at most, and one frame more

_HEADER = struct.Struct("!BBHI")
_CHUNK_INDEX = struct.Struct("!I")


class Kind(IntEnum):
    """Kinds of frames."""

    HELLO = 1
    ANSWER = 2
    DIGESTS = 3
    CONTRIB = 4
    REDUCED = 5
    WAIT = 6
    END = 7
    LAYOUT = 8
    NEED = 9
    DISTANCES = 10
    WITNESS = 11


# 2²⁰ blocks of 1 MiB make a vector of 1 TiB; nobody is asked to hold more than these lists.
MAX_BLOCKS = 1 << 20
MAX_MEMBERS = 256
MAX_SIGNATURE = 1024  # bytes: RSA with 8192 bits
LIMITS: dict[Kind, int] = {
    Kind.HELLO: 4 << 10,
    Kind.ANSWER: 4 << 10,
    Kind.DIGESTS: 32 * MAX_BLOCKS,
    Kind.CONTRIB: (2 << 20) + _CHUNK_INDEX.size,
    Kind.REDUCED: (2 << 20) + _CHUNK_INDEX.size,
    Kind.WAIT: 8 << 10,
    Kind.END: 0,
    Kind.LAYOUT: 8 << 20,
    Kind.NEED: MAX_BLOCKS // 8,
    Kind.DISTANCES: 8 * MAX_MEMBERS**2 + MAX_SIGNATURE,
    Kind.WITNESS: MAX_MEMBERS * (2 * (DIGEST + MAX_SIGNATURE) + 16),
}


class WireError(RemoteError):
    """The other side broke the rules of this module: SW6101."""

    def __init__(self, cause: str) -> None:
        super().__init__("SW6101", cause)


class ConnectionGone(RemoteError):
    """The connection ended before the conversation did: SW6102."""

    def __init__(self, cause: str) -> None:
        super().__init__("SW6102", cause)


class Garbled(ConnectionGone):
    """It ended with bytes that its keys do not open."""


class Channel:
    """Frames over one connected socket. One thread reads, and the same or one other writes after.

    `touched` is called with each number of bytes that came in; it feeds the accounting of progress.
    """

    def __init__(self, sock: ssl.SSLSocket | socket.socket, seal: Seal | None = None) -> None:
        """`seal` carries the frames over `sock`; without it they go over the bare socket."""
        self.sock = sock
        self._seal = seal
        self.sent = 0  # bytes, headers included
        self.received = 0
        self.touched: Callable[[int], None] | None = None
        self._together: list[bytes | memoryview] | None = None

    # ------------------------------------------------------------------- send

    @contextmanager
    def together(self) -> Iterator[None]:
        """Frames that are sent within go out in few calls: nobody waits for the first of them.

        Their memory must stay as it is until the end, or until `flush`.
        """
        self._together = []
        try:
            yield
            self.flush()
        finally:
            self._together = None

    def flush(self) -> None:
        """Send now what has been collected. Raises ConnectionGone."""
        if self._together:
            pieces, self._together = self._together, []
            self._transmit(pieces)

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a small frame in one piece. Raises ConnectionGone."""
        self._sendall(_HEADER.pack(kind, 0, 0, len(payload)) + payload)

    def send_json(self, kind: Kind, value: object) -> None:
        """Send a frame of JSON."""
        self.send(kind, json.dumps(value, separators=(",", ":")).encode())

    def send_chunk(self, kind: Kind, index: int, data: memoryview) -> None:
        """Send a bulk frame straight from `data`'s memory."""
        length = len(data) + _CHUNK_INDEX.size
        self._sendall(_HEADER.pack(kind, 0, 0, length) + _CHUNK_INDEX.pack(index), data)

    # ---------------------------------------------------------------- receive

    def receive_header(self) -> tuple[Kind, int]:
        """Kind and payload length of the next frame. Raises WireError, ConnectionGone."""
        kind_number, zero, zeros, length = _HEADER.unpack(self._receive(_HEADER.size))
        try:
            kind = Kind(kind_number)
        except ValueError:
            raise WireError(f"frame of unknown kind {kind_number}") from None
        if zero or zeros:
            raise WireError(f"{kind.name} frame with reserved bits set")
        if length > LIMITS[kind]:
            raise WireError(f"{kind.name} frame of {length} B, at most {LIMITS[kind]} B")
        return kind, length

    def receive_json(self, length: int) -> dict[str, Any]:
        """The object in a frame of JSON whose header has been read."""
        try:
            value = json.loads(self._receive(length))
        except (ValueError, RecursionError) as error:
            raise WireError(f"frame is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise WireError("frame is not a JSON object")
        return value

    def expect_json(self, kind: Kind) -> dict[str, Any]:
        """Read one frame that must be of `kind` and hold a JSON object."""
        return self.receive_json(self._expect(kind))

    def expect_raw(self, kind: Kind, length: int | None = None) -> bytes:
        """Read one small frame that must be of `kind`, and of `length` bytes when given."""
        actual = self._expect(kind)
        if length is not None and actual != length:
            raise WireError(f"{kind.name} frame of {actual} B, expected {length} B")
        return bytes(self._receive(actual))

    def receive_raw(self, length: int) -> bytes:
        """The payload of a small frame whose header has been read."""
        return bytes(self._receive(length))

    def chunk_index(self, length: int) -> tuple[int, int]:
        """Index of a bulk frame whose header has been read, and bytes that follow."""
        if length < _CHUNK_INDEX.size:
            raise WireError("bulk frame without an index")
        (index,) = _CHUNK_INDEX.unpack(self._receive(_CHUNK_INDEX.size))
        return index, length - _CHUNK_INDEX.size

    def receive_into(self, view: memoryview) -> None:
        """Fill `view`. Raises ConnectionGone."""
        try:
            if self._seal is not None:
                self._seal.receive_into(view, self._came)
                return
            at, end = 0, len(view)
            while at < end:
                count = self.sock.recv_into(view[at:])
                if count == 0:
                    raise EOFError
                at += count
                self._came(count)
        except EOFError:
            raise ConnectionGone("the other side closed the connection") from None
        except SealError as error:
            raise Garbled(_reason(error)) from None
        except (OSError, ValueError) as error:
            raise ConnectionGone(_reason(error)) from None

    def _came(self, count: int) -> None:
        self.received += count
        if self.touched:
            self.touched(count)

    # ------------------------------------------------------------------ close

    def abort(self) -> None:
        """End all reads and writes of other threads; the socket is closed by its owner.

        Shuts down the TCP connection beneath TLS: `SSLSocket.shutdown` would take the TLS object
        away from under a thread that is using it.
        """
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            return  # it is down already

    @property
    def worn(self) -> bool:
        """It has carried so much that it should not be used for another conversation."""
        return self._seal is not None and self._seal.worn

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    # ---------------------------------------------------------------- private

    def _expect(self, kind: Kind) -> int:
        actual, length = self.receive_header()
        if actual is not kind:
            raise WireError(f"{actual.name} frame where {kind.name} was expected")
        return length

    def _receive(self, count: int) -> bytearray:
        data = bytearray(count)
        self.receive_into(memoryview(data))
        return data

    def _sendall(self, *pieces: bytes | memoryview) -> None:
        if self._together is None:
            self._transmit(pieces)
            return
        self._together += pieces
        if sum(map(len, self._together)) >= TOGETHER:
            self.flush()

    def _transmit(self, pieces: Sequence[bytes | memoryview]) -> None:
        try:
            if self._seal is not None:
                self.sent += self._seal.send(*pieces)
                return
            for piece in pieces:
                self.sock.sendall(piece)
                self.sent += len(piece)
        except (OSError, ValueError) as error:
            raise ConnectionGone(_reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came in time"
    text = str(error) or type(error).__name__
    return f"the connection broke: {text}"
