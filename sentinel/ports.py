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

    @property
    def chain(self) -> bytes:
        """Id of the network."""

    def digest(self) -> bytes:
        """Digest of all tables."""

    def get(self, table: str, key: str) -> dict[str, Any] | None:
        """One record."""

    def keys(self, table: str) -> list[str]:
        """All names of a table, sorted."""

    def table(self, name: str) -> Mapping[str, dict[str, Any]]:
        """All records of a table."""


class VerdictView(Protocol):
    """The state machine's answer to a transaction."""

    @property
    def ok(self) -> bool:
        """Whether it was done."""

    @property
    def code(self) -> str:
        """Why not: a code, "" when it was."""

    @property
    def text(self) -> str:
        """Why not: a sentence."""

    @property
    def result(self) -> dict[str, Any]:
        """What it returned."""


class HeaderView(Protocol):
    """What the API tells of a block's header."""

    @property
    def time_ms(self) -> int:
        """The proposer's clock."""

    @property
    def state(self) -> bytes:
        """Digest of the state after this block."""


class BlockView(Protocol):
    """A block."""

    @property
    def header(self) -> HeaderView:
        """Its header."""

    @property
    def transactions(self) -> Sequence[bytes]:
        """Encoded signed transactions."""

    @property
    def encoded(self) -> bytes:
        """The bytes that it came from."""


class CertificateView(Protocol):
    """Who certified a block."""

    def encode(self) -> bytes:
        """Its bytes."""


class CommittedView(Protocol):
    """A committed block and what came of it."""

    @property
    def block(self) -> BlockView:
        """The block."""

    @property
    def certificate(self) -> CertificateView:
        """The proof of its commit."""

    @property
    def verdicts(self) -> Sequence[VerdictView]:
        """One for each transaction."""

    @property
    def changed(self) -> Set[str]:
        """Records that it changed, as "table/id"."""


class Ledger(Protocol):
    """The orderer, as far as the API is concerned."""

    @property
    def state(self) -> StateView:
        """The latest state."""

    async def submit(self, tx: bytes) -> tuple[int, VerdictView]:
        """Return height and verdict after the commit. Raises RemoteError when inadmissible.

        The same bytes again get the same answer. Waits without limit for a quorum.
        """

    async def wait_for(self, height: int) -> None:
        """Return when that height is applied."""

    def waiting(self) -> str:
        """Say what it waits for, "" for nothing."""

    def block(self, height: int) -> CommittedView | None:
        """Return a committed block."""
