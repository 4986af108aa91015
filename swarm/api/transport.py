"""HTTPS exchanges with one SN, and what their failures mean.

The standard library's HTTP client does this: a learner may use 60 MB besides its model, and a
larger client library alone would take a fifth of that.

The hard part is telling failures apart. Under TLS 1.3 a client has finished its handshake before
the server has looked at the client's certificate, so a refusal arrives later: as an alert on the
first read, or, when the server's close overtakes it, as a bare disconnect. `_why_disconnected`
settles this: it connects once more and says nothing. A server that accepts us waits for our
request; one that refuses us closes at once.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from swarm.api.models import PROTOCOL, PROTOCOL_HEADER, Endpoint
from swarm.errors import RemoteError
from swarm.identity import Identity, Role, check_peer
from swarm.identity.tls import Contexts, presented_chain
from swarm.identity.trust import BARRED

log = logging.getLogger("swarm.api")

CONNECT_TIMEOUT = 5.0  # seconds for TCP and TLS
PROBE_WAIT = 1.0  # seconds in which a server that refuses us has closed the connection
MAX_IDLE = 4  # kept connections to one SN
MAX_ANSWER = 64 << 20  # bytes of one JSON answer
OUR_PROTOCOL = {PROTOCOL_HEADER: str(PROTOCOL)}
MAX_RETRY_AFTER = 60.0  # seconds; no SN may silence its clients for longer

# The alerts by which TLS 1.3 servers refuse a client's certificate (RFC 8446 section 6.2).
_CERTIFICATE_ALERTS = {
    "UNKNOWN_CA": "it does not trust the CA that issued it",
    "CERTIFICATE_REQUIRED": "it wants a certificate and got none",
    "CERTIFICATE_EXPIRED": "it has expired there",
    "CERTIFICATE_REVOKED": "it has been revoked",
    "CERTIFICATE_UNKNOWN": "it could not be verified there",
    "BAD_CERTIFICATE": "it is malformed or not valid yet",
    "UNSUPPORTED_CERTIFICATE": "its purpose does not fit",
    "ACCESS_DENIED": "its role may not enter",
    "DECRYPT_ERROR": "the key does not fit the certificate",
    "INSUFFICIENT_SECURITY": "its key is too weak",
}


class Answer(NamedTuple):
    """Status and JSON value of one exchange.

    `repeated`: an earlier attempt failed, and may have had its effect nevertheless. `retry_after`:
    seconds after which the SN wants to be asked again, 0 when it did not say.
    """

    status: int
    value: Any
    text: str
    repeated: bool = False
    retry_after: float = 0.0


def code_of(answer: Answer) -> str:
    """Return the error code inside an answer, "" when it holds none."""
    code = answer.value.get("code") if isinstance(answer.value, dict) else None
    return code if isinstance(code, str) else ""


class Unreachable(RemoteError):
    """This SN gave no answer; another may."""


class Refused(RemoteError):
    """The SN does not talk to us: waiting will not help."""


class CertificateRefused(Refused):
    """It does not accept our certificate."""


class OtherProtocol(Refused):
    """It is of a version that does not understand ours."""


class Transport:
    """Kept connections to one SN; may be used by several threads at once."""

    def __init__(self, identity: Identity, endpoint: Endpoint, timeout: float) -> None:
        self.endpoint = endpoint
        self._identity = identity
        self._timeout = timeout
        self._idle: list[http.client.HTTPSConnection] = []
        self._streams: set[EventStream] = set()
        # What each server has presented; asking again would disturb the thread that reads.
        self._chains: WeakKeyDictionary[http.client.HTTPSConnection, list[bytes]]
        self._chains = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._contexts = Contexts(identity, server=False)

    def exchange(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Send one request, and return whatever the SN answers.

        A kept connection that the SN has closed meanwhile is replaced once; all requests of this
        API may be repeated. Raises Unreachable, Refused, or RemoteError SW5003 when
        the server is not an SN that we trust.
        """
        limit = timeout or self._timeout
        repeated = False
        kept = self._take()
        if kept is not None:
            try:
                return self._converse(kept, method, path, body, headers or {}, limit)
            except (OSError, http.client.HTTPException) as fault:
                kept.close()
                if isinstance(fault, TimeoutError):
                    raise self._failure(fault) from fault
                repeated = True
        fresh = self.connect(limit)
        try:
            answer = self._converse(fresh, method, path, body, headers or {}, limit)
            return answer._replace(repeated=repeated)
        except (OSError, http.client.HTTPException) as fault:
            fresh.close()
            raise self._failure(fault) from fault

    def connect(self, timeout: float) -> http.client.HTTPSConnection:
        """Open a connection whose server is a trusted SN; reads time out after `timeout` s."""
        connection = http.client.HTTPSConnection(
            self.endpoint.host,
            self.endpoint.port,
            context=self._tls(),
            timeout=min(CONNECT_TIMEOUT, timeout),
        )
        try:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            chain = self._chains[connection] = presented_chain(connection.sock)
            check_peer(chain, self._identity.trust, {Role.SN})
            connection.sock.settimeout(timeout)
        except RemoteError as fault:
            connection.close()
            raise RemoteError("SW5003", f"{self.endpoint}: {fault.cause}") from fault
        except (OSError, http.client.HTTPException) as fault:
            connection.close()
            raise self._failure(fault) from fault
        return connection

    def stream(self, path: str, timeout: float) -> EventStream:
        """Open a server-sent event stream; `timeout` seconds without a byte end it."""
        connection = self.connect(timeout)
        try:
            headers = {**OUR_PROTOCOL, "Accept": "text/event-stream"}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            self._check_protocol(connection, response)
            if response.status != 200:
                text = _text_of(response.read(MAX_ANSWER))
                raise Unreachable("SW5004", f"{self.endpoint}: {response.status} {text}")
        except (OSError, http.client.HTTPException) as fault:
            connection.close()
            raise self._failure(fault) from fault
        except Unreachable:
            connection.close()
            raise
        stream = EventStream(connection, response, self._streams.discard)
        self._streams.add(stream)
        return stream

    def audit(self) -> None:
        """End the connections to an SN whose certificate is no longer good: revoked, expired."""
        with self._lock:
            idle = [kept for kept in self._idle if not self._trusted(kept)]
            self._idle = [kept for kept in self._idle if kept not in idle]
        for connection in idle:
            connection.close()
        for stream in tuple(self._streams):
            if not self._trusted(stream.connection):
                stream.abort()

    def _trusted(self, connection: http.client.HTTPSConnection) -> bool:
        try:
            check_peer(self._chains[connection], self._identity.trust, {Role.SN})
        except RemoteError as fault:
            log.warning("a connection to %s is closed: %s", self.endpoint, fault.cause)
            return False
        return True

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _tls(self) -> ssl.SSLContext:
        """Return the context for the certificate and the CAs of this moment."""
        self._identity.trust.reload()
        return self._contexts.current

    def _take(self) -> http.client.HTTPSConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _converse(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> Answer:
        connection.sock.settimeout(timeout)
        connection.request(method, path, body=body, headers={**OUR_PROTOCOL, **headers})
        response = connection.getresponse()
        self._check_protocol(connection, response)
        data = response.read(MAX_ANSWER)
        if response.will_close or not response.isclosed():
            connection.close()
        else:
            with self._lock:
                keep = len(self._idle) < MAX_IDLE
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()
        after = _seconds(response.getheader("Retry-After"))
        answer = Answer(response.status, _json_of(data), _text_of(data), retry_after=after)
        if answer.status == 403 and code_of(answer) in ("SW5002", BARRED):
            # Its TLS layer let us in, its door did not: revoked there, without a role, or evicted.
            raise CertificateRefused(code_of(answer), f"{self.endpoint}: {answer.text}")
        return answer

    def _check_protocol(
        self, connection: http.client.HTTPSConnection, response: http.client.HTTPResponse
    ) -> None:
        """Whoever speaks another protocol cannot be understood. Raises OtherProtocol."""
        theirs = response.getheader(PROTOCOL_HEADER)
        if theirs is not None and theirs != str(PROTOCOL):
            connection.close()
            text = f"{self.endpoint} speaks protocol {theirs[:20]}, and this node {PROTOCOL}"
            raise OtherProtocol("SW2012", text)

    def _failure(self, fault: Exception) -> RemoteError:
        """Turn a failed exchange into the error that names its cause."""
        where = str(self.endpoint)
        if isinstance(fault, ssl.SSLCertVerificationError):
            return RemoteError("SW5003", f"{where}: {fault.verify_message}")
        refused = _refusal_in(fault)
        if refused is None and isinstance(fault, _DISCONNECTS):
            refused = self._why_disconnected()
        if refused is not None:
            return CertificateRefused("SW5002", f"{where} refused our certificate: {refused}")
        if isinstance(fault, ssl.SSLError):
            return Unreachable("SW5001", f"{where} does not speak our TLS ({fault.reason})")
        if isinstance(fault, TimeoutError):
            return Unreachable("SW5001", f"{where} did not answer in time")
        return Unreachable("SW5001", f"{where}: {_plain_cause(fault)}")

    def _why_disconnected(self) -> str | None:
        """Ask the server, by a silent connection, if it is our certificate that it refuses."""
        context = self._tls()
        try:
            raw = socket.create_connection(self.endpoint, CONNECT_TIMEOUT)
        except OSError:
            return None
        with raw:
            try:
                secure = context.wrap_socket(raw, server_hostname=self.endpoint.host)
            except OSError as fault:
                return _refusal_in(fault)
            with secure:
                secure.settimeout(PROBE_WAIT)
                try:
                    secure.recv(1)
                except TimeoutError:
                    return None  # it waits for a request: it has accepted us
                except OSError as fault:
                    return _refusal_in(fault) or self._own_guess()
        return self._own_guess()

    def _own_guess(self) -> str:
        """Say what may be wrong with our certificate when the server gave no reason."""
        if self._identity.not_after < datetime.now(timezone.utc):
            return f"it expired on {self._identity.not_after:%Y-%m-%d %H:%M} UTC"
        return "it closed the connection without giving a reason (unknown CA, or wrong role?)"


class EventStream:
    """Lines of one event stream. `abort` may be called from another thread."""

    def __init__(
        self,
        connection: http.client.HTTPSConnection,
        response: http.client.HTTPResponse,
        on_close: Callable[[EventStream], None],
    ) -> None:
        self.connection = connection
        self._socket: ssl.SSLSocket = connection.sock
        self._on_close = on_close
        self._response = response

    def readline(self) -> bytes:
        """Return the next line, b"" at the end; raises OSError or HTTPException."""
        return self._response.readline(MAX_ANSWER)

    def abort(self) -> None:
        """Wake up a blocked `readline`: it returns or fails at once."""
        try:
            # The plain socket's method: SSLSocket.shutdown would take the TLS object away from
            # under a thread that reads.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return  # already closed: nobody is blocked

    def close(self) -> None:
        """Release the connection; only by the thread that reads."""
        self._on_close(self)
        self._response.close()
        self.connection.close()


_DISCONNECTS = (
    ConnectionResetError,
    BrokenPipeError,
    ConnectionAbortedError,
    http.client.RemoteDisconnected,
    http.client.IncompleteRead,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


def _refusal_in(fault: Exception) -> str | None:
    """Return the words for a certificate alert inside an SSL error, else None."""
    if not isinstance(fault, ssl.SSLError) or not isinstance(fault.reason, str):
        return None
    for alert, words in _CERTIFICATE_ALERTS.items():
        if fault.reason.endswith(f"ALERT_{alert}"):
            return words
    return None


def _plain_cause(fault: Exception) -> str:
    if isinstance(fault, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(fault, socket.gaierror):
        return "unknown host name"
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return str(fault) or type(fault).__name__


def _seconds(value: str | None) -> float:
    """Retry-After in its form of seconds (RFC 9110 10.2.3), bounded; 0 for none."""
    return min(MAX_RETRY_AFTER, float(value)) if value and value.isdecimal() else 0.0


def _json_of(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _text_of(data: bytes) -> str:
    value = _json_of(data)
    if isinstance(value, dict):
        for name in ("text", "detail"):
            if isinstance(value.get(name), str) and value[name]:
                return str(value[name][:500])
    return data[:500].decode("utf-8", "replace")
