"""The trust store: which files count, revocation per CA, changes on disk."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import issue_crl
from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, Role, TrustStore
from tests import pki


def now() -> datetime:
    return datetime.now(timezone.utc)


def admitted(store: TrustStore, identity: Identity) -> str:
    """Role that the store sees, or the code of its refusal."""
    try:
        return str(store.verify(identity.chain_der, at=now(), roles=None).role)
    except RemoteError as fault:
        return fault.code


def test_file_names_do_not_matter_and_the_rest_is_skipped(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path, 1)
    node = pki.files(tmp_path, "SN-1", ca)
    ca.path.rename(ca.capath / "8f3a.0")
    (ca.capath / "README").write_text("CA files of our partners")
    (ca.capath / "old").mkdir()
    (ca.capath / "broken.pem").write_text(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    (ca.capath / "leaf.pem").write_bytes(node.cert.read_bytes())
    store = TrustStore(capath=ca.capath)
    assert [c.subject.rfc4514_string() for c in store.cas] == ["CN=CA-1,OU=Swarm-Learning"]
    notes = "\n".join(store.notes)
    assert "README: holds neither certificates nor revocation lists: skipped" in notes
    assert "broken.pem: a CERTIFICATE block cannot be parsed" in notes
    assert "leaf.pem: certificate SN-1 is not a CA: skipped" in notes


def test_bundle_with_several_cas(tmp_path: Path) -> None:
    one, two = pki.authority(tmp_path / "a", 1), pki.authority(tmp_path / "b", 2)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"# partners\n" + one.path.read_bytes() + b"\n" + two.path.read_bytes())
    store = TrustStore(cacert=bundle)
    assert len(store.cas) == len(store.ca_ders) == 2
    assert admitted(store, pki.identity(tmp_path, Role.SL, two)) == "SL"


def test_the_same_ca_twice_counts_once(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    assert len(TrustStore(capath=ca.capath, cacert=ca.path).cas) == 1


def test_no_ca_or_no_directory(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"SW1212: no CA certificate found in"):
        TrustStore(capath=tmp_path)
    with pytest.raises(LocalError, match=r"SW1202: cannot read the directory"):
        TrustStore(capath=tmp_path / "absent")


def test_a_list_counts_for_its_own_ca_only(tmp_path: Path) -> None:
    """One CA publishes a list and the other none: certificates of both go on working."""
    one, two = pki.authority(tmp_path, 1), pki.authority(tmp_path, 2)
    good = pki.identity(tmp_path, Role.SL, one, name="good")
    bad = pki.identity(tmp_path, Role.SL, one, name="bad")
    other = pki.identity(tmp_path, Role.SL, two)
    one.revoke(bad)
    store = TrustStore(capath=one.capath)
    assert len(store.crls) == 1
    assert [admitted(store, i) for i in (good, bad, other)] == ["SL", "SW1206", "SL"]


def test_nobody_revokes_for_another_ca(tmp_path: Path) -> None:
    """A list with the right issuer name and a foreign signature has no effect."""
    ca, stranger = pki.authority(tmp_path, 1), pki.authority(tmp_path / "x", 1)
    node = pki.identity(tmp_path, Role.SN, ca)
    forged = issue_crl(stranger.issued, [node.certificate])
    (ca.capath / "forged.crl").write_bytes(forged)
    assert admitted(TrustStore(capath=ca.capath), node) == "SN"


def test_a_binary_list(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    node = pki.identity(tmp_path, Role.SN, ca)
    path = ca.revoke(node)
    path.write_bytes(x509.load_pem_x509_crl(path.read_bytes()).public_bytes(Encoding.DER))
    assert admitted(TrustStore(capath=ca.capath), node) == "SW1206"


def test_an_overdue_list_still_revokes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = pki.authority(tmp_path)
    good = pki.identity(tmp_path, Role.SN, ca, name="good")
    bad = pki.identity(tmp_path, Role.SN, ca, name="bad")
    overdue = issue_crl(ca.issued, [bad.certificate], days=1, now=now() - timedelta(days=9))
    (ca.capath / "overdue.crl").write_bytes(overdue)
    store = TrustStore(capath=ca.capath)
    assert [admitted(store, good), admitted(store, bad)] == ["SN", "SW1206"]
    assert "should have been renewed" in caplog.text


def test_changes_are_picked_up(tmp_path: Path) -> None:
    one, two = pki.authority(tmp_path / "a", 1), pki.authority(tmp_path / "b", 2)
    stranger = pki.identity(tmp_path, Role.SN, two)
    store = TrustStore(capath=one.capath)
    assert not store.reload()
    assert admitted(store, stranger) == "SW1205"
    one.trust(two)
    assert store.reload()
    assert admitted(store, stranger) == "SN"
    (one.capath / "list.crl").write_bytes(issue_crl(two.issued, [stranger.certificate]))
    assert store.reload()
    assert admitted(store, stranger) == "SW1206"


def test_a_store_that_became_unreadable_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = pki.authority(tmp_path)
    node = pki.identity(tmp_path, Role.SN, ca)
    store = TrustStore(capath=ca.capath)
    ca.path.write_text("being copied")
    assert not store.reload()
    assert admitted(store, node) == "SN"
    assert "its former contents stay in use" in caplog.text
    ca.path.unlink()
    assert not store.reload() and not store.reload()
    assert caplog.text.count("trust store kept as it was") == 1
    assert admitted(store, node) == "SN"


def test_a_list_that_is_half_written_revokes_as_before(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    bad, worse = (pki.identity(tmp_path, Role.SN, ca, name=name) for name in ("bad", "worse"))
    path = ca.revoke(bad)
    store = TrustStore(capath=ca.capath)
    whole = issue_crl(ca.issued, [bad.certificate, worse.certificate])
    for size in (0, 9, 60, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        store.reload()
        assert [admitted(store, i) for i in (bad, worse)] == ["SW1206", "SN"], size
    path.write_bytes(whole)
    assert store.reload()
    assert [admitted(store, i) for i in (bad, worse)] == ["SW1206", "SW1206"]
    path.unlink()
    assert store.reload()
    assert admitted(store, worse) == "SN"


def test_a_barred_key_is_refused_whatever_its_certificate(tmp_path: Path) -> None:
    ca, other = pki.authority(tmp_path, 1), pki.authority(tmp_path, 2)
    key = pki.key("ec")
    old, new = (pki.identity(tmp_path, Role.SN, by, key=key) for by in (ca, other))
    store = TrustStore(capath=ca.capath)
    assert store.bar({old.fingerprint: "evicted at height 7"})
    assert not store.bar({old.fingerprint: "evicted at height 7"})
    assert [admitted(store, i) for i in (old, new)] == ["SW4015", "SW4015"]
    with pytest.raises(RemoteError, match="SN-2: evicted at height 7"):
        store.verify(new.chain_der, at=now())


def test_the_door(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    learner = pki.identity(tmp_path, Role.SL, ca)
    store = TrustStore(capath=ca.capath)
    assert store.verify([learner.certificate], at=now(), roles={Role.SL}).common_name == "SL-1"
    with pytest.raises(RemoteError, match=r"SW1207: certificate SL-1 has the role SL"):
        store.verify(learner.chain_der, at=now(), roles={Role.SN, Role.SWOP})
