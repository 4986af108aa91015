"""The client against the real API server (over a ledger in memory)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.api import transport
from swarm.api.client import ApiClient
from swarm.api.models import VerdictError
from swarm.api.transport import CertificateRefused
from swarm.errors import RemoteError
from swarm.identity import Role
from tests import pki
from tests.processes import free_port, until
from tests.sentinel.harness import LiveApi


@pytest.fixture
def ca(tmp_path: Path) -> pki.Authority:
    return pki.authority(tmp_path)


@pytest.fixture
def api(tmp_path: Path, ca: pki.Authority):
    with LiveApi(pki.identity(tmp_path, Role.SN, ca)) as live:
        yield live


@pytest.fixture
def client(tmp_path: Path, ca: pki.Authority, api: LiveApi):
    made = ApiClient(pki.identity(tmp_path, Role.SWCI, ca), [("127.0.0.1", api.port)])
    yield made
    made.close()


def create(client: ApiClient, name: str, **options):
    return client.submit("task.create", {"name": name}, **options)


def test_reads(client: ApiClient) -> None:
    assert client.is_up()
    assert client.version()["protocol"] == 1
    assert client.status()["height"] == 0
    assert client.table("tasks") == {}
    assert client.record("tasks", "none") is None
    with pytest.raises(RemoteError, match="no table txids"):
        client.table("txids")


def test_submit_returns_the_verdict_and_bytes_as_hex(client: ApiClient) -> None:
    verdict = create(client, "t1")
    assert verdict.ok and verdict.height == 1
    assert verdict.result == {"name": "t1", "raw": "0102"}
    assert client.record("tasks", "t1", min_height=verdict.height) == {"name": "t1", "digest": "ff"}


def test_a_refused_operation_raises_its_verdict(client: ApiClient) -> None:
    with pytest.raises(VerdictError, match="no such operation") as caught:
        client.submit("task.unknown", {})
    assert caught.value.code == "SW1001"
    assert caught.value.verdict.height == 1


def test_a_repeated_submit_gets_the_first_verdict(client: ApiClient, api: LiveApi) -> None:
    body = client._signed("task.create", {"name": "t"})
    first, second = client._post(body, 1e9), client._post(body, 1e9)
    assert first == second
    assert api.ledger.state.height == 1


def test_without_a_quorum_the_reason_is_told(client: ApiClient, api: LiveApi) -> None:
    api.ledger.reason = "waiting for 1 more of 3 validators"
    with pytest.raises(RemoteError, match="waiting for 1 more of 3 validators") as caught:
        create(client, "t", patience=0.1)
    assert caught.value.code == "SW5005"


def test_reads_fail_over_and_return(tmp_path: Path, ca: pki.Authority, api: LiveApi) -> None:
    dead = free_port()
    client = ApiClient(
        pki.identity(tmp_path, Role.SL, ca), [("127.0.0.1", dead), ("127.0.0.1", api.port)]
    )
    assert client.status()["height"] == 0
    assert client.endpoints[0].port == api.port  # the one that answered is asked first from now on
    client.close()


def test_further_nodes_are_learnt_from_the_ledger(
    tmp_path: Path, ca: pki.Authority, client: ApiClient, api: LiveApi
) -> None:
    with LiveApi(pki.identity(tmp_path, Role.SN, ca, name="2")) as other:
        record = {"type": "SN", "host": "127.0.0.1", "port": other.port, "active": True}
        api.do(lambda: setattr(api.ledger, "state", api.ledger.state.put("nodes", "x", record)))
        assert client.is_up()
        assert [e.port for e in client.endpoints] == [api.port, other.port]
        api.stop()
        assert create(client, "t").ok
        assert other.ledger.state.height == 1


def test_a_node_that_starts_says_so(client: ApiClient, api: LiveApi) -> None:
    api.starting = "blocks are being fetched"
    assert not client.is_up()
    said: list[str] = []
    assert not client.wait_up(0.0, said.append)
    assert "blocks are being fetched" in said[0]
    with pytest.raises(RemoteError, match="blocks are being fetched") as caught:
        client.status()
    assert caught.value.code == "SW5104"
    threading.Timer(0.2, lambda: setattr(api, "starting", "")).start()
    assert client.wait_up(10)


def test_a_network_node_of_another_version(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it, as it does not become another one."""
    monkeypatch.setattr(transport, "PROTOCOL", 2)
    monkeypatch.setattr(transport, "OUR_PROTOCOL", {})
    asked: tuple[Callable[[], object], ...] = (
        client.is_up,
        client.status,
        lambda: client.wait_up(60),
        lambda: create(client, "t"),
    )
    for ask in asked:
        with pytest.raises(transport.OtherProtocol, match="speaks protocol 1, and this node 2"):
            ask()
    watch = client.watch(["tasks/t"])
    until(lambda: "speaks protocol 1" in watch.error, 10, "the watch says so, too")
    monkeypatch.setattr(transport, "PROTOCOL", 1)
    assert client.is_up()


