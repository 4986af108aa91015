"""From a certificate chain to a verified peer.

`verify_chain` depends on nothing but its arguments: no clock, no revocation list, no file. The
ledger relies on that, as every network node must come to the same result when it replays a block
years later. What depends on time is the business of `TrustStore.verify`.

A path goes from the leaf over at most two intermediate CAs, which come with the chain, to one of
the given CAs. Checked on the way (RFC 5280 section 6.1, without policies and name constraints): the
issuer's name and signature, basicConstraints with path length, keyUsage, the kinds of keys and
hashes. A certificate with a critical extension that is not evaluated here is refused, as that
section demands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from swarm.errors import RemoteError
from swarm.identity import delegation
from swarm.identity.delegation import Vouched
from swarm.identity.keys import key_problem
from swarm.identity.parsing import describe, malformed_is_remote, parse
from swarm.identity.roles import Role, common_name_of, role_of
from swarm.identity.uid import fingerprint_of

MAX_CHAIN = 4  # leaf, two intermediates, and the root that some programs send along; and beside
# them the delegation of a member whose certificates change keys

_HASHES = frozenset({"sha256", "sha384", "sha512"})
_KNOWN_CRITICAL = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


@dataclass(frozen=True)
class Peer:
    """Somebody whose certificate was verified."""

    fingerprint: str  # of its key, see `swarm.identity.uid`
    role: Role
    organisation: str  # fingerprint of the CA at the end of the path
    common_name: str
    public_key_der: bytes  # SubjectPublicKeyInfo
    vouched: Vouched | None = None  # where a SPIFFE CA issued it, see `delegation`

    @property
    def holder(self) -> str:
        """Fingerprint of what its certificates are issued to: its key, or its SPIFFE id.

        Whoever has an id can have any number of keys, so shares and bars go by this.
        """
        return self.vouched.holder if self.vouched else self.fingerprint


def verify_chain(chain_der: Sequence[bytes], cas: Mapping[str, bytes]) -> Peer:
    """Verify signatures from the leaf (first) up to one of `cas` (fingerprint to DER).

    Raises RemoteError: SW1205 no path to a known CA, SW1207 no role, SW1210 key or hash not
    accepted, SW1211 malformed.
    """
    return peer_of_path(*find_path(chain_der, cas))


def find_path(
    chain_der: Sequence[bytes], cas: Mapping[str, bytes]
) -> tuple[tuple[x509.Certificate, ...], x509.Certificate | None]:
    """Certificates from the leaf to the CA, both included, and the delegation if there is one.

    Raises as `verify_chain`.
    """
    if not 0 < len(chain_der) <= MAX_CHAIN + 1:
        raise RemoteError("SW1211", f"a chain of {len(chain_der)} certificates was presented")
    ders, found = delegation.split([bytes(der) for der in chain_der])
    if len(ders) > MAX_CHAIN:
        raise RemoteError("SW1211", f"a chain of {len(ders)} certificates was presented")
    anchors = tuple(cas[key] for key in sorted(cas))
    return _find_path(tuple(ders), anchors), found


def peer_of_path(
    path: Sequence[x509.Certificate], delegated: x509.Certificate | None = None
) -> Peer:
    """Peer that a verified path describes. Raises RemoteError SW1207 when it has no role, and for
    a delegation SW1220 to SW1223."""
    leaf, anchor = path[0], path[-1]
    with malformed_is_remote():
        role = role_of(leaf)
        public_key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if role is None:
        raise RemoteError(
            "SW1207",
            f"{describe(leaf)} names no role: its common name must begin with SN-, SL-, SWOP- or "
            "SWCI-, or its SPIFFE id end so",
        )
    vouched = delegation.vouch(path)
    if delegated is not None:
        if vouched is None:
            raise RemoteError("SW1223", f"{describe(leaf)} delegates, and no SPIFFE CA issued it")
        public_key = delegation.check(delegated, leaf)
    return Peer(
        fingerprint=fingerprint_of(public_key),
        role=role,
        organisation=fingerprint_of(anchor.public_bytes(Encoding.DER)),
        common_name=vouched.spiffe_id if vouched else common_name_of(leaf),
        public_key_der=public_key,
        vouched=vouched,
    )


def member_fingerprint(chain_der: Sequence[bytes]) -> str:
    """Fingerprint of the key that a chain is presented for, unverified. Raises RemoteError."""
    ders, found = delegation.split(chain_der)
    if found is not None:
        return fingerprint_of(delegation.key_of(found))
    if not ders:
        raise RemoteError("SW1211", "no certificate was presented")
    return key_fingerprint(ders[0])


def key_fingerprint(certificate_der: bytes) -> str:
    """Fingerprint of the key in a certificate. Raises RemoteError SW1211."""
    certificate = parse(certificate_der)
    with malformed_is_remote():
        key = certificate.public_key()
        return fingerprint_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether basicConstraints says that this is a CA."""
    constraints = _basic_constraints(certificate)
    return constraints is not None and constraints.ca


