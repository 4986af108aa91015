"""Issuing certificates: a CA for an organisation or host, and the nodes' certificates beneath it.

The profile follows RFC 5280: a CA with critical basicConstraints and keyUsage, leaves that may sign
and serve either side of TLS. Validity begins an hour early, so that hosts whose clocks differ a
little accept new certificates at once.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarm.identity.keys import PrivateKey, PublicKey

KeyType = Literal["ec", "rsa", "ed25519"]

LEAF_DAYS = 825  # the longest that common TLS clients accept for privately issued certificates
CA_DAYS = 3650
CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class Issued:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)


def new_key(kind: KeyType = "ec") -> PrivateKey:
    """Fresh private key: ECDSA P-256, RSA of 3072 bits, or Ed25519."""
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=3072)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    """PKCS #8, not encrypted: nodes start without anybody there to type a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def issue_ca(
    name: str,
    *,
    days: int = CA_DAYS,
    key: PrivateKey | None = None,
    now: datetime | None = None,
) -> Issued:
    """Self-signed CA certificate with the common name `name`."""
    key = key or new_key()
    now = now or datetime.now(timezone.utc)
    builder = (
        _builder(
            name, _subject(name), key.public_key(), now - CLOCK_SKEW, now + timedelta(days=days)
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(cert_sign=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return Issued(builder.sign(key, _hash_for(key)), key)


def issue_leaf(
    ca: Issued,
    name: str,
    *,
    days: int = LEAF_DAYS,
    hosts: Sequence[str] = (),
    uris: Sequence[str] = (),
    serial: int | None = None,
    key: PrivateKey | None = None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> Issued:
    """Node certificate with the common name `name` and further host names or addresses.

    It never outlives its CA. `uris` are names of the form that SPIFFE uses.
    """
    key = key or new_key()
    certificate = certify(
        ca,
        name,
        key.public_key(),
        days=days,
        hosts=hosts,
        uris=uris,
        serial=serial,
        not_before=not_before,
        not_after=not_after,
    )
    return Issued(certificate, key)


def certify(
    ca: Issued,
    name: str,
    key: PublicKey,
    *,
    days: int = LEAF_DAYS,
    hosts: Sequence[str] = (),
    uris: Sequence[str] = (),
    serial: int | None = None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> x509.Certificate:
    """The same for a key whose private half stays where it is."""
    now = datetime.now(timezone.utc)
    begin = not_before or now - CLOCK_SKEW
    end = not_after or min(now + timedelta(days=days), ca.certificate.not_valid_after_utc)
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    names += [host_name(host) for host in hosts if host != name]
    names += [x509.UniformResourceIdentifier(uri) for uri in uris]
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(name, ca.certificate.subject, key, begin, end, serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(cert_sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()),
            critical=False,
        )
    )
    return builder.sign(ca.key, _hash_for(ca.key))


def issue_request(name: str, key: PrivateKey, hosts: Sequence[str] = ()) -> bytes:
    """Certificate signing request (PKCS #10, PEM) for `certify`, signed by the key itself."""
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    names += [host_name(host) for host in hosts if host != name]
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(name))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, _hash_for(key)).public_bytes(Encoding.PEM)


def issue_crl(
    ca: Issued,
    revoked: Sequence[x509.Certificate],
    *,
    days: int = 30,
    now: datetime | None = None,
) -> bytes:
    """Revocation list of the CA (PEM) that names these certificates."""
    now = now or datetime.now(timezone.utc)
    builder = x509.CertificateRevocationListBuilder(
        ca.certificate.subject, now - CLOCK_SKEW, now + timedelta(days=days)
    )
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder(certificate.serial_number, now - CLOCK_SKEW)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(ca.key, _hash_for(ca.key)).public_bytes(Encoding.PEM)


def host_name(host: str) -> x509.GeneralName:
    """Subject alternative name of an IP address or DNS name. Raises ValueError."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Swarm-Learning"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _builder(
    name: str,
    issuer: x509.Name,
    key: PublicKey,
    begin: datetime,
    end: datetime,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert_sign,
        crl_sign=cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _hash_for(key: PrivateKey) -> SHA256 | None:
    """Ed25519 hashes by itself; the others sign a SHA-256 digest."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
