"""Decisions and values out of a byte string, so that a fuzzer of bytes can fuzz structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_NUMBERS = (0, 1, -1, 2, 7, 100, 1 << 16, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, -(1 << 63))
_TEXTS = ("", "a", "*", "x" * 70, "sl-1", "ROOTTASK", "\x00", "\u202e", "é", "0" * 64)


class Source:
    """Reads a byte string from the front; at its end everything is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        taken = self.take(1)
        return taken[0] if taken else 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def choose(self, items: Sequence[T]) -> T:
        return items[self.byte() % len(items)]

    def text(self) -> str:
        return self.take(self.byte() % 40).decode("utf-8", "replace")

    def value(self, pool: Sequence[Any] = (), depth: int = 3) -> Any:
        """Any value that the ledger's codec can carry; often one of `pool`."""
        kind = self.byte() % 16
        if kind < 6 and pool:
            return self.choose(pool)
        if kind < 8:
            number = self.choose(_NUMBERS) + (self.byte() % 3 - 1 if kind == 7 else 0)
            return max(-(1 << 63), min(number, (1 << 63) - 1))
        if kind == 8:
            return self.choose((None, True, False))
        if kind == 9:
            return self.choose(_TEXTS)
        if kind == 10:
            return self.text()
        if kind == 11:
            return bytes(self.choose((0, 1, 32, 64, 70)))
        if kind == 12:
            return self.take(self.byte())
        if depth == 0:
            return []
        count = self.byte() % 4
        if kind == 13:
            return {self.text(): self.value(pool, depth - 1) for _ in range(count)}
        return [self.value(pool, depth - 1) for _ in range(count)]


def join(parts: Sequence[bytes]) -> bytes:
    """Several byte strings as one; `split` gives them back."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def split(data: bytes) -> list[bytes]:
    """What `join` put together, or whatever other bytes mean when read so."""
    parts, at = [], 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        parts.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return parts
