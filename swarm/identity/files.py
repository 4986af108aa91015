"""Reading certificates, revocation lists and keys from files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from swarm.errors import LocalError
from swarm.identity.faults import PARSE_FAULTS
from swarm.identity.keys import PrivateKey, key_problem

MAX_FILE = 4 * 1024 * 1024  # bytes; the bundle of all public CAs has a twentieth of that

_BEGIN = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----")
_BLOCK = re.compile(
    rb"-----BEGIN (CERTIFICATE|X509 CRL)-----\s.*?-----END \1-----",
    re.DOTALL,
)


@dataclass(frozen=True)
class PemFile:
    """What was found in one file; `problems` tells about blocks that could not be parsed."""

    path: Path
    certificates: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...]
    problems: tuple[str, ...]


def read_bytes(path: Path) -> bytes:
    """Whole file. Raises LocalError SW1202."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as fault:
        raise LocalError("SW1202", f"cannot read {path} ({fault.strerror})") from fault
    if len(data) > MAX_FILE:
        raise LocalError("SW1202", f"{path} is larger than {MAX_FILE} bytes")
    return data


def read_file(path: Path) -> PemFile:
    """All certificates and CRLs of a file: PEM blocks with any text between, or a DER `.crl`."""
    data = read_bytes(path)
    certificates: list[x509.Certificate] = []
    crls: list[x509.CertificateRevocationList] = []
    problems: list[str] = []
    for match in _BLOCK.finditer(data):
        try:
            if match[1] == b"CERTIFICATE":
                certificates.append(_parse_certificate(match[0]))
            else:
                crls.append(x509.load_pem_x509_crl(match[0]))
        except PARSE_FAULTS as fault:
            problems.append(f"a {match[1].decode()} block cannot be parsed ({fault})")
    if len(_BEGIN.findall(data)) > len(certificates) + len(crls) + len(problems):
        problems.append("a block has no end")
    if path.suffix == ".crl" and not crls and not certificates and not problems:
        try:
            crls.append(x509.load_der_x509_crl(data))
        except PARSE_FAULTS as fault:
            problems.append(f"is no revocation list ({fault})")
    return PemFile(path, tuple(certificates), tuple(crls), tuple(problems))


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """The chain of a node, leaf first. Raises LocalError SW1202."""
    file = read_file(path)
    if file.problems:
        raise LocalError("SW1202", f"{path}: {file.problems[0]}")
    if not file.certificates:
        raise LocalError("SW1202", f"{path} holds no PEM certificate")
    return file.certificates


def read_private_key(path: Path) -> PrivateKey:
    """The unencrypted private key of a node.

    Raises LocalError: SW1208 no such file or no key in it, SW1202 unreadable, SW1210 a kind that
    is not accepted.
    """
    if not path.exists():
        raise LocalError("SW1208", f"there is no key file {path}")
    data = read_bytes(path)
    if b"PRIVATE KEY-----" not in data:
        raise LocalError("SW1208", f"{path} holds no PEM private key")
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError as fault:
        raise LocalError("SW1202", f"the key {path} is protected by a password") from fault
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise LocalError("SW1202", f"the key {path} cannot be parsed ({fault})") from fault
    problem = key_problem(key.public_key(), of_ca=False)
    if problem:
        raise LocalError("SW1210", f"{path} has {problem}")
    assert isinstance(
        key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)
    ), "key_problem accepts only these"
    return key


def _parse_certificate(pem: bytes) -> x509.Certificate:
    certificate = x509.load_pem_x509_certificate(pem)
    _ = certificate.extensions, certificate.subject, certificate.issuer  # parsed lazily
    return certificate