def test_nobody_there(tmp_path: Path, ca: pki.Authority) -> None:
    client = ApiClient(pki.identity(tmp_path, Role.SL, ca), [("127.0.0.1", free_port())])
    assert not client.is_up()
    with pytest.raises(RemoteError, match="nothing listens there") as caught:
        client.status()
    assert caught.value.code == "SW5001"
    said: list[str] = []
    assert not client.wait_up(0.1, said.append)
    assert len(said) == 1 and "nothing listens there" in said[0]


def test_our_certificate_is_refused(tmp_path: Path, api: LiveApi, ca: pki.Authority) -> None:
    foreign = pki.authority(tmp_path / "foreign", 7)
    ca_of_sn = pki.authority(tmp_path / "foreign", 8)
    ca_of_sn.path.write_bytes(ca.path.read_bytes())  # the client trusts the SN, not vice versa
    client = ApiClient(pki.identity(tmp_path, Role.SL, foreign), [("127.0.0.1", api.port)])
    with pytest.raises(CertificateRefused, match="does not trust the CA") as caught:
        client.status()
    assert caught.value.code == "SW5002"
    with pytest.raises(CertificateRefused):
        client.is_up()


def test_a_revoked_certificate_is_refused_with_the_reason(
    tmp_path: Path, api: LiveApi, ca: pki.Authority
) -> None:
    mine = pki.identity(tmp_path, Role.SL, ca)
    client = ApiClient(mine, [("127.0.0.1", api.port)])
    ca.revoke(mine)
    api.do(api._identity.trust.reload)
    with pytest.raises(CertificateRefused, match="revoked"):
        client.status()


def test_a_server_of_a_foreign_ca_or_another_role(
    tmp_path: Path, ca: pki.Authority, api: LiveApi
) -> None:
    foreign = pki.authority(tmp_path / "foreign", 7)
    stranger = ApiClient(pki.identity(tmp_path, Role.SL, foreign), [("127.0.0.1", api.port)])
    with pytest.raises(RemoteError) as caught:
        stranger.status()
    assert caught.value.code == "SW5003"
    with LiveApi(pki.identity(tmp_path, Role.SWOP, ca)) as wrong:
        client = ApiClient(pki.identity(tmp_path, Role.SL, ca), [("127.0.0.1", wrong.port)])
        with pytest.raises(RemoteError, match="SWOP") as caught:
            client.status()
        assert caught.value.code == "SW5003"


class Hangup:
    """A TLS server that accepts any handshake and closes without a word, as a refusal may look."""

    def __init__(self, context) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._context = context
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
                self._context.wrap_socket(raw, server_side=True).close()
            except OSError:
                if self._listener.fileno() < 0:
                    return

    def close(self) -> None:
        self._listener.close()


def test_a_bare_disconnect_after_the_handshake_is_a_refusal(
    tmp_path: Path, ca: pki.Authority
) -> None:
    server = Hangup(pki.identity(tmp_path, Role.SN, ca).server_context())
    client = ApiClient(pki.identity(tmp_path, Role.SL, ca), [("127.0.0.1", server.port)])
    with pytest.raises(CertificateRefused, match="without giving a reason"):
        client.status()
    server.close()


