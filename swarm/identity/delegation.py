"""A member whose certificates change keys: SPIFFE.

A member is its key (see `uid`): its uid, its signatures on the ledger, its votes and its place in
the mesh hang on that. A SPIFFE agent hands out a new key with every certificate (SVID), each hour
perhaps. So such a node has a lasting key of its own, and each SVID delegates to it.

The rules
---------
1. TLS is made with the SVID alone, as the SPIFFE standard has it: any tool verifies the doors. The
   delegation travels behind the chain, in the place of a certificate that belongs to no path. TLS
   1.3 (RFC 8446, 4.4.2) tells receivers to put up with those, and they ignore it.
2. The delegation is a certificate for the lasting key, signed by the SVID's key: "who signs with
   that key acts for me". Without it, anybody could claim another's SVID, which is public.
3. Inside it is the lasting key's signature over the hash of that very SVID: "it is mine". Without
   it, the holder of any SVID could claim another member's key, which is public, and pass for that
   member at the doors, where TLS proves the SVID's key only.
4. So a delegation fits one SVID, and ends with it: its dates lie within the SVID's, and whoever
   looks at dates looks at both. Renewal means another SVID and another delegation.
5. Only a certificate with one SPIFFE id, issued by a CA of the same trust domain, may delegate. A
   CA that names another domain is no issuer for it.
6. The id is what was vouched for, and its holder can make lasting keys at will, or present SVIDs
   without a delegation. `Vouched.holder` stands for the id, in either case, wherever members are
   limited or barred: who was evicted has no use for a new key.

What the pieces are worth to a thief: the SVID's key opens doors until it expires and signs nothing;
the lasting key signs and opens none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from swarm.errors import RemoteError
from swarm.identity.keys import PrivateKey, sign, verify_signature
from swarm.identity.parsing import describe, malformed_is_remote, parse
from swarm.identity.roles import spiffe_id_of, trust_domain_of
from swarm.identity.uid import fingerprint_of

# An object identifier of our own, below the arc of UUIDs (ITU-T X.667). In steps of 31 bits, since
# there are programs (those in Go) that refuse a whole certificate for a longer one.
OID = x509.ObjectIdentifier("2.25.1945045106.771444855.83494788")
MAX_DELEGATION = 2048  # bytes; signed by an RSA key of 8192 bits it has about 1500

_TAG = b"swarm-delegation-1\0"  # ledger statements begin with a byte of CBOR, which "s" is not
# SPIFFE-ID.md, 2: lower-case trust domain, path of plain segments; 2048 bytes at most.
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
_MAX_ID = 2048


@dataclass(frozen=True)
class Vouched:
    """What a SPIFFE certificate says of the member whose lasting key it delegates to."""

    spiffe_id: str
    holder: str  # fingerprint that stands for the id
    domain: str  # whose dates can be compared with each other
    begins: int  # seconds since 1970: when the certificate was issued,
    ends: int  # and the last moment at which its whole path is valid


def delegate(
    svid: x509.Certificate, svid_key: PrivateKey, lasting: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Let `svid` delegate to a lasting key (P-256), for as long as it is valid."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-delegation")])
    proof = sign(lasting, _claim(svid))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(lasting.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(svid.not_valid_before_utc)
        .not_valid_after(svid.not_valid_after_utc)
        # Critical, so that nobody takes it for an ordinary certificate.
        .add_extension(x509.UnrecognizedExtension(OID, _octets(proof)), critical=True)
    )
    hashed = None if isinstance(svid_key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(svid_key, hashed)


def split(chain_der: Sequence[bytes]) -> tuple[list[bytes], x509.Certificate | None]:
    """A presented chain without its delegation, and that. Raises RemoteError SW1211, SW1220."""
    ders: list[bytes] = []
    found: list[x509.Certificate] = []
    for place, der in enumerate(chain_der):
        certificate = parse(bytes(der))
        # A leaf is what it is: refused as a certificate with a critical extension nobody knows.
        if place and _is_delegation(certificate):
            found.append(certificate)
        else:
            ders.append(der)
    if len(found) > 1:
        raise RemoteError("SW1220", "more than one delegation was presented")
    return ders, found[0] if found else None


def _is_delegation(certificate: x509.Certificate) -> bool:
    return any(extension.oid == OID for extension in certificate.extensions)


def key_of(delegation: x509.Certificate) -> bytes:
    """The lasting key (DER SubjectPublicKeyInfo), unverified. Raises RemoteError SW1211, SW1220."""
    with malformed_is_remote():
        key = delegation.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise RemoteError("SW1220", "a delegation is for another kind of key than P-256")
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def vouch(path: Sequence[x509.Certificate]) -> Vouched | None:
    """What the leaf of a verified path says of its holder, if a SPIFFE CA issued it.

    With a delegation or without: who was evicted must not come back by leaving that out. Depends
    on nothing but its argument. Raises RemoteError SW1223 for an id that is none, or not of the
    domain that its CAs name.
    """
    svid = path[0]
    with malformed_is_remote():
        if not spiffe_id_of(path[1]):
            return None
        spiffe_id = _check_id(svid)
        domain = _check_domain(spiffe_id, path)
        organisation = fingerprint_of(path[-1].public_bytes(Encoding.DER))
        ends = min(_seconds(certificate.not_valid_after_utc) for certificate in path)
        begins = _seconds(svid.not_valid_before_utc)
    # A root that names no domain could have any issued below it: there, ids count within it only.
    holder = fingerprint_of(f"spiffe\0{'' if domain else organisation}\0{spiffe_id}".encode())
    return Vouched(spiffe_id, holder, domain or organisation, begins, ends)


def check(delegation: x509.Certificate, svid: x509.Certificate) -> bytes:
    """The lasting key that a verified SVID delegates to. Depends on nothing but its arguments.

    Raises RemoteError: SW1220 malformed, SW1221 not signed by both keys, SW1222 dates beyond those
    of its SVID.
    """
    with malformed_is_remote():
        _check_dates(delegation, svid)
        return _checked_key(delegation.public_bytes(Encoding.DER), svid.public_bytes(Encoding.DER))


@lru_cache(maxsize=2048)
def _checked_key(delegation_der: bytes, svid_der: bytes) -> bytes:
    delegation, svid = parse(delegation_der), parse(svid_der)
    if len(delegation_der) > MAX_DELEGATION:
        raise RemoteError("SW1220", f"a delegation of {len(delegation_der)} bytes was presented")
    key = key_of(delegation)
    extensions = list(delegation.extensions)
    if len(extensions) != 1:
        raise RemoteError("SW1220", "a delegation has other extensions than its own")
    value = extensions[0].value
    assert isinstance(value, x509.UnrecognizedExtension), "nobody else knows the identifier"
    issuer = svid.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signed = delegation.tbs_certificate_bytes
    if not verify_signature(issuer, signed, delegation.signature):
        raise RemoteError("SW1221", f"{describe(svid)} did not sign the delegation sent with it")
    if not verify_signature(key, _claim(svid), _from_octets(value.value)):
        raise RemoteError(
            "SW1221", f"the key that {describe(svid)} claims to act for does not say so itself"
        )
    return key


def _check_id(svid: x509.Certificate) -> str:
    found = [e.value for e in svid.extensions if isinstance(e.value, x509.SubjectAlternativeName)]
    uris = [n for names in found for n in names if isinstance(n, x509.UniformResourceIdentifier)]
    spiffe_id = spiffe_id_of(svid)
    if len(uris) != 1 or len(spiffe_id) > _MAX_ID or not _SPIFFE_ID.fullmatch(spiffe_id):
        raise RemoteError("SW1223", f"{describe(svid)} has not exactly one, proper, SPIFFE id")
    return spiffe_id


def _check_domain(spiffe_id: str, path: Sequence[x509.Certificate]) -> str:
    """The trust domain if the root names it, or ""; no CA on the path may name another one."""
    own = f"spiffe://{trust_domain_of(spiffe_id)}"
    named = [spiffe_id_of(ca) for ca in path[1:]]
    if named[0] != own or any(name not in ("", own) for name in named):
        raise RemoteError(
            "SW1223",
            f"{spiffe_id[:200]} was issued by a CA of the trust domain {named[0][:200]!r}",
        )
    return trust_domain_of(own) if named[-1] == own else ""


def _check_dates(delegation: x509.Certificate, svid: x509.Certificate) -> None:
    if (
        delegation.not_valid_before_utc < svid.not_valid_before_utc
        or delegation.not_valid_after_utc > svid.not_valid_after_utc
    ):
        raise RemoteError("SW1222", f"a delegation is to last longer than its {describe(svid)}")


def _claim(svid: x509.Certificate) -> bytes:
    """What the lasting key signs."""
    return _TAG + hashlib.sha256(svid.public_bytes(Encoding.DER)).digest()


def _octets(data: bytes) -> bytes:
    """DER OCTET STRING, of fewer than 128 bytes."""
    assert len(data) < 128, "an ECDSA P-256 signature has 72 bytes at most"
    return bytes([0x04, len(data)]) + data


def _from_octets(value: bytes) -> bytes:
    """Raises RemoteError SW1220."""
    if len(value) < 2 or value[0] != 0x04 or value[1] >= 128 or len(value) != 2 + value[1]:
        raise RemoteError("SW1220", "a delegation holds no signature of the lasting key")
    return value[2:]


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
