"""What the rest of a node sees of the ledger, whoever does the ordering."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from swarm.ledger.block import Block, Certificate
from swarm.ledger.consensus.statement import Statement
from swarm.ledger.recovery import Name
from swarm.ledger.state import State, Verdict


@dataclass(frozen=True)
class CommittedBlock:
    """A block, the proof of its commit, and what came of it.

    The certificate has no signatures where an Ethereum-compatible network gives the order.
    """

    block: Block
    certificate: Certificate
    verdicts: tuple[Verdict, ...]
    changed: frozenset[str]  # "table/key"


OnCommit = Callable[[CommittedBlock, State], None]


class Orderer(Protocol):
    """One log of transactions for all members.

    `tests/ledger/orderer_conformance.py` holds every implementation to it.
    """

    recoveries: tuple[Name, ...]  # accepted by the operator; () where no quorum can be lost
    synced: trio.Event  # set once this node has caught up with the others after the start

    @property
    def state(self) -> State:
        """The state after the last committed block."""

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled. Raises LocalError when going on would be wrong."""

    async def submit(self, tx: bytes) -> tuple[int, Verdict]:
        """Return height and verdict once `tx` (an encoded SignedTransaction) is committed.

        The same bytes may be given again, here or to another node: they are included once, and
        the answer is that of the block they are in. Waits without limit while there is no quorum,
        or no network that orders; cancelling leaves the transaction where it is. Raises
        RemoteError: SW3001, SW3002 and certificate errors for what is no valid transaction, SW3006
        when it cannot be included any more, SW3007 when too many wait, SW3008 when this node stops.
        """

    def waiting(self) -> str:
        """Say in one sentence what keeps the ledger from going on; "" when nothing does."""

    def evidence(self) -> list[tuple[Statement, Statement]]:
        """What validators were seen to sign twice here; see `state/evidence.py`."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Messages of other nodes that were dropped for coming too fast or being wrong, by uid."""

    async def wait_for(self, height: int) -> None:
        """Return when that height is committed here."""

    def block(self, height: int) -> CommittedBlock | None:
        """Return a committed block; None when there is no such height yet."""

    def on_commit(self, callback: OnCommit) -> None:
        """Call back after each commit, in order, once it is durable."""
