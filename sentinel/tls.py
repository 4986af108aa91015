"""A TLS server stream for trio that delivers its refusals.

`trio.SSLStream` throws the pending alert away when a handshake fails, so a client with a wrong
certificate would see its connection vanish without a reason. This stream sends the alert, and
then waits a moment for the client to read it: closing a socket with unread bytes in it resets the
connection, and a reset overtakes the alert.

Everything OpenSSL does happens between two awaits, in memory, so one task may read while another
one writes; ciphertext is handed to the socket under a lock, in the order in which it was made.
"""

from __future__ import annotations

import socket
import ssl

import trio

CHUNK = 1 << 16  # bytes read from the socket at a time
SEND_LIMIT = 20.0  # seconds without progress after which a client that does not read is given up
CLOSE_LIMIT = 0.2  # seconds for the last bytes of a connection
LINGER = 1.0  # seconds that a refused client gets to read why
LINGER_BYTES = 1 << 18  # what it may still send meanwhile


class TlsStream:
    """Server side of one connection; the part of trio's stream interface that hypercorn uses."""

    def __init__(self, transport_stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.transport_stream = transport_stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._sending = trio.Lock()
        self._established = False
        self._unread = b""

    async def do_handshake(self) -> None:
        """Complete the handshake; a no-op when it is.

        Raises ssl.SSLError after sending the alert.
        """
        if self._established:
            return
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise trio.BrokenResourceError("closed during the handshake") from None
            except ssl.SSLError:
                await self._flush()
                raise
        await self._flush()
        self._established = True

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that ALPN settled on (hypercorn asks)."""
        return self.tls.selected_alpn_protocol()

    def unread(self, data: bytes) -> None:
        """Give back what was received, for the next reader of this stream."""
        self._unread = data + self._unread

    async def receive_some(self, max_bytes: int = CHUNK) -> bytes:
        """Return decrypted bytes, b"" at the end. Raises trio.BrokenResourceError."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        while True:
            try:
                return self.tls.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    return b""  # ends HTTP messages as a close_notify does; h11 notices truncation
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as fault:
                raise trio.BrokenResourceError(f"TLS: {fault.reason}") from fault

    async def send_all(self, data: bytes) -> None:
        """Encrypt and send. Raises trio.BrokenResourceError, also when the client stops reading."""
        try:
            for start in range(0, len(data), CHUNK):
                self.tls.write(data[start : start + CHUNK])
                await self._flush()
        except ssl.SSLError as fault:
            raise trio.BrokenResourceError(f"TLS: {fault.reason}") from fault

    async def linger(self) -> None:
        """Let a refused client read the alert before the socket goes."""
        left = LINGER_BYTES
        with trio.move_on_after(LINGER):
            try:
                await self.transport_stream.send_eof()
                while left > 0 and (data := await self.transport_stream.receive_some(CHUNK)):
                    left -= len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def aclose(self) -> None:
        """Close, with a close_notify when the client takes it at once."""
        if self._established and not self._sending.locked():
            try:
                self.tls.unwrap()
            except (ssl.SSLError, ValueError):
                pass  # unwrap wants the other side's answer, which nobody waits for
            with trio.move_on_after(CLOSE_LIMIT) as scope:
                scope.shield = True
                try:
                    await self.transport_stream.send_all(self._outgoing.read())
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
        await self.transport_stream.aclose()

    async def _flush(self) -> None:
        if not self._outgoing.pending:
            return
        async with self._sending:
            data = self._outgoing.read()
            if not data:
                return
            with trio.move_on_after(SEND_LIMIT):
                await self.transport_stream.send_all(data)
                return
        raise trio.BrokenResourceError("the client does not read")

    async def _fill(self) -> bool:
        data = await self.transport_stream.receive_some(CHUNK)
        if not data:
            self._incoming.write_eof()
            return False
        self._incoming.write(data)
        return True


def tune(sock: trio.socket.SocketType, dead_after_s: float) -> None:
    """Set up an accepted socket: no Nagle delay; unacknowledged data ends it after `dead_after_s`.

    The latter notices a client whose host or cable is gone, as event streams carry a comment each
    5 s.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_after_s * 1000))
