"""Planted bugs: cores with one mistake each. The simulator must find every one.

A simulator that finds nothing proves nothing until it is shown what it can find. Mistakes of the
application are in `bad_applications.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from swarm.errors import RemoteError
from swarm.ledger.application import Application
from swarm.ledger.block import NIL, PRECOMMIT, Block, Certificate, vote_bytes
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Config, Core, Lock, Resume
from swarm.ledger.consensus.tally import Evidence
from tests.simulator.judge import votes_needed

# ---------------------------------------------------------------------- votes and locks


class QuorumMinusOne(Core):
    """One vote less is taken for a quorum."""

    def _new_height(self) -> None:
        super()._new_height()
        self._tally.quorum = max(1, self._tally.quorum - 1)


class NoLock(Core):
    """The lock is ignored when voting."""

    def _line_22(self) -> bool:
        kept = self._lock
        self._lock = Lock(-1, NIL, kept.valid_round, kept.valid_block)
        try:
            return super()._line_22()
        finally:
            self._lock = kept


class WrongUnlock(Core):
    """Any earlier quorum of prevotes undoes a lock, even one from before the lock (line 29)."""

    def _line_28(self) -> bool:
        kept = self._lock
        self._lock = Lock(-1, NIL, kept.valid_round, kept.valid_block)
        try:
            return super()._line_28()
        finally:
            self._lock = kept


class NeverAgain(Core):
    """What had a quorum of prevotes is not proposed again: after a lock, nothing goes on."""

    def _propose(self) -> bool:
        kept = self._lock
        self._lock = Lock(kept.locked_round, kept.locked_id)
        try:
            return super()._propose()
        finally:
            self._lock = kept


class DuplicatesCounted(Core):
    """A vote that comes twice counts twice."""

    def _new_height(self) -> None:
        super()._new_height()
        tally = self._tally
        add, wanted = tally.add, tally.wanted

        def count_again(message: msg.Signed, present: int) -> Evidence | None:
            if isinstance(message, msg.Vote) and message.block_id in tally._values(message):
                place = (message.kind, message.round, message.block_id)
                tally._counts[place] += 1
                if message.kind == PRECOMMIT and tally._counts[place] == tally.quorum:
                    tally._reached.append((message.round, message.block_id))
                return None
            return add(message, present)

        def want_again(message: msg.Signed, present: int) -> bool:
            if isinstance(message, msg.Vote) and message.block_id in tally._values(message):
                return message.block_id != NIL
            return wanted(message, present)

        tally.add = count_again  # type: ignore[method-assign]
        tally.wanted = want_again  # type: ignore[method-assign]


class FirstVoteOnly(Core):
    """Only the first vote of a double voter counts."""

    def _new_height(self) -> None:
        super()._new_height()
        tally = self._tally
        add = tally.add

        def first_only(message: msg.Signed, present: int) -> Evidence | None:
            if isinstance(message, msg.Vote) and tally._values(message):
                return None
            return add(message, present)

        tally.add = first_only  # type: ignore[method-assign]


class UnsignedVotes(Core):
    """Signatures of votes are not checked."""

    def __init__(self, config: Config, app: Application, resume: Resume) -> None:
        super().__init__(replace(config, verify=lambda *_: True), app, resume)


class PrevotesAnything(Core):
    """A proposal is not checked."""

    def _judge(self, block: Any) -> str:
        return ""

    def _commit(self, block: Any, certificate: Any) -> None:
        try:
            super()._commit(block, certificate)
        except RemoteError:
            self._halt("SW3013", "an invalid block was decided")


class TrustsNextValidators(Core):
    """A header may name any validators for the next height."""

    def _judge(self, block: Block) -> str:
        problem = super()._judge(block)
        return "" if "other validators" in problem else problem


# ---------------------------------------------------------------------- memory


class NoWriteAheadLog(Core):
    """Own votes are not restored after a crash."""

    def __init__(self, config: Config, app: Application, resume: Resume) -> None:
        super().__init__(config, app, replace(resume, signed=(), lock=Lock()))


class ForgetsLock(Core):
    """Own votes are restored after a crash, the lock is not."""

    def __init__(self, config: Config, app: Application, resume: Resume) -> None:
        super().__init__(config, app, replace(resume, lock=Lock()))


class LogAfterSend(Core):
    """Votes are written with the next step, after they were sent."""

    _late: list[fx.Effect]

    def _run(self) -> list[fx.Effect]:
        effects = super()._run()
        late, self._late = (
            getattr(self, "_late", []),
            [effect for effect in effects if isinstance(effect, fx.WriteVote)],
        )
        return [*late, *(effect for effect in effects if not isinstance(effect, fx.WriteVote))]


class VotesWithEmptyStore(Core):
    """A lost disk does not keep a node from voting, nor does its own signature that it forgot."""

    def __init__(self, config: Config, app: Application, resume: Resume) -> None:
        vote_from = resume.vote_from or (0, 0)
        super().__init__(config, app, replace(resume, vote_from=vote_from, unconfirmed=False))

    def _recall(self, kind: int, height: int, round_: int, value: bytes) -> None:
        return


# ---------------------------------------------------------------------- certificates


@contextmanager
def _checking(check: Callable[..., None]) -> Iterator[None]:
    kept = Certificate.check
    Certificate.check = check  # type: ignore[method-assign]
    try:
        yield
    finally:
        Certificate.check = kept  # type: ignore[method-assign]


class SameSignerTwice(Core):
    """Certificates are believed when one good signature fills them."""

    def _on_blocks(self, source: str, message: msg.Blocks) -> None:
        def lenient(self: Certificate, block: Any, keys: Any, quorum: int, verify: Any) -> None:
            data = vote_bytes(block.chain, PRECOMMIT, self.height, self.round, self.block_id)
            good = sum(
                verify(keys[signer], data, signature)
                for signer, _ in self.signatures
                for _, signature in self.signatures
            )
            if good < quorum:
                raise RemoteError("SW3004", "too few")

        with _checking(lenient):
            super()._on_blocks(source, message)


class CertificateOfAnotherHeight(Core):
    """A certificate is believed for any block, as long as its signatures are good."""

    def _on_blocks(self, source: str, message: msg.Blocks) -> None:
        def lenient(self: Certificate, block: Any, keys: Any, quorum: int, verify: Any) -> None:
            data = vote_bytes(block.chain, PRECOMMIT, self.height, self.round, self.block_id)
            good = sum(uid in keys and verify(keys[uid], data, s) for uid, s in self.signatures)
            if good < quorum:
                raise RemoteError("SW3004", "too few")

        with _checking(lenient):
            super()._on_blocks(source, message)


# ---------------------------------------------------------------------- validators, time, repair


class ChangeTooEarly(Core):
    """Those whom a block makes validators vote on that block already."""

    def _problem(self, block: Block) -> str:
        problem = super()._problem(block)
        if not problem:
            after = self._outcome(block).application
            self._tally.keys = {v.uid: v.public_key_der for v in after.validators()}
            self._tally.quorum = votes_needed(len(self._tally.keys), after.fault_model)
        return problem


class ChangeTooLate(Core):
    """A block's change of the validators takes effect one height later than it must."""

    _before: Application | None = None

    def _commit(self, block: Block, certificate: Certificate) -> None:
        self._before = self.app
        super()._commit(block, certificate)

    def _new_height(self) -> None:
        super()._new_height()
        if self._before is not None:
            validators = self._before.validators()
            self._tally.keys = {v.uid: v.public_key_der for v in validators}
            self._tally.quorum = votes_needed(len(validators), self._before.fault_model)


class FlatTimeouts(Core):
    """Time-outs do not grow with the round."""

    def _timer(self, kind: str) -> None:
        kept, self._round = self._round, 0
        super()._timer(kind)
        self._round = kept
        timer = self._out[-1]
        assert isinstance(timer, fx.StartTimer)
        moved = fx.Timer(kind, timer.timer.height, kept)
        self._out[-1] = fx.StartTimer(timer.delay, moved)


class NoRepair(Core):
    """Lost messages are not repeated."""

    def _on_tick(self) -> None:
        self._restart_tick()


class LocalTime(Core):
    """A block is executed at the local clock's time, not at its own."""

    def _execute(self, header: Any, transactions: Any) -> Any:
        return super()._execute(header._replace(time_ms=self._now.wall_ms), transactions)


class AsksNobodyAhead(Core):
    """A node that missed a block does not fetch it."""

    def _fetch(self) -> None:
        return
