"""Certificates for tests: a CA per organisation, identities and odd certificates beneath it.

    ca = pki.authority(tmp_path, 1)
    sn = pki.identity(tmp_path, Role.SN, ca)

Everything lies in gen-cert's layout below the directory, so that two authorities made in the same
directory trust each other: they share `ca/capath`. For organisations that do not know each other
yet, make them in different directories and let one `trust` the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from certs.authority import Issued, KeyType, issue_ca, issue_crl, issue_leaf, new_key
from swarm.identity import Identity, Role
from swarm.identity.keys import PrivateKey


@lru_cache(maxsize=1)
def rsa_key() -> PrivateKey:
    """One RSA key for all tests: making one takes most of a second."""
    return new_key("rsa")


def key(kind: KeyType) -> PrivateKey:
    """Key of a kind, for `authority`, `files` and `identity`."""
    return rsa_key() if kind == "rsa" else new_key(kind)


@dataclass(frozen=True)
class Authority:
    """A CA, and the directory of trusted CAs that it lies in."""

    issued: Issued
    index: int
    capath: Path

    @property
    def path(self) -> Path:
        return self.capath / f"ca-{self.index}-cert.pem"

    def trust(self, other: Authority) -> None:
        """Put the other CA's certificate into this one's directory."""
        shutil.copy(other.path, self.capath)

    def revoke(self, *identities: Identity) -> Path:
        """Write a revocation list that names them into the directory."""
        path = self.capath / f"ca-{self.index}.crl"
        path.write_bytes(issue_crl(self.issued, [i.certificate for i in identities]))
        return path


@dataclass(frozen=True)
class Files:
    """Certificate and key file of a node."""

    cert: Path
    key: Path


def authority(directory: Path, index: int = 1, **options: Any) -> Authority:
    """New CA `CA-<index>`; `options` as for `issue_ca`."""
    capath = directory / "ca" / "capath"
    capath.mkdir(parents=True, exist_ok=True)
    made = Authority(issue_ca(f"CA-{index}", **options), index, capath)
    made.path.write_bytes(made.issued.certificate_pem)
    return made


def files(
    directory: Path,
    name: str,
    ca: Authority,
    *,
    intermediates: Sequence[Issued] = (),
    **options: Any,
) -> Files:
    """Certificate named `name` with its key, written to files; `options` as for `issue_leaf`."""
    issuer = intermediates[0] if intermediates else ca.issued
    issued = issue_leaf(issuer, name, **options)
    directory.mkdir(parents=True, exist_ok=True)
    made = Files(
        directory / f"{name.lower()}-cert.pem",
        directory / f"{name.lower()}-key.pem",
    )
    made.cert.write_bytes(
        issued.certificate_pem + b"".join(ca.certificate_pem for ca in intermediates)
    )
    made.key.touch(mode=0o600)
    made.key.write_bytes(issued.key_pem)
    return made


def identity(
    directory: Path, role: Role | str, ca: Authority, *, name: str = "", **options: Any
) -> Identity:
    """Identity with the role, trusting the CAs of the authority's directory.

    `name` tells several of one role and CA apart: `SN-<name>`; it is the CA's index otherwise.
    """
    common_name = f"{Role(role)}-{name or ca.index}"
    made = files(directory, common_name, ca, **options)
    return Identity.load(made.cert, made.key, capath=ca.capath)


def environment(
    directory: Path, role: Role | str, ca: Authority, *, name: str = ""
) -> dict[str, str]:
    """The same as environment variables, for a program that is started with them."""
    made = files(directory, f"{Role(role)}-{name or ca.index}", ca)
    return {
        "SWARM_ID_CERT": str(made.cert),
        "SWARM_ID_KEY": str(made.key),
        "SWARM_ID_CAPATH": str(ca.capath),
    }
