"""What consensus orders for: a value that says what may be included and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from swarm.ledger.state.verdict import Header, Validator, Verdict


class Ticket(NamedTuple):
    """What the ledger needs to know of a transaction without understanding it."""

    id: bytes  # a second transaction with the same id is the same one
    sender: str  # whose share of the mempool it takes


class Outcome(NamedTuple):
    """What a block did: a verdict for each transaction, and the keys that changed."""

    verdicts: tuple[Verdict, ...]
    changed: frozenset[str]


class Row(NamedTuple):
    """One record as it is stored; `value` is None for a deleted one."""

    table: str
    key: str
    value: bytes | None


class Application(Protocol):
    """An immutable state: `apply` returns a new one.

    Everything is a pure function of the blocks applied so far. All replicas therefore agree on what
    is includable next, on the validators, and on the digest.
    """

    @property
    def height(self) -> int:
        """Height of the last applied block; 0 for the genesis."""

    @property
    def fault_model(self) -> str:
        """`byzantine` or `crash`; never changes."""

    def digest(self) -> bytes:
        """32 bytes that are equal exactly for equal states."""

    def validators(self) -> tuple[Validator, ...]:
        """Who votes on block `height + 1`, in an order that all agree on."""

    def check(self, tx: bytes) -> Ticket:
        """Return the ticket of a transaction that could be in the next block.

        Raises RemoteError when it could not: malformed, a wrong signature, replayed, expired.
        """

    def apply(self, header: Header, txs: tuple[bytes, ...]) -> tuple[Application, Outcome]:
        """Apply a block whose transactions all pass `check`."""

    def rows(self, before: Application | None) -> Iterable[Row]:
        """Records that differ from `before`; all of them for None."""
