"""Names of keys, of CA certificates and of nodes.

A member is its key: certificates come and go (they are renewed, by another CA perhaps), and the
holder of the key stays the same member, with the same uid, peer id, rights and history. So a
member's fingerprint is the SHA-256 of its public key as SubjectPublicKeyInfo (what RFC 7469 pins).
An organisation's is that of its CA's certificate.
"""

from __future__ import annotations

import hashlib


def fingerprint_of(der: bytes) -> str:
    """SHA-256 in lower-case hexadecimal: of a public key (DER SubjectPublicKeyInfo) or of a CA's
    certificate (DER)."""
    return hashlib.sha256(der).hexdigest()


def node_uid(fingerprint: str, name: str = "") -> str:
    """Identifier of a node: 32 hexadecimal characters.

    `fingerprint` is that of its key. Several learners of one host may share a certificate, so the
    announced name is part of it. A network node has a key of its own and uses no name.
    """
    return hashlib.sha256(f"{fingerprint}|{name}".encode()).hexdigest()[:32]
