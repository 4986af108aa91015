"""Verdicts of recent transactions, so that a repeated submit gets the first one's answer.

A client that lost its connection sends the same bytes again, to this or to another node. The ledger
would refuse them, as their id is used up; the client needs the verdict.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")

MOST = 20_000


class Receipts(Generic[V]):
    """A bounded map from transaction bytes to (height, verdict), the latest kept."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[int, V]] = OrderedDict()

    def add(self, tx: bytes, height: int, verdict: V) -> None:
        """Remember a committed transaction."""
        self._known[hashlib.sha256(tx).digest()] = (height, verdict)
        if len(self._known) > MOST:
            self._known.popitem(last=False)

    def find(self, tx: bytes) -> tuple[int, V] | None:
        """Return what these very bytes were answered, None when they are not known."""
        return self._known.get(hashlib.sha256(tx).digest())
