"""Loading an identity: what is accepted, and one distinct error for each mistake."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from certs.authority import issue_ca
from swarm.errors import LocalError
from swarm.identity import Identity, Role, node_uid, verify_signature
from swarm.identity.files import read_private_key
from tests import pki

DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(timezone.utc)


def load(ca: pki.Authority, made: pki.Files, role: Role | None = None) -> Identity:
    return Identity.load(made.cert, made.key, capath=ca.capath, role=role)


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_signatures_of_every_kind_of_key(tmp_path: Path, kind: str) -> None:
    ca = pki.authority(tmp_path, key=pki.key(kind))  # type: ignore[arg-type]
    identity = pki.identity(tmp_path, Role.SN, ca, key=pki.key(kind))  # type: ignore[arg-type]
    signature = identity.sign(b"data")
    assert signature == identity.sign(b"data"), "signing is deterministic"
    assert verify_signature(identity.public_key_der, b"data", signature)
    assert not verify_signature(identity.public_key_der, b"other", signature)


@pytest.mark.parametrize("key", [b"", b"garbage", b"\x30\x03\x02\x01\x00"])
def test_garbage_is_no_signature(tmp_path: Path, key: bytes) -> None:
    identity = pki.identity(tmp_path, Role.SN, pki.authority(tmp_path))
    assert not verify_signature(key, b"data", identity.sign(b"data"))
    assert not verify_signature(identity.public_key_der, b"data", key)


def test_what_an_identity_tells(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path, 7)
    identity = pki.identity(tmp_path, Role.SWOP, ca)
    assert identity.role is Role.SWOP
    assert identity.common_name == "SWOP-7"
    assert identity.organisation in identity.trust.ca_ders
    assert identity.fingerprint == hashlib.sha256(identity.public_key_der).hexdigest()
    assert identity.not_after > now()
    assert len(identity.chain_der) == 1
    assert len(node_uid(identity.fingerprint, "swop7")) == 32
    assert node_uid(identity.fingerprint, "a") != node_uid(identity.fingerprint, "b")


@pytest.mark.parametrize("uri", ["spiffe://org1.example/host-1/sl", "spiffe://org1.example/SL-3"])
def test_role_in_a_spiffe_id(tmp_path: Path, uri: str) -> None:
    ca = pki.authority(tmp_path)
    made = pki.files(tmp_path, "worker", ca, uris=[uri])
    assert load(ca, made).role is Role.SL


def test_common_name_and_spiffe_id_must_agree(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    made = pki.files(tmp_path, "SN-1", ca, uris=["spiffe://org1.example/sl"])
    with pytest.raises(LocalError, match=r"SW1207: .* names no role"):
        load(ca, made)


def test_unknown_ca(tmp_path: Path) -> None:
    ours, theirs = pki.authority(tmp_path / "a"), pki.authority(tmp_path / "b", 2)
    made = pki.files(tmp_path, "SN-2", theirs)
    with pytest.raises(LocalError, match=r"SW1205: .*certificate SN-2 was issued by.*CA-2"):
        load(ours, made)


def test_ca_of_the_same_name_with_another_key(tmp_path: Path) -> None:
    ours, theirs = pki.authority(tmp_path / "a"), pki.authority(tmp_path / "b")
    with pytest.raises(LocalError, match=r"SW1205"):
        load(ours, pki.files(tmp_path, "SN-1", theirs))


def test_expired(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    made = pki.files(
        tmp_path, "SN-1", ca, not_before=now() - 9 * DAY, not_after=now() - DAY
    )  # fmt: skip
    with pytest.raises(LocalError, match=r"SW1203: .*certificate SN-1 expired on .*--renew"):
        load(ca, made)


def test_not_yet_valid(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    made = pki.files(tmp_path, "SN-1", ca, not_before=now() + DAY, not_after=now() + 9 * DAY)
    with pytest.raises(LocalError, match=r"SW1204: .*certificate SN-1 is valid only from"):
        load(ca, made)


def test_expired_ca(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path, now=now() - 9 * DAY, days=1)
    made = pki.files(tmp_path, "SN-1", ca, not_after=now() + DAY)
    with pytest.raises(LocalError, match=r"SW1203: .*certificate CA-1 expired"):
        load(ca, made)


def test_revoked(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    made = pki.files(tmp_path, "SL-1", ca)
    ca.revoke(load(ca, made))
    with pytest.raises(LocalError, match=r"SW1206: .*certificate SL-1 was revoked"):
        load(ca, made)


def test_wrong_role(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    with pytest.raises(LocalError, match=r"SW1207: .*SL-1 is one of SL, but SN is needed here"):
        load(ca, pki.files(tmp_path, "SL-1", ca), Role.SN)


def test_missing_key(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    made = pki.files(tmp_path, "SN-1", ca)
    made.key.unlink()
    with pytest.raises(LocalError, match=r"SW1208: there is no key file .*sn-1-key\.pem"):
        load(ca, made)


def test_key_of_another_certificate(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    one, other = pki.files(tmp_path, "SN-1", ca), pki.files(tmp_path, "SL-1", ca)
    with pytest.raises(LocalError, match=r"SW1209: the key .*sl-1-key.* does not belong"):
        load(ca, pki.Files(one.cert, other.key))


def _text(path: Path) -> None:
    path.write_text("not PEM at all")


def _garbage_block(path: Path) -> None:
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [Path.unlink, _text, _garbage_block, _directory])
def test_unreadable_certificate(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    ca = pki.authority(tmp_path)
    made = pki.files(tmp_path, "SN-1", ca)
    spoil(made.cert)
    with pytest.raises(LocalError, match=r"SW1202: .*sn-1-cert\.pem"):
        load(ca, made)


def test_key_with_a_password(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    made = pki.files(tmp_path, "SN-1", ca)
    key = ec.generate_private_key(ec.SECP256R1())
    made.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(LocalError, match=r"SW1202: .*protected by a password"):
        load(ca, made)


def test_kind_of_key(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    made = pki.files(tmp_path, "SN-1", ca, key=ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(LocalError, match=r"SW1210: .*secp384r1"):
        load(ca, made)


def test_nothing_given() -> None:
    with pytest.raises(LocalError, match=r"SW1201: No identity specified; give --cert and --key"):
        Identity.from_env({})


def test_environment(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    env = pki.environment(tmp_path, Role.SWCI, ca)
    assert Identity.from_env(env, Role.SWCI).common_name == "SWCI-1"
    with pytest.raises(LocalError, match=r"SW1208: no key was given"):
        Identity.from_env({**env, "SWARM_ID_KEY": ""})
    without = {name: value for name, value in env.items() if name != "SWARM_ID_CAPATH"}
    with pytest.raises(LocalError, match=r"SW1212: neither a directory nor a bundle"):
        Identity.from_env(without)
    bundle = {**without, "SWARM_ID_CACERT": str(ca.path)}
    assert Identity.from_env(bundle).role is Role.SWCI


def test_a_ca_is_no_node(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    own = issue_ca("SN-9")
    made = pki.Files(tmp_path / "c.pem", tmp_path / "k.pem")
    made.cert.write_bytes(own.certificate_pem)
    made.key.write_bytes(own.key_pem)
    with pytest.raises(LocalError, match=r"SW1211: .*is a CA, which cannot be a node"):
        load(ca, made)


def test_warns_before_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = pki.authority(tmp_path)
    pki.identity(tmp_path, Role.SN, ca, days=5)
    assert "sn-1-cert.pem expires in 4 days" in caplog.text


def test_a_key_that_only_another_user_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, mostly. The error says whose it is, as that is what to change."""
    made = pki.files(tmp_path, Role.SN, pki.authority(tmp_path))
    owner = made.key.stat().st_uid

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("os.geteuid", lambda: 65532)
    with pytest.raises(LocalError) as caught:
        read_private_key(made.key)
    assert caught.value.code == "SW9012"
    assert caught.value.cause == (
        f"{made.key} belongs to user {owner} with mode 0600, and this node runs as user 65532"
    )
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(LocalError, match="a directory above it is closed"):
        read_private_key(made.key)
