"""Frames of a session: what is on the wire, without the wire.

A frame is u32 length of the body, u8 kind, u32 number, body; all big-endian. The number pairs an
answer with its call and is 0 elsewhere. The body is one CBOR value (see `codec`) or empty:

    HELLO   {v, chain, version, boot, addresses, peers}   first, from both sides, once
    CALL    [method, argument]
    RESULT  the result of the call of that number
    ERROR   [code, text], instead of a result
    CAST    [method, argument]
    BEAT    a small value or nothing: a sign of life
    PEERS   {peer id: [address]}: others that can be reached
    BYE     [code, text]: why the sender closes, if it can still say so
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

import trio

from swarm.errors import RemoteError
from swarm.mesh.port import MAX_MESSAGE, MAX_METHOD

HELLO, CALL, RESULT, ERROR, CAST, BEAT, PEERS, BYE = range(1, 9)

_HEADER = struct.Struct(">IBI")
MAX_BODY = MAX_MESSAGE + MAX_METHOD + 1  # an argument of full size with its method's name
MAX_FIRST = 64 * 1024  # bytes of a HELLO

QUEUE_FRAMES = 1024  # what may wait for one peer
QUEUE_BYTES = 8 << 20
_CHUNK = 32 * 1024  # bytes of one write: small, so that its duration tells whether the peer reads


def frame(kind: int, number: int, body: bytes = b"") -> bytes:
    """Bytes of one frame."""
    return _HEADER.pack(len(body), kind, number) + body


class FrameReader:
    """Cuts received bytes into frames; holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._limit = MAX_FIRST

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Kind, number and body of each frame that is complete now.

        Raises `RemoteError` SW2010 as soon as a length is too large.
        """
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _HEADER.size:
                length, kind, number = _HEADER.unpack_from(self._buffer, at)
                if length > self._limit:
                    raise RemoteError("SW2010", f"a frame of {length} bytes")
                end = at + _HEADER.size + length
                if len(self._buffer) < end:
                    break
                body = bytes(memoryview(self._buffer)[at + _HEADER.size : end])
                at = end
                self._limit = MAX_BODY
                yield kind, number, body
        finally:
            del self._buffer[:at]


class Outbox:
    """What waits to be written to one peer: bounded in frames and in bytes."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._beat: bytes | None = None
        self._rest = memoryview(b"")  # of a large frame that is on its way
        self._filled = trio.Event()
        self._drained = trio.Event()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> int:
        """Bytes waiting, the beat apart."""
        return self._size

    def offer(self, data: bytes) -> bool:
        """Queue a frame if there is room."""
        if self._frames and (
            len(self._frames) >= QUEUE_FRAMES or self._size + len(data) > QUEUE_BYTES
        ):
            return False
        self._frames.append(data)
        self._size += len(data)
        self._filled.set()
        return True

    async def put(self, data: bytes) -> None:
        """Queue a frame, waiting for room."""
        while not self.offer(data):
            await self._drained.wait()

    def beat(self, data: bytes) -> None:
        """Let this go before all others, and instead of one that has not left yet."""
        self._beat = data
        self._filled.set()

    async def take(self) -> bytes:
        """Bytes to write next, in order, about _CHUNK at most; waits until there are some."""
        while not self._frames and self._beat is None and not self._rest:
            self._filled = trio.Event()
            await self._filled.wait()
        data = self._next()
        self._drained.set()
        self._drained = trio.Event()
        return data

    def _next(self) -> bytes:
        if self._rest:
            piece, self._rest = bytes(self._rest[:_CHUNK]), self._rest[_CHUNK:]
            self._size -= len(piece)
            return piece
        parts = [self._beat] if self._beat is not None else []
        self._beat = None
        size = 0
        while self._frames and size < _CHUNK:
            if len(self._frames[0]) > _CHUNK:
                if not parts:
                    # Cut it: one long write would not tell a slow peer from a stuck one.
                    self._rest = memoryview(self._frames.popleft())
                    return self._next()
                break
            parts.append(self._frames.popleft())
            size += len(parts[-1])
        self._size -= size
        return b"".join(parts)
