"""What the API needs of the ledger: a slice of the orderer's interface.

The replica satisfies it, and so does the double of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, Protocol


class StateView(Protocol):
    """The state machine's value at some height."""

    @property
    def height(self) -> int:
        """Height of the last applied block."""

    def digest(self) -> bytes:
        """Digest of all tables."""

    def get(self, table: str, key: str) -> dict[str, Any] | None:
        """One record."""

    def table(self, name: str) -> Mapping[str, dict[str, Any]]:
        """All records of a table."""


class VerdictView(Protocol):
    """The state machine's answer to a transaction."""

    ok: bool
    code: str
    text: str
    result: dict[str, Any]


class BlockView(Protocol):
    """A committed block and what came of it."""

    txs: Sequence[bytes]
    verdicts: Sequence[VerdictView]
    changed: Set[str]  # "table/id"
    digest: bytes  # of the state after it
    time_ms: int


class Ledger(Protocol):
    """The orderer, as far as the API is concerned."""

    @property
    def state(self) -> StateView:
        """The latest state."""

    async def submit(self, tx: bytes) -> tuple[int, VerdictView]:
        """Return height and verdict after the commit. Raises RemoteError when inadmissible."""

    async def wait_for(self, height: int) -> None:
        """Return when that height is applied."""

    def waiting(self) -> str:
        """Say what it waits for, "" for nothing."""

    def block(self, height: int) -> BlockView | None:
        """Return a committed block."""
