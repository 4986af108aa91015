"""Certificates of others: parsed within bounds, and named in messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from cryptography import x509

from swarm.errors import RemoteError
from swarm.identity.faults import PARSE_FAULTS
from swarm.identity.roles import common_name_of, spiffe_id_of

MAX_CERTIFICATE = 16 * 1024  # bytes; OpenSSL's default limit for a whole chain is 100 KiB


def describe(certificate: x509.Certificate) -> str:
    """Short name of a certificate for messages."""
    try:
        name = (
            common_name_of(certificate)
            or spiffe_id_of(certificate)
            or certificate.subject.rfc4514_string()
        )
    except PARSE_FAULTS:
        name = "without a readable subject"
    return f"certificate {name}"[:200]


@lru_cache(maxsize=2048)
def parse(der: bytes) -> x509.Certificate:
    """Certificate from DER. Raises RemoteError SW1211."""
    if len(der) > MAX_CERTIFICATE:
        raise RemoteError("SW1211", f"a certificate of {len(der)} bytes was presented")
    with malformed_is_remote():
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions, certificate.subject, certificate.issuer  # parsed lazily
    return certificate


@contextmanager
def malformed_is_remote() -> Iterator[None]:
    """Turn what `cryptography` raises on odd certificates into RemoteError SW1211."""
    try:
        yield
    except PARSE_FAULTS as fault:
        raise RemoteError("SW1211", f"a certificate cannot be read ({fault})") from fault
