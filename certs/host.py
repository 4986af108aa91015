"""Where the certificates of one host lie, and how they are read and written.

Private keys are never readable by others, not even briefly, and every file is replaced in one step:
running nodes look at them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.authority import Issued, host_name
from swarm.errors import LocalError, RemoteError
from swarm.identity.files import read_certificates, read_private_key
from swarm.identity.keys import public_der
from swarm.identity.roles import Role
from swarm.identity.trust import check_validity

WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
MAX_DAYS = 36500


def check_days(days: int) -> None:
    """Raises LocalError SW1102 for a validity that nobody means."""
    if not 1 <= days <= MAX_DAYS:
        raise LocalError("SW1102", f"--days {days} is not between 1 and {MAX_DAYS}")


def check_hosts(hosts: Sequence[str]) -> None:
    """Raises LocalError SW1102 for what is neither an IP address nor a DNS name."""
    for host in hosts:
        try:
            if not host or any(c.isspace() for c in host):
                raise ValueError("it is empty or holds blanks")
            host_name(host)
        except ValueError as fault:
            raise LocalError("SW1102", f"--host {host!r} is no IP or DNS name ({fault})") from fault


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names and IP addresses in a certificate, its own name among them."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return (*names.get_values_for_type(x509.DNSName), *addresses)


@dataclass(frozen=True)
class HostFiles:
    """Where the files of one host lie."""

    directory: Path
    index: str

    @property
    def ca_key(self) -> Path:
        return self.directory / "ca" / f"ca-{self.index}-key.pem"

    @property
    def ca_serial(self) -> Path:
        return self.directory / "ca" / f"ca-{self.index}-srl.srl"

    @property
    def capath(self) -> Path:
        return self.directory / "ca" / "capath"

    @property
    def ca_cert(self) -> Path:
        return self.capath / f"ca-{self.index}-cert.pem"

    def cert(self, role: Role) -> Path:
        return self.directory / f"{role.lower()}-{self.index}-cert.pem"

    def key(self, role: Role) -> Path:
        return self.directory / f"{role.lower()}-{self.index}-key.pem"

    def of_ca(self) -> list[Path]:
        return [self.ca_key, self.ca_serial, self.ca_cert]

    def of_nodes(self) -> list[Path]:
        return [path for role in Role for path in (self.key(role), self.cert(role))]


def read_ca(files: HostFiles) -> tuple[Issued, int]:
    """CA and last serial number of an earlier run."""
    certificate = read_certificates(files.ca_cert)[0]
    key = read_private_key(files.ca_key)
    if public_der(key.public_key()) != certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ):
        raise LocalError("SW1209", f"the key {files.ca_key} does not belong to {files.ca_cert}")
    try:
        check_validity(certificate, datetime.now(timezone.utc))
    except RemoteError as fault:
        raise LocalError("SW1102", f"{files.ca_cert}: {fault.cause}: use --force") from fault
    return Issued(certificate, key), last_serial(files)


def last_serial(files: HostFiles) -> int:
    """Number in the serial file, or a random start when there is none."""
    try:
        return int(files.ca_serial.read_text("ascii"), 16)
    except FileNotFoundError:
        return first_serial()
    except ValueError as fault:
        raise LocalError("SW1202", f"{files.ca_serial} holds no hexadecimal number") from fault


def first_serial() -> int:
    """Random, positive and of at most 20 octets (RFC 5280 4.1.2.2)."""
    return secrets.randbits(150) | 1 << 150


def write_file(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replace the file in one step; private ones are never readable by others, not even briefly."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    mode = 0o600 if private else 0o644
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        raise
