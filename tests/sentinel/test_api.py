"""What the API does with requests that our own client would never send."""

from __future__ import annotations

import base64
import json
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swarm.api.client import ApiClient
from swarm.identity import Identity, Role
from tests import pki
from tests.processes import until
from tests.sentinel.harness import LiveApi


@pytest.fixture
def ca(tmp_path: Path) -> pki.Authority:
    return pki.authority(tmp_path)


@pytest.fixture
def api(tmp_path: Path, ca: pki.Authority) -> Iterator[LiveApi]:
    with LiveApi(pki.identity(tmp_path, Role.SN, ca)) as live:
        yield live


@pytest.fixture
def member(tmp_path: Path, ca: pki.Authority) -> Identity:
    return pki.identity(tmp_path, Role.SWCI, ca)


@contextmanager
def connect(api: LiveApi, identity: Identity) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", api.port), 10) as raw,
        identity.client_context().wrap_socket(raw) as secure,
    ):
        secure.settimeout(10)
        yield secure


def ask(api: LiveApi, identity: Identity, request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to raw bytes; the connection is closed by the server."""
    with connect(api, identity) as secure:
        secure.sendall(request)
        data = b""
        while chunk := secure.recv(65536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def post(body: bytes, kind: str = "application/cbor", path: str = "/v1/transactions") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def still_well(api: LiveApi, identity: Identity) -> None:
    """The node is unharmed: it answers, and commits."""
    client = ApiClient(identity, [("127.0.0.1", api.port)])
    assert client.submit("task.create", {"name": "proof"}).ok
    client.close()


def refusal(caplog: pytest.LogCaptureFixture) -> str:
    """The only refusal that was logged; it may come a moment after the client's error."""
    until(lambda: refusals(caplog), 5, "the refusal is logged")
    (only,) = refusals(caplog)
    return only


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("refused")]


def test_is_up_is_plain_text(api: LiveApi, member: Identity) -> None:
    assert ask(api, member, get("/is_up")) == (200, b"OK")


def test_a_client_of_another_version_is_told(api: LiveApi, member: Identity) -> None:
    """Nothing is done for it; who does not say what it speaks is taken as it is."""
    request = post(b"anything").replace(b"Host: x", b"Host: x\r\nSwarm-Protocol: 2")
    status, body = ask(api, member, request)
    assert status == 400
    assert json.loads(body) == {
        "code": "SW2012",
        "text": "the client speaks protocol 2, and this network node 1",
    }
    own = get("/is_up").replace(b"Host: x", b"Host: x\r\nswarm-protocol: 1")
    assert ask(api, member, own) == (200, b"OK")