def test_a_server_that_is_not_tls(tmp_path: Path, ca: pki.Authority) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        raw, _ = listener.accept()
        raw.recv(100)
        raw.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        raw.close()

    threading.Thread(target=answer, daemon=True).start()
    port = listener.getsockname()[1]
    client = ApiClient(pki.identity(tmp_path, Role.SL, ca), [("127.0.0.1", port)])
    with pytest.raises(RemoteError) as caught:
        client.status()
    assert caught.value.code == "SW5001"
    listener.close()


def test_watch_sees_the_present_and_every_change(client: ApiClient, api: LiveApi) -> None:
    create(client, "a")
    watch = client.watch(["tasks/a", "tasks/b"], uid="1" * 32)
    assert watch.wait(lambda w: w.connected, 5)
    assert watch.records == {"tasks/a": {"name": "a", "digest": "ff"}, "tasks/b": None}
    heard = threading.Event()
    watch.on_change(lambda w: heard.set())
    create(client, "b")
    assert watch.wait(lambda w: w.records["tasks/b"] is not None, 5)
    assert watch.height == 2
    assert heard.wait(5)
    assert api.do(api.presence.local) == {"1" * 32: 0.0}
    watch.close()
    until(lambda: api.do(api.presence.local)["1" * 32] > 0, 5, "the closed stream is noticed")
    assert api.moves == [("1" * 32, True), ("1" * 32, False)]
    assert not watch._thread.is_alive()


def test_watch_survives_the_loss_of_its_node(
    tmp_path: Path, ca: pki.Authority, client: ApiClient, api: LiveApi
) -> None:
    with LiveApi(pki.identity(tmp_path, Role.SN, ca, name="2")) as other:
        both = ApiClient(
            pki.identity(tmp_path, Role.SL, ca),
            [("127.0.0.1", api.port), ("127.0.0.1", other.port)],
        )
        watch = both.watch(["tasks/a"])
        assert watch.wait(lambda w: w.connected, 5)
        api.stop()
        assert watch.wait(lambda w: not w.connected or w.error == "", 5)
        create(both, "a")
        assert watch.wait(lambda w: w.records["tasks/a"] is not None, 10)
        both.close()
        assert not watch.connected and watch.error == "closed"


def test_a_client_that_waits_can_be_closed(client: ApiClient, api: LiveApi) -> None:
    api.ledger.reason = "no quorum"
    failed: list[RemoteError] = []

    def run() -> None:
        try:
            create(client, "t", patience=60)
        except RemoteError as fault:
            failed.append(fault)

    client._timeout = 2.5
    client.status()
    thread = threading.Thread(target=run)
    thread.start()
    client.close()
    thread.join(10)
    assert not thread.is_alive() and failed


def test_more_than_the_share_of_a_member_is_waited_for(
    tmp_path: Path, ca: pki.Authority, api: LiveApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentinel.limits.BURST", 8.0)
    monkeypatch.setattr("sentinel.limits.RATE", 8.0)
    monkeypatch.setattr("sentinel.limits.HOLD", 0.01)
    told: list[str] = []
    identity = pki.identity(tmp_path, Role.SWCI, ca)
    client = ApiClient(identity, [("127.0.0.1", api.port)], learn=False, on_wait=told.append)
    for _ in range(4):  # 4 units each
        assert client.version()["protocol"] == 1
    assert told and "more than 8 units a second" in told[0]
    assert api.limits.by_member() == {identity.common_name: 1}
    client.close()


def test_a_full_mempool_is_waited_for(client: ApiClient, api: LiveApi) -> None:
    real = api.ledger.submit
    refusals = [RemoteError("SW3007", "256 transactions of this sender wait already")]

    async def submit(tx: bytes):
        if refusals:
            raise refusals.pop()
        return await real(tx)

    api.ledger.submit = submit
    assert create(client, "t").ok
    assert api.limits.refused()["SWCI-1", "mempool"] == 1


def test_without_patience_the_limit_is_the_error(client: ApiClient, api: LiveApi) -> None:
    async def submit(tx: bytes):
        raise RemoteError("SW3007", "256 transactions of this sender wait already")

    api.ledger.submit = submit
    with pytest.raises(RemoteError, match="256 transactions") as caught:
        create(client, "t", patience=0.1)
    assert caught.value.code == "SW5009"
