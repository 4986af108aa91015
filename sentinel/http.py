"""HTTP/1.1 for the plain requests that clients of the API send, and nothing more.

A general HTTP server spends more on a request than the ledger on a transaction. Here is the part of
RFC 9112 that a kept connection with small requests needs: a head in one piece, a body of known
length, one request after the other. Whatever is unusual (a body in chunks or a large one, another
version or method, an upgrade, `Expect`, a head that is not well-formed) is left to hypercorn, which
takes over the connection from that request on and knows the rest of the RFCs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

import trio
from starlette.types import Message, Scope

from sentinel.tls import TlsStream

MAX_HEAD = 16 * 1024  # bytes; more is left to hypercorn, which refuses it
MAX_BODY = 64 * 1024
MAX_EARLY = 64 * 1024  # bytes of following requests that are kept during one
HEAD_LIMIT = 10.0  # seconds from the first byte of a head to its last one
BODY_LIMIT = 10.0
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)

_REQUEST = re.compile(rb"(GET|POST) (/[\x21-\x7e]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff\t]*?)[ \t]*")
_UNUSUAL = frozenset(
    (b"transfer-encoding", b"upgrade", b"expect", b"te", b"trailer", b"http2-settings")
)
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}

Application = Callable[..., Awaitable[None]]


class Request(NamedTuple):
    """A head that is understood."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    length: int
    keep: bool


def parse(head: bytes) -> Request | None:
    """Read a head without its empty line; None for anything out of the ordinary."""
    first, *lines = head.split(b"\r\n")
    match = _REQUEST.fullmatch(first)
    if match is None:
        return None
    headers: list[tuple[bytes, bytes]] = []
    length, hosts, keep = -1, 0, True
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            return None
        name, value = found[1].lower(), found[2]
        if name in _UNUSUAL:
            return None
        if name == b"content-length":
            if length >= 0 or not value.isdigit() or len(value) > 6 or int(value) > MAX_BODY:
                return None
            length = int(value)
        elif name == b"host":
            hosts += 1
        elif name == b"connection":
            if value.lower() not in (b"close", b"keep-alive"):
                return None
            keep = keep and value.lower() == b"keep-alive"
        headers.append((name, value))
    if hosts != 1:
        return None
    return Request(match[1].decode(), match[2], headers, max(0, length), keep)


class Connection:
    """Serves an ASGI application on one connection. `state` is what each request's scope gets."""

    def __init__(self, app: Application, stream: TlsStream, state: dict[str, Any]) -> None:
        self._app = app
        self._stream = stream
        self._state = state
        self._read = bytearray()
        self.gone = False

    async def serve(self, idle: float) -> bool:
        """Serve until the connection ends (True), or until a request that is not for here (False).

        What was read of that one goes back to the stream. `idle`: seconds that a connection
        without requests is kept.
        """
        while True:
            head = await self._head(idle)
            if head is None:
                return True
            request = parse(head) if head else None
            if request is None:
                self._stream.unread(bytes(self._read))
                return False
            del self._read[: len(head) + 4]
            exchange = _Exchange(self, request)
            await self._app(self._scope(request), exchange.receive, exchange.send)
            if not await exchange.finished():
                return True

    async def _head(self, idle: float) -> bytes | None:
        """The next head; b"" when it is too large, None when the connection is over."""
        limit = HEAD_LIMIT if self._read else idle
        while True:
            with trio.move_on_after(limit) as scope:
                while (end := self._read.find(b"\r\n\r\n")) < 0:
                    if len(self._read) > MAX_HEAD:
                        return b""
                    before = len(self._read)
                    if not await self.more():
                        return None
                    if not before:
                        break  # from here on there is less time
                else:
                    return bytes(self._read[:end])
            if scope.cancelled_caught:
                return None
            limit = HEAD_LIMIT

    async def more(self) -> bool:
        """Read something; False at the end."""
        try:
            data = await self._stream.receive_some()
        except BROKEN:
            data = b""
        if not data:
            self.gone = True
            return False
        self._read += data
        return True

    async def write(self, data: bytes) -> None:
        """Send; when the client is gone, `gone` says so."""
        if self.gone:
            return
        try:
            await self._stream.send_all(data)
        except BROKEN:
            self.gone = True

    def body(self, length: int) -> bytes | None:
        """Take a body of that length, or None while it is not there."""
        if len(self._read) < length:
            return None
        data = bytes(self._read[:length])
        del self._read[:length]
        return data

    @property
    def early(self) -> int:
        """Bytes that are read and belong to no request yet."""
        return len(self._read)

    def _scope(self, request: Request) -> Scope:
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "https",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": request.headers,
            "client": None,
            "server": None,
            "state": dict(self._state),
            "extensions": {},
        }


class _Exchange:
    """One request and its answer, as ASGI's `receive` and `send`."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self._read = False  # the body was taken
        self._start: Message | None = None
        self._begun = False
        self._chunked = False
        self._keep = request.keep
        self._complete = False

    async def receive(self) -> Message:
        """The body at once, and after it the end of the connection."""
        if not self._read:
            body = await self._body()
            if body is not None:
                return {"type": "http.request", "body": body, "more_body": False}
        while not self._connection.gone and self._connection.early <= MAX_EARLY:
            await self._connection.more()
        return {"type": "http.disconnect"}

    async def _body(self) -> bytes | None:
        self._read = True
        while (body := self._connection.body(self._request.length)) is None:
            if not await self._connection.more():
                return None
        return body

    async def send(self, message: Message) -> None:
        """Put an answer together; its head leaves with the first part of its body."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        assert self._start is not None, "a body comes after its head"
        body, more = message.get("body", b""), message.get("more_body", False)
        data = b"" if self._begun else self._head(body, more)
        self._begun = True
        if self._chunked:
            data += b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            data += b"" if more else b"0\r\n\r\n"
        else:
            data += body
        self._complete = not more
        if data:
            await self._connection.write(data)

    def _head(self, body: bytes, more: bool) -> bytes:
        assert self._start is not None
        status = self._start["status"]
        lines = [b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b""))]
        sized = False
        for name, value in self._start.get("headers", ()):
            lower = name.lower()
            sized = sized or lower == b"content-length"
            if lower == b"connection" and value.lower() == b"close":
                self._keep = False
                continue
            lines.append(b"%b: %b" % (name, value))
        if not sized and more:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        elif not sized:
            lines.append(b"content-length: %d" % len(body))
        if not self._keep:
            lines.append(b"connection: close")
        lines.append(b"date: " + _date())
        return b"\r\n".join(lines) + b"\r\n\r\n"

    async def finished(self) -> bool:
        """Whether the connection can take another request."""
        if not self._complete or not self._keep or self._connection.gone:
            return False
        if not self._read:
            with trio.move_on_after(BODY_LIMIT):
                return await self._body() is not None
            return False
        return True


_dated = (0, b"")


def _date() -> bytes:
    """The present time for a Date field; made once a second."""
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = (now, formatdate(now, usegmt=True).encode())
    return _dated[1]
