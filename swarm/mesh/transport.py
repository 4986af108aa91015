"""Mutual TLS 1.3 with certificates as the security transport of libp2p.

The only one that is offered, so that nobody gets in by noise, libp2p's own TLS or plain text. After
multistream-select has agreed on `PROTOCOL`:

1. The TLS 1.3 handshake, both sides with certificates; OpenSSL verifies the chains.
2. Each side judges the other with `check_peer`: chain, dates, revocation, and the role SN.
3. Each side sends one byte, the verdict, and waits for the other's. A TLS 1.3 client has finished
   its handshake before the server judged its certificate; without the byte it would believe itself
   connected. Behind a refusal follows the reason (revoked, barred, another role): whoever gets here
   holds a certificate of a CA that is trusted. Others end in step 1, with an alert.

TLS runs over memory buffers with a pump of our own, since trio's SSLStream drops the alert of a
failed handshake, so that the refused side sees a bare end of file. A write that is cancelled in the
middle of a record makes the connection useless; whoever cancels one closes the connection.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import trio
from libp2p.abc import ISecureTransport
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.abc import EncryptedMsgReadWriter
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.security.secure_session import SecureSession
from libp2p.transport.exceptions import SecurityUpgradeFailure

from swarm.errors import RemoteError
from swarm.identity import Identity, Peer, Role, check_peer
from swarm.identity.tls import presented_chain
from swarm.mesh import keys
from swarm.mesh.door import Door

PROTOCOL = TProtocol("/swarm-x509/1.0.0")
ALPN = "swarm-x509/1"
HANDSHAKE_TIMEOUT = 10.0  # seconds for steps 1 to 3
REFUSAL_LIMIT = 1.0  # seconds that a refused peer gets to hear why
_REFUSED, _ACCEPTED = b"\x00", b"\x01"
_MAX_REASON = 300  # bytes
_CHUNK = 65536

_CLOSED = (
    "the peer closed the connection instead of accepting our certificate "
    "(revoked, of another role or of a CA unknown there; its log says why)"
)

T = TypeVar("T")
Refused = Callable[[str, str, str], None]  # side ("inbound" or "outbound"), who, why


class AuthenticationFailed(SecurityUpgradeFailure):  # type: ignore[misc]
    """A peer was refused, or refused this node.

    A SecurityUpgradeFailure, because of other types libp2p's upgrader drops the text.
    """


class TlsPipe(EncryptedMsgReadWriter):  # type: ignore[misc]
    """TLS records over a libp2p raw connection."""

    def __init__(self, raw: Any, context: ssl.SSLContext, server: bool) -> None:
        super().__init__(raw)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._writing = trio.Lock()
        self._closed = False
        self._cut = False  # a record was sent in part, or is being sent

    async def _flush(self) -> None:
        """Send what TLS has ready. Records leave in the order in which they were made."""
        async with self._writing:
            data = self._outgoing.read()
            if data:
                self._cut = True
                await self.conn.write(data)
                self._cut = False

    async def run(self, step: Callable[[], T]) -> T:
        """Do one TLS operation, moving bytes until it is done."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                if self._outgoing.pending:
                    await self._flush()
                data = await self.conn.read(_CHUNK)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                continue
            except ssl.SSLError:
                await self._send_alert()
                raise
            if self._outgoing.pending:
                await self._flush()
            return result

    async def _send_alert(self) -> None:
        try:
            await self._flush()
        except (BaseLibp2pError, OSError):
            pass  # nobody is there to read it

    async def handshake(self) -> None:
        await self.run(self.tls.do_handshake)

    async def read_msg(self) -> bytes:
        """Decrypted bytes, as they come; b"" at the end. Raises ConnectionClosedError."""
        try:
            return await self.run(lambda: self.tls.read(_CHUNK))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""  # with a goodbye or without: frames have their lengths
        except ssl.SSLError as error:
            raise ConnectionClosedError(f"TLS: {error.reason or error}", transport="tcp") from error

    async def write_msg(self, msg: bytes) -> None:
        """Encrypt and send. Raises ConnectionClosedError."""
        if not msg:
            return
        if self._closed:
            raise ConnectionClosedError("the connection is closed", transport="tcp")
        try:
            await self.run(lambda: self.tls.write(msg))
        except ssl.SSLError as error:
            raise ConnectionClosedError(f"TLS: {error.reason or error}", transport="tcp") from error

    async def close(self) -> None:
        """Say goodbye if that is possible at once, and close the socket."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            try:
                self.tls.unwrap()
            except (ssl.SSLError, ValueError):
                pass  # it waits for the peer's goodbye, or never got as far as a handshake
            goodbye = self._outgoing.read()
            if goodbye and not self._cut:
                try:
                    await self.conn.write(goodbye)
                except (BaseLibp2pError, OSError):
                    pass  # the peer is gone already
        await self.conn.close()

    def encrypt(self, data: bytes) -> bytes:
        return data

    def decrypt(self, data: bytes) -> bytes:
        return data


class SecureConnection(SecureSession):  # type: ignore[misc]
    """An authenticated connection; `peer` tells whose certificate it was."""

    peer: Peer
    chain: list[bytes]  # what the peer presented, to judge it again when the trust store changes

    def admit(self) -> None:
        """Lift the limit on what may be read before the connection is set up."""
        door = getattr(self.conn.conn, "stream", None)
        if isinstance(door, Door):
            door.open()


class X509Transport(ISecureTransport):  # type: ignore[misc]
    """Lets in who holds an SN certificate that this node trusts."""

    def __init__(self, identity: Identity, on_refused: Refused) -> None:
        """`on_refused` hears of each refusal, of either side, for the log.

        Raises `LocalError` SW2021 when libp2p cannot use the certificate's key.
        """
        self.key_pair = keys.key_pair(identity)
        self.local_peer = ID.from_pubkey(self.key_pair.public_key)
        self._identity = identity
        self._on_refused = on_refused
        self.reload()

    def reload(self) -> None:
        """Take over the trust store's present contents, for connections from now on."""
        self._server = self._identity.server_context()
        self._client = self._identity.client_context()
        for context in (self._server, self._client):
            context.set_alpn_protocols([ALPN])

    def get_protocol_id(self) -> Any:
        return PROTOCOL

    async def secure_inbound(self, conn: Any) -> SecureConnection:
        """Authenticate who dialled us. Raises AuthenticationFailed."""
        return await self._secure(conn, None)

    async def secure_outbound(self, conn: Any, peer_id: Any) -> SecureConnection:
        """Authenticate whom we dialled, who must be `peer_id`. Raises AuthenticationFailed."""
        return await self._secure(conn, peer_id)

    async def _secure(self, conn: Any, wanted: Any) -> SecureConnection:
        server = wanted is None
        pipe = TlsPipe(conn, self._server if server else self._client, server)
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT):
                peer, public = await self._authenticate(pipe, wanted)
        except (
            RemoteError, trio.TooSlowError, ssl.SSLError, OSError, BaseLibp2pError, ValueError
        ) as error:  # fmt: skip
            why = _explain(error)
            who = str(wanted) if wanted is not None else _address(conn)
            self._on_refused("inbound" if server else "outbound", who, why)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await conn.close()
            raise AuthenticationFailed(why) from error
        connection = SecureConnection(
            local_peer=self.local_peer,
            local_private_key=self.key_pair.private_key,
            remote_peer=ID.from_pubkey(public),
            remote_permanent_pubkey=public,
            is_initiator=not server,
            conn=pipe,
        )
        connection.peer = peer
        connection.chain = presented_chain(pipe.tls)
        return connection

    async def _authenticate(self, pipe: TlsPipe, wanted: Any) -> tuple[Peer, Any]:
        await pipe.handshake()
        try:
            peer, public = self._judge(pipe, wanted)
        except RemoteError as error:
            await _refuse(pipe, error.cause)
            raise
        await pipe.write_msg(_ACCEPTED)
        verdict = await pipe.run(lambda: pipe.tls.read(1))
        if verdict == _REFUSED:
            reason = await pipe.run(lambda: pipe.tls.read(_MAX_REASON))
            raise RemoteError("SW2013", f"the peer refused our certificate: {_printable(reason)}")
        if verdict != _ACCEPTED:
            raise RemoteError("SW2013", _CLOSED)
        return peer, public

    def _judge(self, pipe: TlsPipe, wanted: Any) -> tuple[Peer, Any]:
        """Who the other side is. Raises RemoteError when it may not enter."""
        peer = check_peer(pipe.tls, self._identity.trust, {Role.SN})
        public = keys.public_key(peer.public_key_der)
        if wanted is not None and ID.from_pubkey(public) != wanted:
            raise RemoteError(
                "SW2013", f"{peer.common_name} answered there, with another key than expected"
            )
        return peer, public


