"""The kept inputs: one file for each target, a list of byte strings in CBOR.

They are what coverage-guided runs have found to take different paths, smallest first.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from swarm.ledger import codec

FOLDER = Path(__file__).parent / "corpus"
MAX_BYTES = 8 * 1024  # of one target


def kept(name: str) -> list[bytes]:
    """The inputs that are kept for a target."""
    path = FOLDER / f"{name}.cbor"
    if not path.exists():
        return []
    inputs: list[bytes] = codec.decode(path.read_bytes(), limit=1 << 20, what=name)
    return inputs


def keep(name: str, inputs: Iterable[bytes]) -> int:
    """Keep the smallest of `inputs`, as many as fit; returns how many."""
    chosen: list[bytes] = []
    size = 0
    # Not even a test's private key is kept: programs that look for such would complain.
    public = {data for data in inputs if b"PRIVATE" not in data}
    for data in sorted(public, key=lambda one: (len(one), one)):
        size += len(data) + 3
        if size > MAX_BYTES:
            break
        chosen.append(data)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.cbor").write_bytes(codec.encode(chosen))
    return len(chosen)
