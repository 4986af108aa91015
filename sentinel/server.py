"""The HTTPS listener of a network node: who may come in, and how many.

hypercorn's own listener does not tell an application who the client is: it ignores the TLS
connection after the handshake. So the accepting, the handshake and the look at the certificate are
done here. Plain HTTP requests are served by `sentinel.http`; a connection with anything else on it
is handed to hypercorn. Either gives each request a copy of a per-connection dictionary (the ASGI
`state`); the verified `Peer` travels in that, and FastAPI shows it as `request.state.peer`.

A connection that fails the handshake is closed with the TLS alert that says why. One whose
certificate is genuine but may not enter (revoked, without a role) gets that as the answer to each
of its requests, as TLS 1.3 has no way left to say it.
"""

from __future__ import annotations

import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from sentinel.groups import leaves
from sentinel.http import Connection
from sentinel.limits import Addresses, Crowded
from sentinel.refusals import Refusals
from sentinel.tls import TlsStream, tune
from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, check_peer
from swarm.identity.tls import presented_chain
from swarm.identity.trust import BARRED

log = logging.getLogger("swarm.api")

HANDSHAKE_LIMIT = 5.0  # seconds
KEEP_ALIVE = 75.0  # seconds that an idle connection is kept, so that clients need not shake hands
DEAD_AFTER = 15.0  # seconds without an acknowledgement from the client's host
MAX_STRANGERS = 256  # connections in their handshake, or waiting for it
MAX_CONNECTIONS = 1024  # in all
MAX_OF_ONE = 128  # with the same certificate; a host's learners may share one
SPARE = 16  # more than that, which are told so

Application = Callable[..., Awaitable[None]]