async def _refuse(pipe: TlsPipe, reason: str) -> None:
    """Tell a peer why it may not enter."""
    with trio.move_on_after(REFUSAL_LIMIT):
        try:
            await pipe.write_msg(_REFUSED + reason.encode()[:_MAX_REASON])
            # Closing a socket with unread bytes in it would overtake what was just sent.
            await pipe.run(lambda: pipe.tls.read(1))
        except (ssl.SSLError, OSError, BaseLibp2pError):
            return  # it has gone


def _printable(data: bytes) -> str:
    """What another one said, fit for a log."""
    text = data.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text) or "without a reason"


def _address(conn: Any) -> str:
    address = conn.get_remote_address()
    return f"{address[0]}:{address[1]}" if address else "an unknown address"


def _explain(error: BaseException) -> str:
    """One sentence for the log, the same words for the same cause."""
    if isinstance(error, RemoteError):
        return error.cause
    if isinstance(error, trio.TooSlowError):
        return f"no answer within {HANDSHAKE_TIMEOUT:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").upper()
        if "ALERT" in reason:
            alert = reason.rpartition("ALERT_")[2].lower().replace("_", " ")
            return f"the peer refused our certificate: {alert}"
        if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "it presented no certificate"
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return _CLOSED
        return f"TLS failed: {reason.lower().replace('_', ' ') or error}"
    if isinstance(error, ConnectionClosedError | OSError):
        return _CLOSED
    return str(error) or type(error).__name__
