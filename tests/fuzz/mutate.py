"""Inputs made from others by small random changes: cheap, and the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tests.fuzz.target import MAX_INPUT

_LENGTHS = (b"\x00", b"\x7f", b"\xff", b"\xff\xff", b"\xff\xff\xff\xff", b"\x80", b"\x18\x18")


def mutants(seeds: Sequence[bytes], seed: str) -> Iterator[bytes]:
    """Without end."""
    chance = random.Random(seed)
    while True:
        data = bytearray(chance.choice(seeds)) if seeds else bytearray()
        for _ in range(chance.choice((1, 1, 2, 4, 8))):
            _change(data, seeds, chance)
        yield bytes(data[:MAX_INPUT])


def _change(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    kind = chance.randrange(7)
    if kind == 0 and at < len(data):
        data[at] = chance.randrange(256)
    elif kind == 1 and at < len(data):
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 2:
        del data[at : at + chance.randrange(1, 9)]
    elif kind == 3:
        data[at:at] = chance.randbytes(chance.randrange(1, 6))
    elif kind == 4:
        data[at:at] = data[chance.randrange(len(data) + 1) :][: chance.randrange(1, 60)]
    elif kind == 5:
        data[at : at + chance.randrange(3)] = chance.choice(_LENGTHS)
    elif seeds:
        other = chance.choice(seeds)
        data[at:] = other[chance.randrange(len(other) + 1) :]
