"""TLS contexts, and the check at the door.

Two layers share the work:

1. The TLS handshake proves that the other side holds the key, and OpenSSL verifies its chain up to
   a trusted CA, validity dates and extended key usage included. TLS 1.3 only, certificates on both
   sides. Host names are not compared: trust is in the certificate, wherever its holder stands.
2. `check_peer`, right after the handshake and before the first byte is read or written, adds what
   OpenSSL does not know or cannot do well: the role that may enter here, revocation (see `trust`),
   and our rules for keys. A peer that fails it is closed without a word.

A TLS 1.3 client learns of a refused certificate only when it reads: the handshake looks complete to
it. Protocols above therefore let the server speak first, or treat a disconnect as a refusal.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, Protocol

from cryptography.hazmat.primitives.serialization import Encoding

from swarm.errors import LocalError, RemoteError
from swarm.identity.chain import Peer
from swarm.identity.roles import Role
from swarm.identity.trust import TrustStore

_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN: an intermediate CA may be the trusted one


def make_context(pem: bytes, trust: TrustStore, *, server: bool) -> ssl.SSLContext:
    """Context for one side of a connection; `pem` is a private key and its chain.

    Raises LocalError SW1209 when the two do not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= _PARTIAL_CHAIN
    if server:
        context.num_tickets = 0  # a resumed session would skip the look at the certificate
    cas = "".join(ca.public_bytes(Encoding.PEM).decode("ascii") for ca in trust.cas)
    context.load_verify_locations(cadata=cas)
    try:
        with _as_file(pem) as path:
            context.load_cert_chain(path)
    except ssl.SSLError as fault:
        raise LocalError("SW1209", f"key and certificate do not fit ({fault.reason})") from fault
    return context


class Contexts:
    """The context of one side of an identity's connections, made anew whenever that has changed."""

    def __init__(self, identity: Renewable, *, server: bool) -> None:
        self._identity = identity
        self._make = identity.server_context if server else identity.client_context
        self._made = (identity.version, self._make())

    @property
    def current(self) -> ssl.SSLContext:
        """For the next connection. Safe to share between threads."""
        version = self._identity.version
        if self._made[0] != version:
            self._made = (version, self._make())
        return self._made[1]


class Renewable(Protocol):
    """What `Contexts` needs of an `Identity`."""

    @property
    def version(self) -> object: ...

    def server_context(self) -> ssl.SSLContext: ...

    def client_context(self) -> ssl.SSLContext: ...


@contextmanager
def _as_file(pem: bytes) -> Iterator[str]:
    """A name under which OpenSSL can read the bytes, which Python cannot hand to it directly.

    Not the user's files: these may be in the middle of being replaced.
    """
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("identity"), "wb") as file:
            file.write(pem)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:  # readable by its owner only
            file.write(pem)
            file.flush()
            yield file.name


def presented_chain(connection: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
    """What the other side sent, leaf first, as DER. Empty when it sent nothing.

    Python has had this since 3.10, but under its own name only since 3.13.
    """
    public = getattr(connection, "get_unverified_chain", None)
    if public is not None:
        return [bytes(der) for der in public() or ()]
    raw: Any = getattr(connection, "_sslobj", None)
    chain = raw.get_unverified_chain() if raw is not None else None
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain or ()]


def check_peer(
    source: ssl.SSLSocket | ssl.SSLObject | Sequence[bytes],
    trust: TrustStore,
    roles: Container[Role] | None,
    *,
    at: datetime | None = None,
) -> Peer:
    """Decide whether the other side of a finished handshake may enter.

    `source` is the TLS connection, or the chain as DER (leaf first). `at` is for tests; it is now
    otherwise. Raises RemoteError SW12xx; the caller closes the connection then.
    """
    is_tls = isinstance(source, (ssl.SSLSocket, ssl.SSLObject))
    chain = presented_chain(source) if is_tls else list(source)  # type: ignore[arg-type]
    if not chain:
        raise RemoteError("SW1211", "no certificate was presented")
    return trust.verify(chain, at=at or datetime.now(timezone.utc), roles=roles)
