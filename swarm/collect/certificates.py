"""The public parts of certificates, in words. Keys are never opened."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from swarm.errors import LocalError
from swarm.identity.files import read_file

MOST_FILES = 200  # of one directory


def described(path: Path) -> list[str]:
    """What the certificates and revocation lists of a file, or of a directory's files, say."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())[:MOST_FILES]
        return [line for file in files for line in described(file)]
    try:
        found = read_file(path)
    except LocalError as fault:
        return [f"{path}: {fault.cause}"]
    lines = [f"{path}:"]
    for certificate in found.certificates:
        lines += [f"    {line}" for line in _certificate(certificate)]
    for crl in found.crls:
        revoked = ", ".join(f"{entry.serial_number:x}" for entry in crl) or "nobody"
        lines.append(f"    revocation list of {crl.issuer.rfc4514_string()}: {revoked}")
    lines += [f"    {problem}" for problem in found.problems]
    return lines if len(lines) > 1 else [f"{path}: no certificate"]


def _certificate(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        others = ", ".join(str(name.value) for name in names)
    except x509.ExtensionNotFound:
        others = "none"
    key = type(certificate.public_key()).__name__.strip("_")
    return [
        f"subject {certificate.subject.rfc4514_string()}, issuer "
        f"{certificate.issuer.rfc4514_string()}, serial {certificate.serial_number:x}",
        f"  valid {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
        f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, {key}, other names: {others}",
        f"  SHA-256 {certificate.fingerprint(hashes.SHA256()).hex()}",
    ]
