"""Requests and signing: certificates for keys that never leave their host.

The CA's host keeps a copy of all that it signed in `ca/issued/`: to name it in a revocation list,
and so that a name is not given to a second key by mistake.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import LEAF_DAYS, KeyType, certify, issue_request, key_pem, new_key
from certs.host import (
    HostFiles,
    check_days,
    check_hosts,
    hosts_of,
    read_ca,
    write_file,
)
from certs.request import Request, judge, split_name
from swarm.errors import LocalError, RemoteError
from swarm.identity.chain import key_fingerprint
from swarm.identity.files import read_bytes, read_certificates, read_private_key
from swarm.identity.keys import PrivateKey

ISSUED = "issued"  # directory beside the CA's key

# ------------------------------------------------------------------ on the node's host


def make_request(
    directory: Path, name: str, *, hosts: Sequence[str] = (), key_type: KeyType = "ec"
) -> Path:
    """Write a new key (mode 0600) and a request for it; returns the request.

    Raises LocalError SW1101 when there is a key already, SW1102, SW1103, SW1106.
    """
    role, index = split_name(name)
    check_hosts(hosts)
    files = HostFiles(directory, index)
    if files.key(role).exists():
        raise LocalError(
            "SW1101", f"{files.key(role)} exists already: keep it with swarm cert renew"
        )
    key = new_key(key_type)
    with _writing():
        directory.mkdir(parents=True, exist_ok=True)
        write_file(files.key(role), key_pem(key), private=True)
    return _write_request(files, f"{role}-{index}", key, hosts)


def renew_request(directory: Path, name: str, *, hosts: Sequence[str] = ()) -> Path:
    """Write a request for the key that is there: its holder stays the same member.

    Names are those of the certificate unless `hosts` are given. Raises LocalError as
    `make_request`, and for a key or certificate that cannot be used.
    """
    role, index = split_name(name)
    check_hosts(hosts)
    files = HostFiles(directory, index)
    key = read_private_key(files.key(role))
    if not hosts and files.cert(role).exists():
        certificate = read_certificates(files.cert(role))[0]
        hosts = tuple(host for host in hosts_of(certificate) if host != f"{role}-{index}")
    return _write_request(files, f"{role}-{index}", key, hosts)


def _write_request(files: HostFiles, name: str, key: PrivateKey, hosts: Sequence[str]) -> Path:
    data = issue_request(name, key, hosts)
    path = files.directory / f"{name.lower()}-request.pem"
    judge(data, str(path))  # nobody should travel to the CA with what it refuses
    with _writing():
        write_file(path, data)
    return path


# ------------------------------------------------------------------ on the CA's host


def sign_request(
    request: Request, files: HostFiles, *, days: int = LEAF_DAYS, replace: bool = False
) -> x509.Certificate:
    """Issue what a judged request asks for, and keep a copy.

    Raises LocalError SW1107 when the name was issued for another key, unless `replace`; SW1102,
    SW1103; SW1202, SW1208 to SW1210 when the CA cannot be used.
    """
    check_days(days)
    with _alone(files.ca_key):
        ca, serial = read_ca(files)
        if not replace:
            _refuse_second_key(request, files)
        serial += 1
        with _writing():
            write_file(files.ca_serial, f"{serial:040X}\n".encode())
    certificate = certify(
        ca, request.name, request.key, days=days, hosts=request.hosts, serial=serial
    )
    copies = files.ca_key.parent / ISSUED
    with _writing():
        copies.mkdir(exist_ok=True)
        write_file(
            copies / f"{request.name.lower()}-{serial:040x}.pem",
            certificate.public_bytes(Encoding.PEM),
        )
    return certificate


def _refuse_second_key(request: Request, files: HostFiles) -> None:
    known = [files.directory / f"{request.name.lower()}-cert.pem"]
    known += sorted((files.ca_key.parent / ISSUED).glob(f"{request.name.lower()}-*.pem"))
    for path in known:
        if not path.exists():
            continue
        for certificate in read_certificates(path)[:1]:
            key = _key_of(certificate, path)
            if key != request.fingerprint:
                raise LocalError(
                    "SW1107", f"{request.name} was issued for the key {key[:16]}…, see {path}"
                )


def _key_of(certificate: x509.Certificate, path: Path) -> str:
    try:
        return key_fingerprint(certificate.public_bytes(Encoding.DER))
    except RemoteError as fault:
        raise LocalError("SW1202", f"{path}: {fault.cause}") from fault


def read_request(path: Path) -> Request:
    """The request in a file. Raises LocalError as `judge`, and SW1202."""
    return judge(read_bytes(path), str(path))


def place_certificate(path: Path, certificate: x509.Certificate) -> None:
    """Write the signed certificate, over one of the same key only. Raises LocalError."""
    if path.exists():
        old = _key_of(read_certificates(path)[0], path)
        if old != _key_of(certificate, path):
            raise LocalError("SW1101", f"{path} is there already, for another key")
    with _writing():
        write_file(path, certificate.public_bytes(Encoding.PEM))


@contextmanager
def _writing() -> Iterator[None]:
    """Turn faults of writing into LocalError SW1103."""
    try:
        yield
    except OSError as fault:
        text = f"cannot write {fault.filename} ({fault.strerror})"
        raise LocalError("SW1103", text) from fault


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One signer at a time: no serial number may be used twice. Raises LocalError SW1208."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except FileNotFoundError as fault:
        raise LocalError("SW1208", f"there is no key of the CA, {path}") from fault
