"""A simulated disk, and what it promises.

`swarm.ledger.store` writes each step of the shell in one SQLite transaction with
`synchronous=FULL`. So this disk knows three things that can go wrong:

- *Torn write*: the process or the machine ends while a step is written. SQLite's log has a
  checksum in each frame, each over all before it; opening takes the log up to the last transaction
  that is whole. The step is there or absent, and nothing of it was sent in either case.
- *Lost confirmation* (`lose_steps`): the disk said that a step was durable, and after a loss of
  power it is gone. What is left is an earlier state, whole in itself: a prefix of the steps, with
  `vote_from` as it was. The node asks the others what they hold of its votes before it signs again
  (`memory.py`), and they stop it nearly always; but what reached none of those who answer, nobody
  remembers. So such a node counts among the `f` that may lie: nothing more is promised of it, and
  nothing less of all others, and it never commits what they do not. Under the rule for crashes
  only, where `f` is 0, safety needs disks that keep what they confirm.
- *Lost disk*: everything is gone, or `Store.open` found damage and the operator put the directory
  aside. The node knows it: `vote_from` is not there, and `amnesia.py` decides when it may vote.

`test_real_store.py` compares this disk with the product's store, on SQLite's own files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from swarm.ledger.application import Application
from swarm.ledger.block import Block
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Lock, Resume

KEPT = 40  # steps that a forgetful disk may go back


@dataclass
class Disk:
    """What survives a crash."""

    blocks: list[tuple[bytes, bytes]] = field(default_factory=list)
    app: Application | None = None
    last: Block | None = None
    votes: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    lock: fx.WriteLock | None = None
    vote_from: tuple[int, int] | None = None
    history: deque[Disk] | None = None  # earlier states, if it is forgetful

    def write(self, effects: Iterable[fx.Durable]) -> None:
        """One step, as one transaction."""
        if self.history is not None:
            self.history.append(self.copy())
            if len(self.history) > KEPT:
                self.history.popleft()
        for effect in effects:
            self._write(effect)

    def _write(self, effect: fx.Durable) -> None:
        if isinstance(effect, fx.WriteVote):
            key = (effect.height, effect.round, effect.kind)
            # As the real store: its primary key refuses a second value.
            assert key not in self.votes, f"two values are written for {key}"
            self.votes[key] = effect.message
        elif isinstance(effect, fx.WriteLock):
            self.lock = effect
        elif isinstance(effect, fx.WriteVoting):
            self.vote_from = (effect.height, effect.round)
        elif isinstance(effect, fx.Commit):
            self.blocks.append((effect.block.encoded, effect.certificate.encode()))
            self.app, self.last = effect.application, effect.block
            self.votes = {k: v for k, v in self.votes.items() if k[0] > effect.block.height}
            if self.lock is not None and self.lock.height <= effect.block.height:
                self.lock = None

    def copy(self) -> Disk:
        """The present state, apart."""
        return replace(self, blocks=list(self.blocks), votes=dict(self.votes), history=None)

    def lose_steps(self, count: int) -> Disk:
        """The disk without its newest steps."""
        assert self.history is not None, "only a forgetful disk keeps its past"
        past = list(self.history)
        if not past or not count:
            return self
        then = past[max(0, len(past) - count)]
        return replace(then.copy(), history=deque(past[: max(0, len(past) - count)]))

    def batch(self, after: int, first: int, count: int) -> tuple[tuple[bytes, bytes], ...]:
        """Encoded blocks and certificates after a height; `first` is the genesis's."""
        return tuple(self.blocks[after - first : after - first + count])

    def resume(self, chain: bytes) -> Resume:
        """What the core needs to go on, from bytes alone."""
        signed = []
        for raw in self.votes.values():
            message = msg.decode(raw)
            assert isinstance(message, msg.Vote | msg.Proposal)
            signed.append(message)
        lock = Lock()
        if self.lock is not None:
            w = self.lock
            proof = tuple(v for v in map(msg.decode, w.proof) if isinstance(v, msg.Vote))
            lock = Lock(
                w.locked_round, w.locked_id, w.valid_round, Block.decode(w.valid_block), proof
            )
        if self.last is None:
            return Resume(chain, "", 0, tuple(signed), lock, self.vote_from)
        header = self.last.header
        return Resume(
            self.last.id, header.proposer, header.time_ms, tuple(signed), lock, self.vote_from
        )
