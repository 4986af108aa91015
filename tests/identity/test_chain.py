"""`verify_chain`: paths over intermediates, and hostile input."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.authority import Issued, issue_ca, issue_leaf, new_key
from swarm.errors import RemoteError
from swarm.identity import Identity, Role, fingerprint_of, verify_chain
from tests import pki


def intermediate(
    ca: Issued, name: str, *, ca_flag: bool = True, depth: int | None = None
) -> Issued:
    """CA beneath another CA (or, with `ca_flag` off, something that only looks like one)."""
    key = new_key()
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca_flag, depth if ca_flag else None), critical=True)
        .sign(ca.key, SHA256())  # type: ignore[arg-type]
    )
    return Issued(certificate, key)


def der(issued: Issued) -> bytes:
    return issued.certificate.public_bytes(Encoding.DER)


def code(chain: list[bytes], ca: pki.Authority) -> str:
    root = der(ca.issued)
    with pytest.raises(RemoteError) as caught:
        verify_chain(chain, {fingerprint_of(root): root})
    return caught.value.code


def test_path_over_two_intermediates(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    upper = intermediate(ca.issued, "upper")
    lower = intermediate(upper, "lower")
    made = pki.files(tmp_path, "SN-1", ca, intermediates=[lower, upper])
    identity = Identity.load(made.cert, made.key, capath=ca.capath)
    assert len(identity.chain_der) == 3
    peer = verify_chain(identity.chain_der, identity.trust.ca_ders)
    assert peer.organisation == fingerprint_of(der(ca.issued)), "the trusted CA names it"
    leaf = identity.chain_der[0]
    assert code([leaf], ca) == "SW1205", "without the intermediates there is no path"
    assert verify_chain([leaf, der(upper), der(lower)], identity.trust.ca_ders) == peer
    assert code([leaf, der(lower), der(upper), leaf, leaf], ca) == "SW1211", "too long"


def test_an_intermediate_may_be_the_trusted_one(tmp_path: Path) -> None:
    root = pki.authority(tmp_path / "root")
    middle = intermediate(root.issued, "middle")
    capath = tmp_path / "capath"
    capath.mkdir()
    (capath / "middle.pem").write_bytes(middle.certificate_pem)
    made = pki.files(tmp_path, "SN-1", root, intermediates=[middle])
    identity = Identity.load(made.cert, made.key, capath=capath)
    assert identity.organisation == fingerprint_of(der(middle))
    assert len(identity.chain_der) == 1


def test_a_node_cannot_issue(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    node = issue_leaf(ca.issued, "SL-1")
    forged = issue_leaf(node, "SN-1")
    assert code([der(forged), der(node)], ca) == "SW1205"
    flagless = intermediate(ca.issued, "no ca", ca_flag=False)
    assert code([der(issue_leaf(flagless, "SN-1")), der(flagless)], ca) == "SW1205"


def test_path_length_is_respected(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    upper = intermediate(ca.issued, "upper", depth=0)
    lower = intermediate(upper, "lower")
    assert code([der(issue_leaf(lower, "SN-1")), der(lower), der(upper)], ca) == "SW1205"


def test_weak_key(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    assert code([der(issue_leaf(ca.issued, "SN-1", key=weak))], ca) == "SW1210"


def test_changed_bytes_break_the_signature(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    leaf = der(issue_leaf(ca.issued, "SL-1"))
    assert code([leaf.replace(b"SL-1", b"SN-1")], ca) == "SW1205"


def test_no_chain_and_no_cas(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    leaf = der(issue_leaf(ca.issued, "SN-1"))
    assert code([], ca) == "SW1211"
    with pytest.raises(RemoteError, match=r"SW1205"):
        verify_chain([leaf], {})


def test_unsupported_critical_extension(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    key = new_key()
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "SN-1")]))
        .issuer_name(ca.issued.certificate.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.InhibitAnyPolicy(0), critical=True)
        .sign(ca.issued.key, SHA256())  # type: ignore[arg-type]
    )
    assert code([certificate.public_bytes(Encoding.DER)], ca) == "SW1211"


def test_result_does_not_depend_on_the_clock(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    past = datetime.now(timezone.utc) - timedelta(days=900)
    leaf = issue_leaf(ca.issued, "SN-1", not_before=past, not_after=past + timedelta(days=1))
    root = der(ca.issued)
    assert verify_chain([der(leaf)], {fingerprint_of(root): root}).role is Role.SN


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=64), max_size=6), st.data())
def test_hostile_chains_raise_remote_errors_only(junk: list[bytes], data: st.DataObject) -> None:
    ca, leaf = _fixed()
    position = data.draw(st.integers(0, len(leaf) - 1))
    flipped = bytearray(leaf)
    flipped[position] ^= data.draw(st.integers(1, 255))
    for chain in (junk, [bytes(flipped)], [bytes(flipped), *junk][:4], [leaf[:position]]):
        with pytest.raises(RemoteError):
            verify_chain(chain, {fingerprint_of(ca): ca})


def _fixed() -> tuple[bytes, bytes]:
    """One CA and leaf for all examples, so that a failing one can be repeated."""
    if not _FIXED:
        ca = issue_ca("CA-1")
        _FIXED.extend([der(ca), der(issue_leaf(ca, "SN-1"))])
    return _FIXED[0], _FIXED[1]


_FIXED: list[bytes] = []