def test_plain_http_is_refused_and_logged_once(
    api: LiveApi, member: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", api.port), 10) as raw:
            raw.sendall(b"GET /is_up HTTP/1.1\r\nHost: x\r\n\r\n")
            while raw.recv(4096):
                pass  # an alert, not an answer
    until(lambda: api.refusals.counts["plain_http"] == 5, 5, "all are counted")
    assert "plain HTTP" in refusal(caplog)
    still_well(api, member)


def test_no_client_certificate(
    api: LiveApi, member: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _ in range(3):
        with (
            socket.create_connection(("127.0.0.1", api.port), 10) as raw,
            context.wrap_socket(raw) as secure,
            pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        ):
            secure.sendall(get("/is_up"))
            secure.recv(100)
    until(lambda: api.refusals.counts["no_certificate"] == 3, 5, "all are counted")
    assert "no client certificate" in refusal(caplog)
    still_well(api, member)


def test_a_foreign_ca(
    tmp_path: Path, api: LiveApi, member: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = pki.identity(tmp_path / "x", Role.SN, pki.authority(tmp_path / "x", 9))
    context = stranger.client_context()
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", api.port), 10) as raw,
        context.wrap_socket(raw) as secure,
        pytest.raises(ssl.SSLError, match="UNKNOWN_CA"),
    ):
        secure.sendall(get("/is_up"))
        secure.recv(100)
    assert "its certificate" in refusal(caplog)
    still_well(api, member)


def test_tls_1_2_is_refused(api: LiveApi, member: Identity) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", api.port), 10) as raw,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        context.wrap_socket(raw)
    still_well(api, member)


def test_a_certificate_without_a_role_gets_the_reason(
    tmp_path: Path, ca: pki.Authority, api: LiveApi, member: Identity
) -> None:
    files = pki.files(tmp_path / "odd", "PRINTER-1", ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(files.cert, files.key)
    with (
        socket.create_connection(("127.0.0.1", api.port), 10) as raw,
        context.wrap_socket(raw) as secure,
    ):
        secure.sendall(get("/is_up"))
        answer = b""
        while chunk := secure.recv(4096):
            answer += chunk
    assert b" 403 " in answer and b"SW5002" in answer and b"PRINTER-1" in answer
    still_well(api, member)


@pytest.mark.parametrize(
    ("request_bytes", "status", "word"),
    [
        (post(b"\x00" * 70_000), 413, b"more than 65536"),
        (post(b"\xff\xff\xff"), 400, b"CBOR"),
        (post(b""), 400, b"empty"),
        (post(b"{}", "application/json"), 415, b"application/cbor"),
        (post(b"x", path="/v1/transactions?wait=x"), 400, b"wait"),
        (post(b"x", path="/v1/transactions?wait=9999"), 400, b"wait"),
        (get("/nothing"), 404, b"Not Found"),
        (get("/v1/state/txids"), 404, b"no table"),
        (get("/v1/state/nodes?min_height=-1"), 400, b"min_height"),
        (get("/v1/state/nodes/..%2f..%2fetc"), 404, b"SW5006"),
        (get("/v1/events?watch=secrets/x"), 400, b"not table/id"),
        (get("/v1/events?from=-5"), 400, b"from"),
        (get("/v1/events?uid=short"), 400, b"32 hexadecimal"),
        (get("/v1/bootstrap"), 403, b"SW5008"),
    ],
)
def test_bad_requests(
    api: LiveApi, member: Identity, request_bytes: bytes, status: int, word: bytes
) -> None:
    found, body = ask(api, member, request_bytes)
    assert found == status and word in body, body
    assert set(json.loads(body)) == {"code", "text"}
    still_well(api, member)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"POST /v1/transactions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/transactions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 50,
        b"GET /%ff%fe HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET /v1/state/\xc3\x28 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_garbage_inside_of_tls(api: LiveApi, member: Identity, garbage: bytes) -> None:
    with connect(api, member) as secure:
        try:
            secure.sendall(garbage)
            secure.settimeout(0.5)
            while secure.recv(65536):
                pass
        except OSError:
            pass  # a reset, an alert, or no answer: all are fine
    still_well(api, member)


def test_garbage_instead_of_tls(api: LiveApi, member: Identity) -> None:
    for garbage in (b"\x16\x03\x01\xff\xff" + b"\x00" * 200, b"\x00" * 4096, b"SSH-2.0-x\r\n", b""):
        with socket.create_connection(("127.0.0.1", api.port), 10) as raw:
            raw.sendall(garbage)
    still_well(api, member)


def test_a_body_that_never_ends_is_cut(api: LiveApi, member: Identity) -> None:
    head = b"POST /v1/transactions HTTP/1.1\r\nHost: x\r\nContent-Type: application/cbor\r\n"
    with connect(api, member) as secure:
        secure.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        try:
            while sent < 64 << 20:
                secure.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                sent += 0x10000
        except OSError:
            pass
        assert sent < 32 << 20
    still_well(api, member)


def test_a_uid_of_another_certificate_is_refused(
    api: LiveApi, member: Identity, tmp_path: Path
) -> None:
    record = {"fingerprint": "f" * 64, "type": "SL", "active": True, "host": "", "port": 0}
    api.do(lambda: setattr(api.ledger, "state", api.ledger.state.put("nodes", "a" * 32, record)))
    status, body = ask(api, member, get("/v1/events?watch=nodes/x&uid=" + "a" * 32))
    assert status == 403 and b"another certificate" in body


def test_events_from_a_height(api: LiveApi, member: Identity) -> None:
    client = ApiClient(member, [("127.0.0.1", api.port)])
    client.submit("task.create", {"name": "one"})
    client.submit("task.create", {"name": "two"})
    with connect(api, member) as secure:
        secure.sendall(get("/v1/events?from=1"))
        lines = secure.makefile("rb")
        events = []
        while len(events) < 3:
            line = lines.readline()
            if line.startswith(b"data:"):
                events.append(json.loads(line[5:]))
                if len(events) == 2:
                    client.submit("task.create", {"name": "three"})  # arrives on the open stream
    client.close()
    assert [e["height"] for e in events] == [1, 2, 3]
    assert events[1]["changed"] == ["tasks/two"]
    assert events[0]["digest"] == (1).to_bytes(32, "big").hex()
    assert events[0]["transactions"][0]["op"] == "task.create"
    assert events[0]["transactions"][0]["sender"] == member.fingerprint


def test_blocks_as_they_are(api: LiveApi, member: Identity) -> None:
    client = ApiClient(member, [("127.0.0.1", api.port)])
    for number in range(3):
        client.submit("task.create", {"name": f"task-{number}"})
    client.close()
    status, body = ask(api, member, get("/v1/blocks"))
    first = json.loads(body)
    assert (status, first["height"], len(first["blocks"])) == (200, 3, 3)
    assert "genesis" in first and first["recoveries"] == []
    block, certificate = (base64.b64decode(text) for text in first["blocks"][1])
    assert block == b"block:" + api.ledger.blocks[2].block.transactions[0]
    assert certificate == b"certificate"
    rest = json.loads(ask(api, member, get("/v1/blocks?after=2"))[1])
    assert rest == {"height": 3, "blocks": [first["blocks"][2]]}


def test_openapi_names_every_route(api: LiveApi, member: Identity) -> None:
    status, body = ask(api, member, get("/v1/openapi.json"))
    paths = json.loads(body)["paths"]
    assert status == 200
    assert {
        "/is_up",
        "/metrics",
        "/v1/version",
        "/v1/blocks",
        "/v1/bootstrap",
        "/v1/status",
        "/v1/state/{table}",
        "/v1/state/{table}/{key}",
        "/v1/presence",
        "/v1/look-back",
        "/v1/transactions",
        "/v1/events",
    } == set(paths)


def test_metrics_count_requests_and_refusals(api: LiveApi, member: Identity) -> None:
    still_well(api, member)
    ask(api, member, post(b"\xff"))
    status, body = ask(api, member, get("/metrics"))
    text = body.decode()
    assert status == 200
    assert 'swarm_transactions_total{outcome="ok"} 1.0' in text
    assert 'swarm_transactions_total{outcome="inadmissible"} 1.0' in text
    assert 'swarm_api_refusals_total{kind="SW3001"} 1.0' in text
    assert 'path="/v1/transactions",status="200"' in text
    assert "swarm_submit_seconds_bucket" in text


def test_one_certificate_cannot_take_all_connections(
    api: LiveApi, member: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentinel.server.MAX_OF_ONE", 3)
    held = [connect(api, member) for _ in range(3)]
    try:
        for one in held:
            secure = one.__enter__()
            secure.sendall(b"GET /is_up HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in secure.recv(4096)
        assert ask(api, member, get("/is_up"))[0] == 429
    finally:
        for one in held:
            one.__exit__(None, None, None)


def test_a_reader_that_stops_does_not_stop_the_server(api: LiveApi, member: Identity) -> None:
    logging.getLogger("swarm.api").debug("the streams below are never read")
    held = []
    for _ in range(5):
        one = connect(api, member)
        secure = one.__enter__()
        secure.sendall(get("/v1/events?from=0"))
        held.append(one)
    still_well(api, member)
    api.stop()  # within 10 s, whatever the clients do
    for one in held:
        one.__exit__(None, None, None)
