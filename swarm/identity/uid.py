"""Names of certificates and of nodes."""

from __future__ import annotations

import hashlib


def fingerprint_of(der: bytes) -> str:
    """Name of a certificate: SHA-256 over its DER form, in lower-case hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def node_uid(fingerprint: str, name: str = "") -> str:
    """Identifier of a node: 32 hexadecimal characters.

    Several learners of one host may share a certificate, so the announced name is part of it. A
    network node has a certificate of its own and uses no name.
    """
    return hashlib.sha256(f"{fingerprint}|{name}".encode()).hexdigest()[:32]
