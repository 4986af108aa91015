"""`gen-cert`: the certificates of one host.

Files, below `workspace/<example>/cert/` of the directory that it is run in, for host index 1:

    ca/ca-1-key.pem             the CA's private key: stays on this host
    ca/ca-1-srl.srl             last serial number, in the form that `openssl x509 -CAserial` reads
    ca/capath/ca-1-cert.pem     the CA's certificate: the only file that other hosts get
    sn-1-cert.pem  sn-1-key.pem, and the same for sl, swop and swci

Private keys have mode 0600 and are not encrypted, since nodes start unattended.

A member of a swarm is its key. So `--renew` makes new certificates for the keys that are there, and
the running nodes go on with them as the same members; `--force` makes new keys, and thereby new
members.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.authority import (
    CA_DAYS,
    LEAF_DAYS,
    Issued,
    KeyType,
    host_name,
    issue_ca,
    issue_leaf,
    new_key,
)
from swarm.errors import LocalError, RemoteError
from swarm.identity.files import read_certificates, read_private_key
from swarm.identity.keys import PrivateKey, public_der
from swarm.identity.roles import Role
from swarm.identity.trust import check_validity

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_MAX_DAYS = 36500


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


def make_host(
    directory: Path,
    index: int | str,
    *,
    days: int = LEAF_DAYS,
    key_type: KeyType = "ec",
    hosts: Sequence[str] = (),
    force: bool = False,
    renew: bool = False,
) -> HostFiles:
    """Write a CA and one certificate for each role into `directory`.

    `renew` keeps the CA, the keys, and the names in the certificates unless `hosts` are given, and
    makes the node certificates anew; `force` replaces everything. Without them no existing file is
    touched. Raises LocalError: SW1101 files exist, SW1102 a bad argument,
    SW1103 cannot write; with `renew` also SW1202, SW1208, SW1209 or SW1210 when the CA or a
    key cannot be used.
    """
    files = HostFiles(directory, str(index))
    _check_arguments(files.index, days, hosts)
    try:
        held: dict[Role, _Kept | None] = {}
        files.capath.mkdir(parents=True, exist_ok=True)
        if renew:
            ca, serial = _read_ca(files)
            held = {role: _kept(files, role) for role in Role}  # before anything is written
        else:
            if not force:
                _refuse_overwriting(files)
            ca = issue_ca(f"CA-{index}", days=max(CA_DAYS, days), key=new_key(key_type))
            serial = _first_serial()
            _write(files.ca_key, ca.key_pem, private=True)
            _write(files.ca_cert, ca.certificate_pem)
        for role in Role:
            serial += 1
            name = f"{role}-{index}"
            kept = held.get(role)
            leaf = issue_leaf(
                ca,
                name,
                days=days,
                hosts=hosts or (kept.hosts if kept else ()),
                serial=serial,
                key=kept.key if kept else new_key(key_type),
            )
            _write(files.ca_serial, f"{serial:040X}\n".encode())
            if kept is None:
                _write(files.key(role), leaf.key_pem, private=True)
            _write(files.cert(role), leaf.certificate_pem)
    except OSError as fault:
        raise LocalError("SW1103", f"cannot write {fault.filename} ({fault.strerror})") from fault
    return files


def _check_arguments(index: str, days: int, hosts: Sequence[str]) -> None:
    if not _WORD.fullmatch(index):
        raise LocalError("SW1102", f"the host index {index!r} is not a number or short word")
    if not 1 <= days <= _MAX_DAYS:
        raise LocalError("SW1102", f"--days {days} is not between 1 and {_MAX_DAYS}")
    for host in hosts:
        try:
            if not host or any(c.isspace() for c in host):
                raise ValueError("it is empty or holds blanks")
            host_name(host)
        except ValueError as fault:
            raise LocalError("SW1102", f"--host {host!r} is no IP or DNS name ({fault})") from fault


def _refuse_overwriting(files: HostFiles) -> None:
    there = [path for path in (*files.of_ca(), *files.of_nodes()) if path.exists()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise LocalError("SW1101", f"{there[0]}{more} exist already")


def _read_ca(files: HostFiles) -> tuple[Issued, int]:
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
    return Issued(certificate, key), _last_serial(files)


class _Kept(NamedTuple):
    """What a renewed certificate has in common with the one before."""

    key: PrivateKey
    hosts: tuple[str, ...]


def _kept(files: HostFiles, role: Role) -> _Kept | None:
    """Key and host names of an earlier run; None when that role's key file is not there."""
    if not files.key(role).exists():
        return None
    key = read_private_key(files.key(role))
    if not files.cert(role).exists():
        return _Kept(key, ())
    certificate = read_certificates(files.cert(role))[0]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return _Kept(key, ())
    hosts = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return _Kept(key, (*names.get_values_for_type(x509.DNSName), *hosts))


