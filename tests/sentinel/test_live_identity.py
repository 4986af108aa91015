"""Certificates that change while the API is in use: who is put out, how fast, and what they hear.

Closing is to take at most 5 s; the bound here is generous, as the machine may be busy.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certs.authority import issue_leaf
from swarm.api.client import ApiClient
from swarm.api.transport import CertificateRefused
from swarm.identity import Identity, Role
from swarm.identity.live import follow
from tests import pki
from tests.processes import until
from tests.sentinel.harness import LiveApi
from tests.sentinel.test_api import connect

BOUND = 15.0  # seconds


@pytest.fixture
def ca(tmp_path: Path) -> pki.Authority:
    return pki.authority(tmp_path)


@pytest.fixture
def api(tmp_path: Path, ca: pki.Authority) -> Iterator[LiveApi]:
    with LiveApi(pki.identity(tmp_path, Role.SN, ca)) as live:
        yield live


class Guest:
    """A client with an event stream and an idle connection of its own."""

    def __init__(self, api: LiveApi, identity: Identity) -> None:
        self.client = ApiClient(identity, [("127.0.0.1", api.port)], learn=False)
        self.watch = self.client.watch(["meta/settings"], uid="a" * 32)
        assert self.watch.wait(lambda w: w.connected, BOUND)
        self._raw = socket.create_connection(("127.0.0.1", api.port), 10)
        self.idle = identity.client_context().wrap_socket(self._raw)
        self.idle.sendall(b"GET /is_up HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"OK"):
            answer += self.idle.recv(4096)

    def put_out(self, act: Callable[[], object]) -> float:
        """Seconds from `act` until both connections are closed."""
        self.idle.settimeout(BOUND)
        started = time.monotonic()
        act()
        try:
            assert self.idle.recv(1) == b""
        except (ConnectionResetError, ssl.SSLError):
            pass  # closed without a goodbye
        assert self.watch.wait(lambda w: not w.connected, BOUND)
        return time.monotonic() - started

    def close(self) -> None:
        self.idle.close()
        self.client.close()


def test_a_revocation_closes_streams_and_idle_connections(
    api: LiveApi, ca: pki.Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = (pki.identity(tmp_path, Role.SL, ca, name=name) for name in ("bad", "good"))
    guest, other = Guest(api, bad), Guest(api, good)
    try:
        until(lambda: api.do(api.presence.ages), BOUND, "the stream is a sign of life")
        took = guest.put_out(lambda: ca.revoke(bad))
        assert took < BOUND
        print(f"closed after {took:.2f} s")
        with pytest.raises(CertificateRefused, match="SL-bad was revoked by its CA on"):
            guest.client.version()
        until(lambda: "SL-bad was revoked" in guest.watch.error, BOUND, "the stream hears why, too")
        assert "are closed: certificate SL-bad was revoked" in caplog.text
        assert other.watch.connected and other.client.is_up(), "others notice nothing"
        guest.client.close()
        other.client.close()
        other.idle.close()
        until(lambda: not api.do(lambda: api.server.connections), BOUND, "nothing is left open")
    finally:
        guest.close()
        other.close()


def test_an_eviction_closes_them_and_a_further_certificate_does_not_help(
    api: LiveApi, ca: pki.Authority, tmp_path: Path
) -> None:
    key = pki.key("ec")
    old, new = (pki.identity(tmp_path, Role.SL, ca, name=name, key=key) for name in ("old", "new"))
    guest = Guest(api, old)
    try:
        barred = {old.fingerprint: "evicted at height 7 by org-1"}
        took = guest.put_out(lambda: api.do(lambda: api.vigil.bar(barred)))
        assert took < BOUND
        print(f"closed after {took:.2f} s")
        for identity in (old, new):
            client = ApiClient(identity, [("127.0.0.1", api.port)], learn=False)
            with pytest.raises(CertificateRefused, match="evicted at height 7 by org-1"):
                client.version()
            client.close()
    finally:
        guest.close()


def test_a_certificate_that_expires_ends_its_connections(
    api: LiveApi, ca: pki.Authority, tmp_path: Path
) -> None:
    end = datetime.now(timezone.utc) + timedelta(seconds=8)
    short = pki.identity(tmp_path, Role.SL, ca, not_after=end)
    guest = Guest(api, short)
    try:
        left = (end - datetime.now(timezone.utc)).total_seconds()
        took = guest.put_out(lambda: None)
        assert left - 1 < took < left + BOUND
        with pytest.raises(CertificateRefused, match="expired"):
            guest.client.version()
    finally:
        guest.close()


def test_a_client_and_a_server_that_renew_go_on(
    api: LiveApi, ca: pki.Authority, tmp_path: Path
) -> None:
    """New certificates by a new CA, which takes the place of the old one, under requests."""
    client_files = pki.files(tmp_path, "SWCI-7", ca)
    identity = Identity.load(client_files.cert, client_files.key, capath=ca.capath)
    client = ApiClient(identity, [("127.0.0.1", api.port)], learn=False)
    stop = follow(identity, client.audit)
    watch = client.watch(["meta/settings"])
    server = api._identity
    version = server.version
    try:
        assert watch.wait(lambda w: w.connected, BOUND)
        new = pki.authority(tmp_path, 2)
        for held, name in ((identity, "SWCI-7"), (server, "SN-1")):
            pem = issue_leaf(new.issued, name, key=held._private).certificate_pem
            draft = held.source.cert.with_suffix(".new")
            draft.write_bytes(pem)
            draft.replace(held.source.cert)

        def renewed() -> bool:
            assert client.version()["protocol"] == 1, "no request fails meanwhile"
            return identity.organisation == server.organisation and server.version > version

        until(renewed, BOUND * 2, "both go on with the new CA's certificates")
        ca.path.unlink()
        until(lambda: renewed() and len(server.trust.cas) == 1, BOUND * 2, "the old CA is gone")
        end = time.monotonic() + 3 * 2.0  # as long as the old connections could live on
        while time.monotonic() < end:
            assert client.version()["protocol"] == 1
        assert watch.wait(lambda w: w.connected, BOUND), watch.error
        fresh = pki.identity(tmp_path / "x", Role.SWCI, pki.authority(tmp_path / "x", 1))
        with pytest.raises(ssl.SSLError), connect(api, fresh) as secure:
            secure.recv(1)
    finally:
        stop.set()
        client.close()
