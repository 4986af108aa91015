"""HTTP/1.1 over one connection: requests come in whole and bounded, answers go out.

h11 takes the protocol apart; what is here is the socket's side of it, and the bounds.
"""

from __future__ import annotations

import json
import select
import ssl
from collections.abc import Callable
from typing import NamedTuple

import h11

MAX_HEAD = 64 * 1024  # bytes of a request's first line and fields; a command is far shorter
MAX_BODY = 1024 * 1024  # bytes: a task definition is a few thousand
MAX_WASTE = 8 * MAX_BODY  # bytes of a refused body that are read away, so that the answer arrives
LINGER = 2.0  # seconds without a byte of it
CHUNK = 64 * 1024
JSON, TEXT = "application/json", "text/plain; charset=utf-8"


class Request(NamedTuple):
    """One request. `path` and `query` are as they came, with their escapes."""

    method: str
    path: str
    query: str
    kind: str  # of the body, as the client says
    body: bytes


class Answer(NamedTuple):
    """One answer."""

    status: int
    body: bytes
    kind: str = JSON
    allow: str = ""  # methods, in an answer to a wrong one


def content(lines: list[str], status: int = 200, allow: str = "") -> Answer:
    """The form that all answers to commands have."""
    return Answer(status, json.dumps({"CONTENT": lines}).encode(), JSON, allow)


def converse(sock: ssl.SSLSocket, respond: Callable[[Request], Answer]) -> None:
    """Answer one request after the other, until an end. Raises OSError when the client is gone."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    while True:
        try:
            request = _receive(connection, sock)
        except h11.RemoteProtocolError as fault:
            text = f"ERROR : SW8042: this is no request that can be read: {fault}"
            request = content([text], fault.error_status_hint)
        if request is None:
            return
        if isinstance(request, Answer):
            _send(connection, sock, request, last=True)
            _drain(sock)
            return
        _send(connection, sock, respond(request))
        if connection.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return
        connection.start_next_cycle()


def left(sock: ssl.SSLSocket) -> bool:
    """Whether the client has gone while it waits for an answer.

    It says nothing before that, as clients do not send on after a POST (RFC 9112, 9.3.2): what can
    be read now is the end.
    """
    try:
        return bool(sock.pending() or select.select([sock], [], [], 0)[0])
    except (OSError, ValueError):
        return True


def _receive(connection: h11.Connection, sock: ssl.SSLSocket) -> Request | Answer | None:
    """The next request, the refusal of one that is too large, or None at the end."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                sock.sendall(
                    connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                )
            connection.receive_data(sock.recv(CHUNK))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                text = f"ERROR : SW8042: the body of a request has at most {MAX_BODY} bytes"
                return content([text], 413)
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None, "a message begins with its head"
            return _request(head, bytes(body))
        else:  # closed or paused
            return None


def _request(head: h11.Request, body: bytes) -> Request:
    path, _, query = head.target.decode("ascii").partition("?")
    kind = next((value for name, value in head.headers if name == b"content-type"), b"")
    return Request(head.method.decode("ascii"), path, query, kind.decode("latin-1"), body)


def _send(
    connection: h11.Connection, sock: ssl.SSLSocket, answer: Answer, *, last: bool = False
) -> None:
    headers = [
        ("Content-Type", answer.kind),
        ("Content-Length", str(len(answer.body))),
        ("Cache-Control", "no-store"),
    ]
    if answer.allow:
        headers.append(("Allow", answer.allow))
    if answer.status == 503:
        headers.append(("Retry-After", "1"))
    if last:
        headers.append(("Connection", "close"))
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return  # nothing can be said any more
    response = h11.Response(status_code=answer.status, headers=headers)
    parts = (response, h11.Data(data=answer.body), h11.EndOfMessage())
    sock.sendall(b"".join(connection.send(part) or b"" for part in parts))


def _drain(sock: ssl.SSLSocket) -> None:
    """Read what still comes, as closing over it would take our answer back."""
    sock.settimeout(LINGER)
    wasted = 0
    while wasted < MAX_WASTE and (data := sock.recv(CHUNK)):
        wasted += len(data)