def _last_serial(files: HostFiles) -> int:
    """Number in the serial file, or a random start when there is none."""
    try:
        return int(files.ca_serial.read_text("ascii"), 16)
    except FileNotFoundError:
        return _first_serial()
    except ValueError as fault:
        raise LocalError("SW1202", f"{files.ca_serial} holds no hexadecimal number") from fault


def _first_serial() -> int:
    """Random, positive and of at most 20 octets (RFC 5280 4.1.2.2)."""
    return secrets.randbits(150) | 1 << 150


def _write(path: Path, data: bytes, *, private: bool = False) -> None:
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


_EXAMPLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-e", "--example", default="", help="Directory below workspace/, for instance mnist.")
@click.option(
    "-i", "--index", default="", help="Index of this host: 1 on the first, 2 on the next."
)
@click.option("--days", default=LEAF_DAYS, show_default=True, help="Validity of node certificates.")
@click.option(
    "--key-type",
    type=click.Choice(["ec", "rsa", "ed25519"]),
    default="ec",
    show_default=True,
    help="Kind of keys: ECDSA P-256, RSA-3072 or Ed25519.",
)
@click.option(
    "--host", "hosts", multiple=True, help="IP address or DNS name to add; may be repeated."
)
@click.option(
    "--renew", is_flag=True, help="Make new node certificates, with the same CA and the same keys."
)
@click.option("--force", is_flag=True, help="Replace everything, the CA and all keys included.")
@click.pass_context
def main(
    context: click.Context,
    example: str,
    index: str,
    days: int,
    key_type: KeyType,
    hosts: tuple[str, ...],
    renew: bool,
    force: bool,
) -> None:
    """Make the certificates of one host: a CA, and one certificate each for SN, SL, SWOP and SWCI.

    Run it from the directory that holds workspace/; the files go to workspace/EXAMPLE/cert/. Run it
    on each host with an index of its own, then copy each CA certificate to all other hosts.
    """
    if not example or not index:
        click.echo("Some or all of the parameters are empty", err=True)
        click.echo(context.get_help(), err=True)
        context.exit(1)
    try:
        if not _EXAMPLE.fullmatch(example):
            raise LocalError("SW1102", f"--example {example!r} is no directory below workspace/")
        if renew and force:
            raise LocalError("SW1102", "--renew and --force exclude each other")
        directory = Path("workspace", example, "cert")
        click.echo(f"Making {'node certificates' if renew else 'a CA and node certificates'} ...")
        files = make_host(
            directory, index, days=days, key_type=key_type, hosts=hosts, force=force, renew=renew
        )
    except LocalError as fault:
        click.echo(f"gen-cert: {fault}", err=True)
        sys.exit(1)
    _tell(files, renew=renew, force=force)


def _tell(files: HostFiles, *, renew: bool, force: bool) -> None:
    """What was made, and what the user does next."""
    until = read_certificates(files.cert(Role.SN))[0].not_valid_after_utc
    for role in Role:
        click.echo(f"  {files.cert(role)}  {files.key(role).name}  valid until {until:%Y-%m-%d}")
    if renew:
        click.echo(f"The CA {files.ca_cert} is unchanged: nothing to copy to other hosts.")
        click.echo("The private keys are unchanged: the nodes stay the same members.")
        click.echo("Running nodes go on with the new certificates within seconds.")
        return
    click.echo(f"  {files.ca_cert}  certificate of the CA")
    click.echo(f"Copy {files.ca_cert} into the directory ca/capath of every other host,")
    click.echo(
        f"and theirs into {files.capath}. It is no secret; the key files never leave this host."
    )
    if force:
        click.echo("Other hosts that have an older CA certificate of this host must replace it.")
        click.echo("All keys are new: nodes that are started with them join as new members.")


if __name__ == "__main__":
    main()