class ApiServer:
    """Listens, admits clients by certificate and serves an ASGI application to them."""

    def __init__(self, app: Application, identity: Identity, refusals: Refusals) -> None:
        self._app = app
        self._identity = identity
        self._refusals = refusals
        self._tls = identity.server_context()
        self._strangers = 0
        self._addresses = Addresses(trio.current_time)
        self._open: set[trio.SocketStream] = set()
        self._admitted: dict[trio.SocketStream, tuple[str, tuple[bytes, ...]]] = {}
        self._by_certificate: Counter[str] = Counter()
        self._config = Config()
        self._config.errorlog = None
        self._config.accesslog = None
        self._config.include_server_header = False
        self._config.keep_alive_timeout = KEEP_ALIVE
        self._config.keep_alive_max_requests = 1_000_000

    @property
    def connections(self) -> int:
        """Connections whose client was admitted."""
        return self._by_certificate.total()

    def renew(self) -> None:
        """Use the identity's present certificate and CAs for new connections."""
        self._tls = self._identity.server_context()

    def audit(self) -> None:
        """Close the connections of those who may not enter any more: revoked, expired, barred, of a
        CA that was removed. They hear why when they return."""
        judged: dict[tuple[bytes, ...], str] = {}
        for stream, (who, chain) in list(self._admitted.items()):
            if chain not in judged:
                judged[chain] = self._judge_again(who, chain)
            if judged[chain]:
                del self._admitted[stream]
                stream.socket.close()

    def _judge_again(self, who: str, chain: tuple[bytes, ...]) -> str:
        try:
            check_peer(chain, self._identity.trust, None)
        except RemoteError as fault:
            log.warning("connections from %s are closed: %s", who, fault.cause)
            return fault.cause
        return ""

    def abort(self) -> None:
        """Close all connections at once, whatever they are doing; for the end of the node.

        hypercorn shields its writes from cancellation, so a client that does not read could
        otherwise delay the end by SEND_LIMIT.
        """
        for stream in self._open:
            stream.socket.close()

    async def serve(
        self,
        host: str,
        port: int,
        *,
        task_status: Any = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; reports the port when it listens.

        Raises LocalError SW5102 when the port cannot be opened.
        """
        try:
            listeners = await trio.open_tcp_listeners(port, host=host, backlog=256)
        except OSError as fault:
            raise LocalError(
                "SW5102", f"cannot listen on {host}:{port}: {fault.strerror or fault}"
            ) from fault
        context = WorkerContext(None)

        async def connection(stream: trio.SocketStream) -> None:
            self._open.add(stream)
            try:
                await self._admit(stream, context)
            except BaseException as fault:
                # Whatever a client sends must not end the node.
                causes = list(leaves(fault))
                if any(isinstance(c, (KeyboardInterrupt, SystemExit)) for c in causes):
                    raise
                own = [c for c in causes if not isinstance(c, trio.Cancelled)]
                for cause in own:
                    log.error("a connection failed unexpectedly", exc_info=cause)
                if not own:
                    raise
            finally:
                self._open.discard(stream)

        task_status.started(listeners[0].socket.getsockname()[1])
        try:
            await trio.serve_listeners(connection, listeners)
        finally:
            await context.terminated.set()

    async def _admit(self, raw: trio.SocketStream, context: WorkerContext) -> None:
        try:
            who = str(raw.socket.getpeername()[0])
        except OSError:
            await raw.aclose()
            return
        if self._strangers >= MAX_STRANGERS or self.connections >= MAX_CONNECTIONS:
            self._refusals.note(who, "crowded", "too many connections")
            await raw.aclose()
            return
        tune(raw.socket, DEAD_AFTER)
        stream = TlsStream(raw, self._tls)
        self._strangers += 1
        try:
            async with self._addresses.turn(who):
                state = await self._shake_hands(stream, who)
        except Crowded as fault:
            self._refusals.note(who, "crowded", fault.text)
            await raw.aclose()
            return
        finally:
            self._strangers -= 1
        if state is None:
            with trio.CancelScope(shield=True):
                await raw.aclose()
            return
        key = state["key"]
        held = self._by_certificate[key]
        if held >= MAX_OF_ONE + SPARE:
            self._refusals.note(who, "crowded", "too many connections with one certificate")
            await stream.aclose()
            return
        if held >= MAX_OF_ONE and not state["refused"]:
            # It may say one thing and hears why it is turned away.
            state["refused"] = f"this certificate has {MAX_OF_ONE} connections already"
        self._by_certificate[key] += 1
        if state["peer"] is not None:
            self._admitted[raw] = (who, tuple(presented_chain(stream.tls)))
        try:
            if await Connection(self._app, stream, state).serve(KEEP_ALIVE):
                await stream.aclose()
            else:
                wrapped = ASGIWrapper(self._app)
                await TCPServer(wrapped, self._config, context, ConnectionState(state), stream)
        finally:
            self._admitted.pop(raw, None)
            self._by_certificate[key] -= 1
            if not self._by_certificate[key]:
                del self._by_certificate[key]
            with trio.CancelScope(shield=True):
                await raw.aclose()

    async def _shake_hands(self, stream: TlsStream, who: str) -> dict[str, Any] | None:
        """Return the connection's state for the application; None when it must be closed."""
        try:
            with trio.fail_after(HANDSHAKE_LIMIT):
                await stream.do_handshake()
        except trio.TooSlowError:
            self._refusals.note(who, "handshake", "no TLS handshake within 5 s")
            return None
        except ssl.SSLError as fault:
            kind, why = _handshake_failure(fault)
            self._refusals.note(who, kind, why)
            await stream.linger()
            return None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return None  # a port check, or a client that has refused us: it knows why
        try:
            peer = check_peer(stream.tls, self._identity.trust, None)
        except RemoteError as fault:
            self._refusals.note(who, "certificate", str(fault))
            # An evicted member hears that, so that it does not come again.
            code = fault.code if fault.code == BARRED else "SW5002"
            return {
                "peer": None, "refused": fault.cause, "code": code, "key": who, "address": who,
            }  # fmt: skip
        return {
            "peer": peer, "refused": "", "code": "", "key": peer.holder, "address": who,
        }  # fmt: skip


def _handshake_failure(fault: ssl.SSLError) -> tuple[str, str]:
    """Kind and sentence for a failed handshake."""
    reason = fault.reason or str(fault)
    if isinstance(fault, ssl.SSLCertVerificationError):
        return "certificate", f"its certificate: {fault.verify_message}"
    if reason == "HTTP_REQUEST":
        return "plain_http", "it speaks plain HTTP; this port is HTTPS with client certificates"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "no_certificate", "it presented no client certificate"
    if "ALERT" in reason:
        return "refused_us", f"it does not accept this node's certificate ({reason})"
    return "not_tls", f"it does not speak TLS 1.3 ({reason})"
