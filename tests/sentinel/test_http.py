"""The plain part of HTTP/1.1, and what is left to hypercorn."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.http import MAX_BODY, parse
from swarm.identity import Identity
from tests.sentinel.harness import LiveApi
from tests.sentinel.test_api import api, ca, connect, member

__all__ = ["api", "ca", "member"]  # fixtures

PLAIN = b"GET /v1/status?x=1 HTTP/1.1\r\nHost: sn\r\nAccept: */*"


def test_a_plain_head_is_read() -> None:
    request = parse(PLAIN + b"\r\nContent-Length: 17\r\nConnection: close")
    assert request is not None
    assert (request.method, request.target) == ("GET", b"/v1/status?x=1")
    assert (request.length, request.keep) == (17, False)
    assert (b"accept", b"*/*") in request.headers


@pytest.mark.parametrize(
    "head",
    [
        b"GET /x HTTP/1.0\r\nHost: sn",
        b"PUT /x HTTP/1.1\r\nHost: sn",
        b"GET x HTTP/1.1\r\nHost: sn",
        b"GET /a b HTTP/1.1\r\nHost: sn",
        b"GET /x HTTP/1.1",
        b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b",
        b"PRI * HTTP/2.0",
        PLAIN + b"\r\nTransfer-Encoding: chunked",
        PLAIN + b"\r\nTransfer-Encoding : chunked",
        PLAIN + b"\r\nContent-Length: 1\r\nContent-Length: 2",
        PLAIN + b"\r\nContent-Length: +1",
        PLAIN + b"\r\nContent-Length: -1",
        PLAIN + b"\r\nContent-Length: 1, 1",
        PLAIN + b"\r\nContent-Length: %d" % (MAX_BODY + 1),
        PLAIN + b"\r\nContent-Length:",
        PLAIN + b"\r\nExpect: 100-continue",
        PLAIN + b"\r\nUpgrade: h2c",
        PLAIN + b"\r\nConnection: upgrade",
        PLAIN + b"\r\n folded: yes",
        PLAIN + b"\r\nno colon",
        PLAIN + b"\r\nbare: cr\rx",
        PLAIN + b"\r\nbare: lf\nx",
        PLAIN + b"\r\nzero: \x00",
        b"",
    ],
)
def test_everything_unusual_is_left_to_the_general_server(head: bytes) -> None:
    assert parse(head) is None


@given(st.binary(max_size=300))
def test_no_head_makes_it_fail(head: bytes) -> None:
    parse(head)
    parse(PLAIN + b"\r\n" + head)


def answers(api: LiveApi, member: Identity, data: bytes, count: int) -> list[tuple[int, bytes]]:
    """Send bytes over one connection, and read so many answers with a length."""
    found = []
    with connect(api, member) as secure:
        secure.sendall(data)
        read = b""
        while len(found) < count:
            head, end, rest = read.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            if end and len(rest) >= int(length):
                found.append((int(head[9:12]), rest[: int(length)]))
                read = rest[int(length) :]
                continue
            more = secure.recv(65536)
            assert more, (found, read)
            read += more
    return found


def test_requests_in_one_piece_are_answered_in_order(api: LiveApi, member: Identity) -> None:
    one = b"GET /v1/version HTTP/1.1\r\nHost: sn\r\n\r\n"
    other = b"GET /v1/state/nothing HTTP/1.1\r\nHost: sn\r\n\r\n"
    assert [status for status, _ in answers(api, member, one + other + one, 3)] == [200, 404, 200]


def test_the_connection_goes_on_after_something_unusual(api: LiveApi, member: Identity) -> None:
    plain = b"GET /v1/version HTTP/1.1\r\nHost: sn\r\n\r\n"
    chunked = (
        b"POST /v1/transactions HTTP/1.1\r\nHost: sn\r\nContent-Type: application/cbor\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    got = answers(api, member, plain + chunked, 2)
    assert [status for status, _ in got] == [200, 400]
    assert json.loads(got[1][1])["code"] == "SW3001"


def test_a_body_that_nobody_read_does_not_become_a_request(api: LiveApi, member: Identity) -> None:
    hidden = b"GET /v1/status HTTP/1.1\r\nHost: sn\r\n\r\n"
    head = b"GET /v1/version HTTP/1.1\r\nHost: sn\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    plain = b"GET /is_up HTTP/1.1\r\nHost: sn\r\n\r\n"
    got = answers(api, member, head + hidden + plain, 2)
    assert [status for status, _ in got] == [200, 200]
    assert got[1][1] == b"OK"
