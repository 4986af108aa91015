"""`swarm cert request`, `sign` and `renew`: certificates for keys that never leave their host.

on the node's host    swarm cert request sn-3      sn-3-key.pem (0600), sn-3-request.pem
on the CA's host      swarm cert sign sn-3-request.pem --ca workspace/mnist/cert -i 1
back on the node's    sn-3-cert.pem beside the key
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from certs.authority import LEAF_DAYS, KeyType
from certs.host import HostFiles
from certs.request import Request, same_fingerprint, spoken
from certs.signing import (
    make_request,
    place_certificate,
    read_request,
    renew_request,
    sign_request,
)
from swarm.errors import LocalError

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_directory = click.option(
    "--directory", "-d", default=".", show_default=True, help="Where key and request go.",
    type=click.Path(path_type=Path, file_okay=False),
)  # fmt: skip
_hosts = click.option(
    "--host", "hosts", multiple=True, help="IP address or DNS name to add; may be repeated."
)


@click.command("swarm cert request", context_settings=_SETTINGS)
@click.argument("name")
@_directory
@_hosts
@click.option(
    "--key-type", type=click.Choice(["ec", "rsa", "ed25519"]), default="ec", show_default=True,
    help="Kind of key: ECDSA P-256, RSA-3072 or Ed25519.",
)  # fmt: skip
def request_command(name: str, directory: Path, hosts: tuple[str, ...], key_type: KeyType) -> None:
    """Make a key and a request on the node's host. NAME is sn-3, sl-3, swop-3 or swci-3."""
    _tell_request(make_request(directory, name, hosts=hosts, key_type=key_type))


@click.command("swarm cert renew", context_settings=_SETTINGS)
@click.argument("name")
@_directory
@_hosts
def renew_command(name: str, directory: Path, hosts: tuple[str, ...]) -> None:
    """Make a request for the key that is there: the node stays the same member."""
    _tell_request(renew_request(directory, name, hosts=hosts))


def _tell_request(path: Path) -> None:
    asked = read_request(path)
    stem = path.name.removesuffix("-request.pem")
    click.echo(f"{path}  request for {asked.name}{_with_hosts(asked)}")
    click.echo(
        f"Send it to the host of the CA; the key {stem}-key.pem stays here. It is signed with"
    )
    click.echo(f"  swarm cert sign {path.name} --ca DIRECTORY --index I")
    click.echo(f"Put the certificate that comes back beside the key, as {stem}-cert.pem.")
    click.echo("Read this fingerprint of the key to them over the telephone:")
    click.echo(f"  {spoken(asked.fingerprint)}")


@click.command("swarm cert sign", context_settings=_SETTINGS)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="REQUEST")
@click.option(
    "--ca", "directory", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="gen-cert's directory, which holds ca/.",
)  # fmt: skip
@click.option("-i", "--index", required=True, help="Index of the host whose CA signs.")
@click.option("--days", default=LEAF_DAYS, show_default=True, help="Validity.")
@click.option("--fingerprint", default="", help="What was read out; asked for when it is missing.")
@click.option("--replace", is_flag=True, help="The name had another key, which is given up.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False),
    help="Where the certificate goes (default: beside the request).",
)  # fmt: skip
def sign_command(
    file: Path, directory: Path, index: str, days: int, fingerprint: str, replace: bool,
    out: Path | None,
) -> None:  # fmt: skip
    """Sign a request on the host of the CA, once its fingerprint was compared."""
    asked = read_request(file)
    click.echo(f"{file}: {asked.name}, role {asked.role}{_with_hosts(asked)}")
    click.echo(f"Fingerprint of its key:\n  {spoken(asked.fingerprint)}")
    given = fingerprint or _ask()
    if not same_fingerprint(given, asked.fingerprint):
        raise LocalError("SW1108", f"{file}: the fingerprint that was given is another one")
    files = HostFiles(directory, index)
    certificate = sign_request(asked, files, days=days, replace=replace)
    path = out or file.with_name(f"{asked.name.lower()}-cert.pem")
    place_certificate(path, certificate)
    click.echo(f"{path}  valid until {_day(certificate.not_valid_after_utc)}")
    click.echo(f"Send it back, and {files.ca_cert} for its capath. Neither is a secret.")


def _ask() -> str:
    if not sys.stdin.isatty():
        raise LocalError("SW1108", "nobody is there to compare it: give --fingerprint")
    given: str = click.prompt("Type what the requester reads out (any form, all of it)")
    return given


def _with_hosts(asked: Request) -> str:
    return f", also as {', '.join(asked.hosts)}" if asked.hosts else ""


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def request(argv: Sequence[str]) -> int:
    """Execute `swarm cert request`; the exit status. Raises LocalError."""
    return _run(request_command, argv)


def renew(argv: Sequence[str]) -> int:
    """Execute `swarm cert renew`; the exit status. Raises LocalError."""
    return _run(renew_command, argv)


def sign(argv: Sequence[str]) -> int:
    """Execute `swarm cert sign`; the exit status. Raises LocalError."""
    return _run(sign_command, argv)


def _run(command: click.Command, argv: Sequence[str]) -> int:
    try:
        command.main(list(argv), prog_name=command.name, standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        return 1
    except click.ClickException as fault:
        fault.show()
        return fault.exit_code
    return 0