@lru_cache(maxsize=2048)
def _find_path(
    chain_der: tuple[bytes, ...], anchors_der: tuple[bytes, ...]
) -> tuple[x509.Certificate, ...]:
    chain = [parse(der) for der in chain_der]
    anchors = [parse(der) for der in anchors_der]
    leaf = chain[0]
    with malformed_is_remote():
        _check_leaf(leaf)
        path = [leaf]
        while len(path) < MAX_CHAIN:
            anchor = _issuer_among(anchors, path)
            if anchor is not None:
                return (*path, anchor)
            intermediate = _issuer_among((c for c in chain[1:] if c not in path), path)
            if intermediate is None:
                break
            path.append(intermediate)
    raise RemoteError(
        "SW1205",
        f"{describe(leaf)} was issued by {path[-1].issuer.rfc4514_string()[:200]!r}, "
        "which is none of the trusted CAs",
    )


def _check_leaf(leaf: x509.Certificate) -> None:
    _check_kind(leaf, of_ca=False)
    if is_ca(leaf):
        raise RemoteError("SW1211", f"{describe(leaf)} is a CA, which cannot be a node")
    usage = _key_usage(leaf)
    if usage is not None and not usage.digital_signature:
        raise RemoteError("SW1211", f"{describe(leaf)} may not sign (keyUsage)")


def _check_kind(certificate: x509.Certificate, *, of_ca: bool) -> None:
    """Keys, hashes and critical extensions that we evaluate."""
    problem = key_problem(certificate.public_key(), of_ca=of_ca)
    if problem:
        raise RemoteError("SW1210", f"{describe(certificate)} has {problem}")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            raise RemoteError(
                "SW1211",
                f"{describe(certificate)} has the critical extension "
                f"{extension.oid.dotted_string}, which is not supported",
            )


def _issuer_among(
    candidates: Iterable[x509.Certificate], path: Sequence[x509.Certificate]
) -> x509.Certificate | None:
    """The first candidate that issued the last certificate of the path."""
    return next((c for c in candidates if _issued(c, path)), None)


def _issued(issuer: x509.Certificate, path: Sequence[x509.Certificate]) -> bool:
    subject = path[-1]
    if issuer.subject != subject.issuer or not _may_issue(issuer, below=len(path) - 1):
        return False
    _check_kind(issuer, of_ca=True)
    if subject.signature_algorithm_oid != SignatureAlgorithmOID.ED25519:
        algorithm = subject.signature_hash_algorithm
        if algorithm is None or algorithm.name not in _HASHES:
            name = algorithm.name if algorithm else "no hash"
            raise RemoteError("SW1210", f"{describe(subject)} is signed with {name}")
    try:
        subject.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    return True


def _may_issue(certificate: x509.Certificate, below: int) -> bool:
    """CA, allowed to sign certificates, with at most `below` intermediates beneath it."""
    constraints = _basic_constraints(certificate)
    if constraints is None or not constraints.ca:
        return False
    if constraints.path_length is not None and constraints.path_length < below:
        return False
    usage = _key_usage(certificate)
    return usage is None or usage.key_cert_sign


def _basic_constraints(certificate: x509.Certificate) -> x509.BasicConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None
