"""The digest of a whole state: one hash over the digests of its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

TAG = b"swarm-state-1"


def state_digest(chain: bytes, height: int, parts: Iterable[tuple[str, bytes]]) -> bytes:
    """Return SHA-256 over chain id, height and the named 32-byte digests of all tables."""
    summary = hashlib.sha256(TAG + chain + height.to_bytes(8, "big"))
    for name, digest in parts:
        encoded = name.encode()
        summary.update(len(encoded).to_bytes(1, "big") + encoded + digest)
    return summary.digest()
