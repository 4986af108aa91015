"""What the consensus core asks its shell to do, as values.

The shell's contract, for the effects of one step or of several steps together:

1. Make all `Durable` ones durable, in one transaction of its store.
2. Only then carry out the others, in order. If 1 fails it must stop: the core has moved on.

A crash anywhere between is harmless: what was not made durable was not sent either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from swarm.errors import RemoteError
from swarm.ledger.application import Application, Outcome
from swarm.ledger.block import Block, Certificate
from swarm.ledger.consensus.messages import Message
from swarm.ledger.consensus.statement import Statement


class Timer(NamedTuple):
    """Names a timer; the core ignores those that time has passed by."""

    kind: str  # "propose" | "prevote" | "precommit" | "tick" | "again"
    height: int  # for "tick": its number
    round: int


@dataclass(frozen=True)
class WriteVote:
    """Own message, to be sent again after a crash. `kind`: 0 proposal, 1 prevote, 2 precommit."""

    height: int
    round: int
    kind: int
    message: bytes


@dataclass(frozen=True)
class WriteLock:
    """Own lock, and the block to propose again (the paper's lockedValue and validValue).

    `proof` is the quorum of prevotes behind `valid_round`, encoded. Without it a restarted node
    could be locked on a block and unable to show the others why, and those whose votes it was may
    have lost them.
    """

    height: int
    locked_round: int
    locked_id: bytes
    valid_round: int
    valid_block: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class WriteVoting:
    """From this height and round on the node may sign (see `amnesia.py`)."""

    height: int
    round: int


@dataclass(frozen=True)
class WriteEvidence:
    """Two different statements that one validator signed for one height, round and kind."""

    first: Statement
    second: Statement

    @property
    def height(self) -> int:
        return self.first.height

    @property
    def voter(self) -> str:
        return self.first.voter


@dataclass(frozen=True)
class WritePosition:
    """How far the log of another network has been read, where that gives the order."""

    position: bytes


@dataclass(frozen=True)
class Commit:
    """`block` is decided; `application` is the state after it. `ids` are its transactions'."""

    block: Block
    certificate: Certificate
    ids: tuple[bytes, ...]
    before: Application
    application: Application
    outcome: Outcome


@dataclass(frozen=True)
class Send:
    """To one node (`to`, its uid) or to all neighbours."""

    message: Message
    to: str | None = None


@dataclass(frozen=True)
class StartTimer:
    """Call `timeout(timer)` after `delay` seconds; 0 means soon, after what waits already."""

    delay: float
    timer: Timer


@dataclass(frozen=True)
class Serve:
    """Send `to` a batch of the blocks after `height`."""

    to: str
    height: int


@dataclass(frozen=True)
class Dropped:
    """A transaction left the mempool without being included."""

    id: bytes
    error: RemoteError


@dataclass(frozen=True)
class Blame:
    """`source` sent something that no correct node sends."""

    source: str
    error: RemoteError


@dataclass(frozen=True)
class Halt:
    """Going on would be unsafe. The core does nothing any more."""

    code: str
    cause: str


Durable = WriteVote | WriteLock | WriteVoting | WriteEvidence | WritePosition | Commit
Outward = Send | StartTimer | Serve | Dropped | Blame | Halt
Effect = Durable | Outward
DURABLE = (WriteVote, WriteLock, WriteVoting, WriteEvidence, WritePosition, Commit)
