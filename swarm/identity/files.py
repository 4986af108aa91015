"""Reading certificates, revocation lists and keys from files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
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

MAX_PROBLEMS = 20  # of one file that are told

_BEGIN = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----\s")


@dataclass(frozen=True)
class PemFile:
    """What was found in one file; `problems` tells about blocks that could not be parsed."""

    path: Path
    certificates: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...]
    problems: tuple[str, ...]


def read_bytes(path: Path) -> bytes:
    """Whole file. Raises LocalError SW1202, SW9012 when it is not for this user."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except PermissionError as fault:
        raise _not_ours(path) from fault
    except OSError as fault:
        raise LocalError("SW1202", f"cannot read {path} ({fault.strerror})") from fault
    if len(data) > MAX_FILE:
        raise LocalError("SW1202", f"{path} is larger than {MAX_FILE} bytes")
    return data


def _not_ours(path: Path) -> LocalError:
    """Why a file may not be read; in a container, mostly because the node runs as another user."""
    try:
        info = path.stat()
    except OSError:
        return LocalError("SW1202", f"cannot read {path} (a directory above it is closed to us)")
    return LocalError(
        "SW9012",
        f"{path} belongs to user {info.st_uid} with mode {info.st_mode & 0o777:04o}, and this "
        f"node runs as user {os.geteuid()}",
    )


def read_file(path: Path) -> PemFile:
    """All certificates and CRLs of a file: PEM blocks with any text between, or a DER `.crl`."""
    data = read_bytes(path)
    certificates: list[x509.Certificate] = []
    crls: list[x509.CertificateRevocationList] = []
    problems: list[str] = []
    for kind, block in _blocks(data):
        try:
            if not block:
                problems.append("a block has no end")
            elif kind == b"CERTIFICATE":
                certificates.append(_parse_certificate(block))
            else:
                crls.append(x509.load_pem_x509_crl(block))
        except PARSE_FAULTS as fault:
            problems.append(f"a {kind.decode()} block cannot be parsed ({fault})")
        if len(problems) > MAX_PROBLEMS:
            break
    if path.suffix == ".crl" and not crls and not certificates and not problems:
        try:
            crls.append(x509.load_der_x509_crl(data))
        except PARSE_FAULTS as fault:
            problems.append(f"is no revocation list ({fault})")
    return PemFile(path, tuple(certificates), tuple(crls), tuple(problems))


def _blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and text of each PEM block; b"" for one that ends where the next one begins, or never.

    Each byte is looked at a few times only, however many blocks begin and never end.
    """
    begins = list(_BEGIN.finditer(data))
    limits = [*(begin.start() for begin in begins[1:]), len(data)]
    for begin, limit in zip(begins, limits):  # noqa: B905 - none of a file without a block
        end = b"-----END " + begin[1] + b"-----"
        at = data.find(end, begin.end(), limit)
        yield begin[1], data[begin.start() : at + len(end)] if at >= 0 else b""


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
    try:
        path.stat()
    except PermissionError as fault:
        raise _not_ours(path) from fault
    except OSError as fault:
        raise LocalError("SW1208", f"there is no key file {path}") from fault
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
