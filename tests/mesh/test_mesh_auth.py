"""Who may enter: the whole matrix of certificates, over real TCP, seen from both sides."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import CLOCK_SKEW, Issued, _builder, _usage, new_key
from swarm.errors import RemoteError
from swarm.identity import Identity, Role, TrustStore, tls
from swarm.identity.files import read_certificates, read_private_key
from swarm.identity.keys import public_der, sign
from swarm.mesh import host as host_module
from swarm.mesh import transport
from swarm.mesh.host import Host, StreamWire
from swarm.mesh.keys import peer_id_of
from tests import pki
from tests.mesh.stranger import MULTISTREAM, Stranger, line

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)
LOCAL = ("127.0.0.1", 0)


class Rogue:
    """An identity that nobody checked when it was made."""

    def __init__(self, ca: pki.Authority, made: pki.Files, *, bare: bool = False) -> None:
        self.certificate = read_certificates(made.cert)[0]
        self._made, self._bare = made, bare
        self._key = read_private_key(made.key)
        self.trust = TrustStore(capath=ca.capath)
        self.public_key_der = public_der(self.certificate.public_key())  # type: ignore[arg-type]
        self.common_name = made.cert.name

    def sign(self, data: bytes) -> bytes:
        return sign(self._key, data)

    def _pem(self) -> bytes:
        return self._made.key.read_bytes() + self._made.cert.read_bytes()

    def server_context(self) -> ssl.SSLContext:
        return tls.make_context(self._pem(), self.trust, server=True)

    def client_context(self) -> ssl.SSLContext:
        if not self._bare:
            return tls.make_context(self._pem(), self.trust, server=False)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context


@dataclass
class Outcome:
    """What each side has to say about one attempt."""

    connected: bool
    dialler: str = ""
    listener: str = ""


async def attempt(listener: Any, dialler: Any, wanted: str | None = None) -> Outcome:
    """Let one identity dial another."""
    heard: list[str] = []
    refused = trio.Event()
    accepted = trio.Event()

    def on_refused(_side: str, _who: str, why: str) -> None:
        heard.append(why)
        refused.set()

    async def on_wire(wire: StreamWire) -> None:
        await wire.write(b"welcome")
        accepted.set()
        await trio.sleep_forever()

    server = Host(listener, on_wire, on_refused)
    client = Host(dialler, on_wire, lambda *_: None)
    outcome = Outcome(False)
    async with server.running(LOCAL) as addresses, client.running(LOCAL):
        try:
            wire = await client.dial(wanted or server.peer_id, addresses[0])
            assert await wire.read() == b"welcome"
            await accepted.wait()
            outcome = Outcome(True)
            await wire.close()
        except RemoteError as error:
            assert error.code == "SW2013"
            with trio.fail_after(10):
                await refused.wait()
            outcome = Outcome(False, error.cause, heard[0])
    return outcome


def run(main: Callable[[], Awaitable[Outcome]]) -> Outcome:
    return trio.run(main)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki")


@pytest.fixture(scope="module")
def ca(place: Path) -> pki.Authority:
    return pki.authority(place / "org1", 1)


@pytest.fixture(scope="module")
def good(place: Path, ca: pki.Authority) -> Identity:
    return pki.identity(place / "good", Role.SN, ca, name="good")


def rogue(place: Path, ca: pki.Authority, name: str, *, bare: bool = False, **options: Any) -> Any:
    return Rogue(ca, pki.files(place / name, f"SN-{name}", ca, **options), bare=bare)


KEYS: dict[str, Callable[[], Any]] = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("dialler", KEYS)
@pytest.mark.parametrize("listener", KEYS)
def test_all_kinds_of_keys_fit_together(
    place: Path, ca: pki.Authority, listener: str, dialler: str
) -> None:
    one = pki.identity(place / "1", Role.SN, ca, name=f"{listener}-1", key=KEYS[listener]())
    two = pki.identity(place / "2", Role.SN, ca, name=f"{dialler}-2", key=KEYS[dialler]())
    assert run(lambda: attempt(one, two)).connected


def test_organisations_that_trust_each_other(place: Path, ca: pki.Authority) -> None:
    ours, theirs = pki.authority(place / "o1", 11), pki.authority(place / "o2", 12)
    a = pki.identity(place / "o1", Role.SN, ours)
    b = pki.identity(place / "o2", Role.SN, theirs)
    ours.trust(theirs)
    one_sided = run(lambda: attempt(pki_reload(a), b))
    assert not one_sided.connected
    theirs.trust(ours)
    assert run(lambda: attempt(pki_reload(a), pki_reload(b))).connected


def pki_reload(identity: Identity) -> Identity:
    identity.trust.reload()
    return identity


def test_a_chain_by_way_of_an_intermediate(place: Path, ca: pki.Authority, good: Identity) -> None:
    intermediate = _intermediate(ca)
    chained = pki.identity(place / "im", Role.SN, ca, name="im", intermediates=[intermediate])
    assert run(lambda: attempt(good, chained)).connected
    assert run(lambda: attempt(chained, good)).connected


def _intermediate(ca: pki.Authority) -> Issued:
    """A CA below the given one."""

    key = new_key()
    builder = (
        _builder(
            "Middle",
            ca.issued.certificate.subject,
            key.public_key(),
            NOW - CLOCK_SKEW,
            NOW + 30 * DAY,
            None,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(cert_sign=True), critical=True)
    )
    return Issued(builder.sign(ca.issued.key, SHA256()), key)  # type: ignore[arg-type]


CLOSED = "the peer closed the connection instead of accepting our certificate"
REFUSED = "the peer refused our certificate"


def test_a_dialler_of_an_unknown_ca(place: Path, good: Identity) -> None:
    foreign = pki.authority(place / "foreign1", 21)
    stranger = pki.identity(place / "foreign1", Role.SN, foreign)
    # It trusts the listener's CA, so that only the listener has a reason to refuse.
    (foreign.capath / "theirs.pem").write_bytes(good.trust.cas[0].public_bytes(Encoding.PEM))
    stranger.trust.reload()
    outcome = run(lambda: attempt(good, stranger))
    assert not outcome.connected
    assert "refused our certificate: unknown ca" in outcome.dialler
    assert "its certificate was refused" in outcome.listener


def test_a_listener_of_an_unknown_ca(place: Path, good: Identity) -> None:
    foreign = pki.authority(place / "foreign2", 22)
    stranger = pki.identity(place / "foreign2", Role.SN, foreign)
    outcome = run(lambda: attempt(stranger, good))
    assert "its certificate was refused" in outcome.dialler
    assert "refused our certificate: unknown ca" in outcome.listener


DATES = {
    "expired": {"not_before": NOW - 30 * DAY, "not_after": NOW - DAY},
    "not yet valid": {"not_before": NOW + DAY, "not_after": NOW + 30 * DAY},
}


@pytest.mark.parametrize("case", DATES)
def test_dates_of_the_dialler(place: Path, ca: pki.Authority, good: Identity, case: str) -> None:
    bad = rogue(place, ca, case.replace(" ", "-"), **DATES[case])
    outcome = run(lambda: attempt(good, bad))
    assert not outcome.connected
    assert "refused our certificate" in outcome.dialler
    assert case in outcome.listener


@pytest.mark.parametrize("case", DATES)
def test_dates_of_the_listener(place: Path, ca: pki.Authority, good: Identity, case: str) -> None:
    bad = rogue(place, ca, case.replace(" ", "-"), **DATES[case])
    outcome = run(lambda: attempt(bad, good))
    assert case in outcome.dialler
    assert "refused our certificate" in outcome.listener


def test_a_dialler_without_a_certificate(place: Path, ca: pki.Authority, good: Identity) -> None:
    bare = rogue(place, ca, "bare", bare=True)
    outcome = run(lambda: attempt(good, bare))
    assert "refused our certificate: certificate required" in outcome.dialler
    assert "presented no certificate" in outcome.listener


def test_another_peer_than_expected(place: Path, ca: pki.Authority, good: Identity) -> None:
    other = pki.identity(place, Role.SN, ca, name="other")
    outcome = run(lambda: attempt(good, other, wanted=peer_id_of(other.public_key_der)))
    assert "with another key than expected" in outcome.dialler
    assert "with another key than expected" in outcome.listener


@pytest.mark.parametrize("role", [Role.SL, Role.SWOP, Role.SWCI])
def test_only_network_nodes_may_enter(
    place: Path, ca: pki.Authority, good: Identity, role: Role
) -> None:
    other = pki.identity(place / role.value, role, ca)
    for outcome in (run(lambda: attempt(good, other)), run(lambda: attempt(other, good))):
        assert not outcome.connected
        assert f"has the role {role}" in outcome.dialler
        assert f"has the role {role}" in outcome.listener


def test_revoked(place: Path) -> None:
    ca = pki.authority(place / "rev", 31)
    one, bad, two = (pki.identity(place / "rev", Role.SN, ca, name=n) for n in ("1", "bad", "2"))
    ca.revoke(bad)
    for identity in (one, two):
        identity.trust.reload()
    # `bad` itself has not read the list, as a node that does not care would not.
    outcome = run(lambda: attempt(one, bad))
    assert f"{REFUSED}: certificate SN-bad was revoked by its CA on" in outcome.dialler
    assert "was revoked" in outcome.listener
    outcome = run(lambda: attempt(bad, one))
    assert "was revoked" in outcome.dialler
    assert f"{REFUSED}: certificate SN-bad was revoked by its CA on" in outcome.listener
    assert run(lambda: attempt(one, two)).connected


def test_barred(place: Path, good: Identity, ca: pki.Authority) -> None:
    """Evicted by the members; both sides know why, and a further certificate does not help."""
    key = new_key()
    judge = pki.identity(place / "judge", Role.SN, ca, name="judge")
    for name in ("bad", "bad-again"):
        bad = pki.identity(place / name, Role.SN, ca, name=name, key=key)
        judge.trust.bar({bad.fingerprint: "evicted at height 7: it lies\n" + "x" * 1000})
        for outcome in (run(lambda: attempt(judge, bad)), run(lambda: attempt(bad, judge))):  # noqa: B023
            assert not outcome.connected
            assert f"SN-{name}: evicted at height 7: it lies" in outcome.dialler
            assert f"SN-{name}: evicted at height 7: it lies" in outcome.listener
            assert REFUSED in outcome.dialler + outcome.listener
    assert run(lambda: attempt(judge, good)).connected


@contextmanager
def short_timeout() -> Iterator[None]:
    before = transport.HANDSHAKE_TIMEOUT
    transport.HANDSHAKE_TIMEOUT = 0.2
    try:
        yield
    finally:
        transport.HANDSHAKE_TIMEOUT = before


def test_a_listener_that_says_nothing(good: Identity) -> None:
    """It accepts the connection, agrees on the protocol, and leaves it at that."""

    async def main() -> str:
        async def silent(stream: trio.SocketStream) -> None:
            await stream.send_all(line(MULTISTREAM) + line(host_module.PROTOCOL))
            await trio.sleep_forever()

        client = Host(good, lambda _: trio.sleep(0), lambda *_: None)
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, silent, 0)
            port = listeners[0].socket.getsockname()[1]
            async with client.running(LOCAL):
                with short_timeout(), pytest.raises(RemoteError) as caught:
                    await client.dial(client.peer_id, f"/ip4/127.0.0.1/tcp/{port}")
            nursery.cancel_scope.cancel()
        return caught.value.cause

    assert "no answer within 0.2 s" in trio.run(main)


@pytest.mark.parametrize("kind", ["unknown ca", "wrong role", "revoked"])
def test_who_is_refused_gets_a_reason_at_most(place: Path, kind: str) -> None:
    """Application bytes come only after the verdict; strangers do not even hear why."""
    base = place / kind.replace(" ", "-")
    ca = pki.authority(base, 41)
    good = pki.identity(base, Role.SN, ca, name="good")
    if kind == "unknown ca":
        bad = pki.identity(base / "x", Role.SN, pki.authority(base / "x", 42))
    elif kind == "wrong role":
        bad = pki.identity(base, Role.SL, ca)
    else:
        bad = pki.identity(base, Role.SN, ca, name="bad")
        ca.revoke(bad)
        good.trust.reload()
    context = bad.client_context()
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["swarm-x509/1"])

    async def main() -> bytes:
        server = Host(good, lambda _: trio.sleep(0), lambda *_: None)
        async with server.running(LOCAL) as addresses:
            stranger = await Stranger.connect(addresses[0])
            await stranger.handshake(context)  # TLS 1.3: it seems to have worked
            with trio.fail_after(10):
                return await stranger.everything()

    got = trio.run(main)
    if kind == "unknown ca":
        assert got == b""
    else:
        assert got.startswith(b"\x00certificate S") and len(got) < 300


def test_nothing_but_our_protocol_is_offered(good: Identity) -> None:
    async def main() -> None:
        server = Host(good, lambda _: trio.sleep(0), lambda *_: None)
        async with server.running(LOCAL) as addresses:
            stranger = await Stranger.connect(addresses[0])
            await stranger.hello()
            for protocol in ("/noise", "/tls/1.0.0", "/secio/1.0.0", "/plaintext/2.0.0"):
                assert await stranger.ask(protocol) == "na"
            await stranger.stream.send_all(b"\x03ls\n")
            assert (await stranger.line()).strip() == host_module.PROTOCOL

    trio.run(main)


def test_the_connection_carries_our_protocol_and_tls_1_3(good: Identity) -> None:
    async def main() -> None:
        wires: list[StreamWire] = []
        came = trio.Event()

        async def on_wire(wire: StreamWire) -> None:
            wires.append(wire)
            came.set()
            await trio.sleep_forever()

        server = Host(good, on_wire, lambda *_: None)
        client = Host(good, on_wire, lambda *_: None)
        async with server.running(LOCAL) as addresses, client.running(LOCAL):
            wires.append(await client.dial(server.peer_id, addresses[0]))
            await came.wait()
            for wire in wires:
                connection = wire._connection
                assert connection.get_negotiated_security_protocol() == host_module.PROTOCOL
                pipe = connection.muxed_conn.secured_conn.conn
                assert pipe.tls.version() == "TLSv1.3"
                assert wire.peer.fingerprint == good.fingerprint

    trio.run(main)


def test_older_tls_is_refused(good: Identity) -> None:
    context = good.client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def main() -> None:
        server = Host(good, lambda _: trio.sleep(0), lambda *_: None)
        async with server.running(LOCAL) as addresses:
            stranger = await Stranger.connect(addresses[0])
            with pytest.raises(ssl.SSLError, match=r"(?i)version|alert"):
                await stranger.handshake(context)

    trio.run(main)
