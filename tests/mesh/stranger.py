"""Somebody who speaks to the peer-to-peer port without libp2p: byte by byte, as badly as needed."""

from __future__ import annotations

import ssl

import trio

from swarm.mesh.transport import PROTOCOL

MULTISTREAM = "/multistream/1.0.0"


def line(text: str) -> bytes:
    """A multistream-select message (lengths below 128 only)."""
    data = text.encode() + b"\n"
    assert len(data) < 128
    return bytes([len(data)]) + data


class Stranger:
    """A TCP connection, and TLS over it once asked for."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._plain = b""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls: ssl.SSLObject | None = None

    @classmethod
    async def connect(cls, address: str) -> Stranger:
        """To a multiaddr on IPv4."""
        parts = address.split("/")
        return cls(await trio.open_tcp_stream(parts[2], int(parts[4])))

    async def line(self) -> str:
        """The next multistream-select message."""
        while not self._plain or len(self._plain) < 1 + self._plain[0]:
            data = await self.stream.receive_some(4096)
            if not data:
                raise EOFError
            self._plain += data
        size = self._plain[0]
        text, self._plain = self._plain[1 : 1 + size], self._plain[1 + size :]
        return text.decode().rstrip("\n")

    async def ask(self, protocol: str) -> str:
        """Propose a protocol; the answer is its name or "na"."""
        await self.stream.send_all(line(protocol))
        return await self.line()

    async def hello(self) -> None:
        """Begin multistream-select."""
        await self.stream.send_all(line(MULTISTREAM))
        assert await self.line() == MULTISTREAM

    async def handshake(self, context: ssl.SSLContext) -> None:
        """Agree on the security protocol and do the TLS handshake. Raises ssl.SSLError."""
        await self.hello()
        assert await self.ask(PROTOCOL) == PROTOCOL
        self._incoming.write(self._plain)
        self.tls = context.wrap_bio(self._incoming, self._outgoing)
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._pump()
                continue
            break
        await self._flush()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self.stream.send_all(self._outgoing.read())

    async def _pump(self) -> None:
        await self._flush()
        data = await self.stream.receive_some(65536)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def read(self) -> bytes:
        """Application bytes; b"" at the end. Raises ssl.SSLError for an alert."""
        assert self.tls is not None
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                await self._pump()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, data: bytes) -> None:
        assert self.tls is not None
        self.tls.write(data)
        await self._flush()

    async def everything(self) -> bytes:
        """All application bytes until the end, an alert included in "the end"."""
        received = b""
        try:
            while data := await self.read():
                received += data
        except (ssl.SSLError, trio.BrokenResourceError):
            pass  # an alert or a reset: the connection is closed, which is what is waited for
        return received

    async def closed_by_peer(self) -> bytes:
        """Raw bytes until the other side closes."""
        received = b""
        try:
            while data := await self.stream.receive_some(65536):
                received += data
        except trio.BrokenResourceError:
            pass  # a reset closes as well
        return received
