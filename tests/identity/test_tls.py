"""Handshakes between two identities over memory, and the check at the door after them."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from swarm.errors import RemoteError
from swarm.identity import Identity, Role, check_peer
from swarm.identity.tls import presented_chain
from tests import pki


class Wire:
    """Client and server end of one TLS connection; bytes are carried by hand."""

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext) -> None:
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(to_client, to_server)
        self.server = server.wrap_bio(to_server, to_client, server_side=True)

    def handshake(self) -> Wire:
        """Runs both sides to the end. Raises ssl.SSLError of the side that refused."""
        for _ in range(4):
            for end in (self.client, self.server):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        self.server.write(b"hello")
        assert self.client.read() == b"hello"
        return self


def connect(client: Identity, server: Identity) -> Wire:
    return Wire(client.client_context(), server.server_context()).handshake()


@pytest.mark.parametrize("server_key", ["ec", "rsa", "ed25519"])
@pytest.mark.parametrize("client_key", ["ec", "rsa", "ed25519"])
def test_both_sides_see_each_other(tmp_path: Path, client_key: str, server_key: str) -> None:
    one, two = pki.authority(tmp_path, 1), pki.authority(tmp_path, 2)
    client = pki.identity(tmp_path, Role.SL, one, key=pki.key(client_key))  # type: ignore[arg-type]
    server = pki.identity(tmp_path, Role.SN, two, key=pki.key(server_key))  # type: ignore[arg-type]
    wire = connect(client, server)
    assert wire.client.version() == "TLSv1.3"
    seen_by_server = check_peer(wire.server, server.trust, {Role.SL})
    seen_by_client = check_peer(wire.client, client.trust, {Role.SN})
    assert seen_by_server.fingerprint == client.fingerprint
    assert seen_by_client.fingerprint == server.fingerprint
    assert seen_by_server.public_key_der == client.public_key_der


def test_role_is_checked_at_the_door(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    client, server = pki.identity(tmp_path, "SWCI", ca), pki.identity(tmp_path, "SN", ca)
    wire = connect(client, server)
    with pytest.raises(RemoteError, match=r"SW1207"):
        check_peer(wire.server, server.trust, {Role.SN})


def test_revocation_is_checked_at_the_door(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    client, server = pki.identity(tmp_path, "SL", ca), pki.identity(tmp_path, "SN", ca)
    wire = connect(client, server)
    ca.revoke(client)
    server.trust.reload()
    with pytest.raises(RemoteError, match=r"SW1206"):
        check_peer(wire.server, server.trust, None)


def test_intermediates_travel_along(tmp_path: Path) -> None:
    from tests.identity.test_chain import intermediate

    ca = pki.authority(tmp_path)
    middle = intermediate(ca.issued, "middle")
    made = pki.files(tmp_path, "SL-1", ca, intermediates=[middle])
    client = Identity.load(made.cert, made.key, capath=ca.capath)
    server = pki.identity(tmp_path, "SN", ca)
    wire = connect(client, server)
    assert presented_chain(wire.server) == list(client.chain_der)
    assert check_peer(wire.server, server.trust, {Role.SL}).fingerprint == client.fingerprint


def test_foreign_ca_fails_in_the_handshake(tmp_path: Path) -> None:
    ours, theirs = pki.authority(tmp_path / "a", 1), pki.authority(tmp_path / "b", 2)
    server = pki.identity(tmp_path / "a", "SN", ours)
    stranger = pki.identity(tmp_path / "b", "SN", theirs)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(stranger, server)
    theirs.trust(ours)
    stranger.trust.reload()
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        connect(stranger, server)


def test_no_client_certificate_fails_in_the_handshake(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    server = pki.identity(tmp_path, "SN", ca)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.load_verify_locations(ca.path)
    with pytest.raises(ssl.SSLError, match=r"(?i)peer did not return a certificate"):
        Wire(bare, server.server_context()).handshake()


def test_older_tls_is_refused(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    server, client = pki.identity(tmp_path, "SN", ca), pki.identity(tmp_path, "SL", ca)
    context = client.client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        Wire(context, server.server_context()).handshake()


def test_nothing_presented() -> None:
    with pytest.raises(RemoteError, match=r"SW1211: no certificate was presented"):
        check_peer([], None, None)  # type: ignore[arg-type]


def test_damaged_files_do_no_harm_to_an_identity_in_use(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    made = pki.files(tmp_path, "SN-1", ca)
    identity = Identity.load(made.cert, made.key, capath=ca.capath)
    made.key.write_bytes(pki.files(tmp_path, "SL-1", ca).key.read_bytes())
    made.cert.unlink()
    wire = connect(identity, identity)
    assert check_peer(wire.server, identity.trust, {Role.SN}).fingerprint == identity.fingerprint
