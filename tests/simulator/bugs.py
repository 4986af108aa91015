"""Planted bugs: cores with one mistake each. The simulator must find every one.

A simulator that finds nothing proves nothing until it is shown what it can find.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarm.errors import RemoteError
from swarm.ledger.application import Application
from swarm.ledger.block import Certificate
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Config, Core, Lock, Resume
from swarm.ledger.consensus.tally import Evidence


class QuorumMinusOne(Core):
    """One vote less is taken for a quorum."""

    def _new_height(self) -> None:
        super()._new_height()
        self._tally.quorum = max(1, self._tally.quorum - 1)


class Forgetful(Core):
    """Own votes are not restored after a crash."""

    def __init__(self, config: Config, app: Application, resume: Resume) -> None:
        bare = Resume(
            resume.last_id, resume.last_proposer, resume.last_time_ms, vote_from=resume.vote_from
        )
        super().__init__(config, app, bare)


class Talkative(Core):
    """Votes are sent without being written."""

    def _sign(self, kind: int, make: Callable[[], msg.Signed]) -> None:
        super()._sign(kind, make)
        self._out = [effect for effect in self._out if not isinstance(effect, fx.WriteVote)]


class Faithless(Core):
    """The lock is ignored when voting."""

    def _line_22(self) -> bool:
        kept, self._lock = self._lock, Lock(-1, b"", self._lock.valid_round, self._lock.valid_block)
        try:
            return super()._line_22()
        finally:
            self._lock = kept if self._lock.locked_round == -1 else self._lock


class NeverAgain(Core):
    """What had a quorum of prevotes is not proposed again: after a lock, nothing goes on."""

    def _propose(self) -> bool:
        kept = self._lock
        self._lock = Lock(kept.locked_round, kept.locked_id)
        try:
            return super()._propose()
        finally:
            self._lock = kept


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


class SameSignerTwice(Core):
    """Certificates are believed when one good signature fills them."""

    def _on_blocks(self, source: str, message: msg.Blocks) -> None:
        check = Certificate.check

        def lenient(self: Certificate, block: Any, keys: Any, quorum: int, verify: Any) -> None:
            good = 0
            for signer, _ in self.signatures:
                for _, signature in self.signatures:
                    data = msg.vote_bytes(
                        block.header.chain, 2, self.height, self.round, self.block_id
                    )
                    good += verify(keys[signer], data, signature)
            if good < quorum:
                raise RemoteError("SW3004", "too few")

        Certificate.check = lenient  # type: ignore[method-assign]
        try:
            super()._on_blocks(source, message)
        finally:
            Certificate.check = check  # type: ignore[method-assign]


class Impatient(Core):
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


class VotesWithEmptyStore(Core):
    """A lost disk does not keep a node from voting."""

    def __init__(self, config: Config, app: Application, resume: Resume) -> None:
        start = resume.vote_from or (0, 0)
        super().__init__(
            config,
            app,
            Resume(
                resume.last_id,
                resume.last_proposer,
                resume.last_time_ms,
                resume.signed,
                resume.lock,
                start,
            ),
        )


class PrevotesAnything(Core):
    """A proposal is not checked."""

    def _judge(self, block: Any) -> str:
        return ""

    def _commit(self, block: Any, certificate: Any) -> None:
        try:
            super()._commit(block, certificate)
        except RemoteError:
            self._halt("SW3013", "an invalid block was decided")
