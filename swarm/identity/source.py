"""Where a node's certificate comes from: files here, a SPIFFE agent in `spiffe`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509

from swarm.errors import LocalError
from swarm.identity.files import read_certificates, read_private_key
from swarm.identity.keys import PrivateKey, public_der
from swarm.identity.trust import stamp_of

WARN_DAYS = (30, 7, 1)


@dataclass(frozen=True)
class Material:
    """A certificate chain as it came, not verified yet, and its keys."""

    chain: tuple[x509.Certificate, ...]  # leaf first; the delegation, where there is one, last
    tls_key: PrivateKey  # of the leaf
    member_key: PrivateKey  # what the node signs with and is known by


class Source(Protocol):
    """Gives the present certificate, and tells when there may be another."""

    @property
    def where(self) -> str:
        """For messages: `sn-1-cert.pem`."""

    @property
    def remedy(self) -> str:
        """What to do about a certificate that ends soon."""

    def warn_at(self, lifetime: timedelta) -> tuple[timedelta, ...]:
        """How long before its end to warn, the earliest first."""

    def stamp(self) -> object:
        """Is another value whenever `read` may give something else."""

    def trouble(self) -> str:
        """Why nothing newer can come at the moment, or ""."""

    def read(self) -> Material:
        """The present certificate. Raises LocalError SW12xx."""


class FileSource:
    """Certificate and key in PEM files."""

    def __init__(self, cert: Path, key: Path) -> None:
        self.cert = cert
        self.key = key
        self.where = str(cert)
        self.remedy = "renew it with gen-cert --renew or swarm cert renew"

    def warn_at(self, lifetime: timedelta) -> tuple[timedelta, ...]:
        return tuple(timedelta(days=days) for days in WARN_DAYS)

    def stamp(self) -> object:
        return stamp_of(self.cert), stamp_of(self.key)

    def trouble(self) -> str:
        return ""

    def read(self) -> Material:
        """Raises LocalError SW1202, SW1208, SW1209, SW1210."""
        chain = read_certificates(self.cert)
        private = read_private_key(self.key)
        if public_der(private.public_key()) != public_der(chain[0].public_key()):  # type: ignore[arg-type]
            text = f"the key {self.key} does not belong to the certificate {self.cert}"
            raise LocalError("SW1209", text)
        return Material(chain, private, private)
