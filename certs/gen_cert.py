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

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from certs.authority import (
    CA_DAYS,
    LEAF_DAYS,
    KeyType,
    issue_ca,
    issue_leaf,
    new_key,
)
from certs.host import (
    WORD,
    HostFiles,
    check_days,
    check_hosts,
    first_serial,
    hosts_of,
    read_ca,
    write_file,
)
from swarm.errors import LocalError
from swarm.identity.files import read_certificates, read_private_key
from swarm.identity.keys import PrivateKey
from swarm.identity.roles import Role


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
    if not WORD.fullmatch(files.index):
        raise LocalError("SW1102", f"the host index {files.index!r} is not a number or short word")
    check_days(days)
    check_hosts(hosts)
    try:
        held: dict[Role, _Kept | None] = {}
        files.capath.mkdir(parents=True, exist_ok=True)
        if renew:
            ca, serial = read_ca(files)
            held = {role: _kept(files, role) for role in Role}  # before anything is written
        else:
            if not force:
                _refuse_overwriting(files)
            ca = issue_ca(f"CA-{index}", days=max(CA_DAYS, days), key=new_key(key_type))
            serial = first_serial()
            write_file(files.ca_key, ca.key_pem, private=True)
            write_file(files.ca_cert, ca.certificate_pem)
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
            write_file(files.ca_serial, f"{serial:040X}\n".encode())
            if kept is None:
                write_file(files.key(role), leaf.key_pem, private=True)
            write_file(files.cert(role), leaf.certificate_pem)
    except OSError as fault:
        raise LocalError("SW1103", f"cannot write {fault.filename} ({fault.strerror})") from fault
    return files


def _refuse_overwriting(files: HostFiles) -> None:
    there = [path for path in (*files.of_ca(), *files.of_nodes()) if path.exists()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise LocalError("SW1101", f"{there[0]}{more} exist already")


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
    return _Kept(key, hosts_of(read_certificates(files.cert(role))[0]))


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
