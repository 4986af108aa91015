"""Rounds in which nobody has anything to propose: a liar's vote begins them, or a lost transaction.

Found by the simulator (seed 1592 of the double): they went on with ever longer time-outs, and kept
newcomers from ever voting.
"""

from __future__ import annotations

import pytest

from swarm.ledger.block import NIL, PRECOMMIT, PREVOTE
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Resume
from tests.ledger.cores import (
    CHAIN,
    TIMING,
    Wire,
    block_of,
    put,
    sent,
    signed_proposal,
    signed_vote,
)


def _empty_round(wire: Wire, uid: str, round_: int) -> None:
    """Everybody votes for nothing, and the round ends."""
    others = [voter for voter in wire.cores if voter != uid]
    for voter in others:
        wire.give(uid, signed_vote(voter, PREVOTE, round_, NIL))
    wire.fire(uid, "propose")
    for voter in others[:3]:
        wire.give(uid, signed_vote(voter, PRECOMMIT, round_, NIL))
    wire.fire(uid, "precommit")


def _reach(wire: Wire, uid: str) -> int:
    effects = wire.give(uid, msg.Ask(0, -1, False), "newcomer")
    (answer,) = sent(effects, msg.Answer)
    assert isinstance(answer, msg.Answer)
    return answer.reach


def test_a_precommit_for_nothing_does_not_count_as_reaching_a_height() -> None:
    """Only precommits for a block can decide, so a newcomer need not wait for this height."""
    wire = Wire()
    _empty_round(wire, "a", 0)
    assert [v.block_id for v in sent(wire.log["a"], msg.Vote) if v.kind == PRECOMMIT] == [NIL]
    assert _reach(wire, "a") == 0
    signed = tuple(wire.cores["a"]._signed.values())
    core = wire.boot("a", Resume(CHAIN, signed=signed, vote_from=(0, 0)))
    wire.take("a", core.start(wire.time()))
    assert _reach(wire, "a") == 0, "nor after a restart"


def test_a_precommit_for_a_block_does() -> None:
    wire = Wire()
    proposer = wire.cores["a"]._proposer(0)
    voter, *others = [uid for uid in wire.cores if uid != proposer]
    block = block_of(wire.cores[voter], [put(1)], proposer)
    wire.give(voter, signed_proposal(proposer, 0, block))
    for uid in (proposer, *others):
        wire.give(voter, signed_vote(uid, PREVOTE, 0, block.id))
    assert _reach(wire, voter) == 1
    signed = tuple(wire.cores[voter]._signed.values())
    core = wire.boot(voter, Resume(CHAIN, signed=signed, vote_from=(0, 0)))
    wire.take(voter, core.start(wire.time()))
    assert _reach(wire, voter) == 1


def _latest(wire: Wire, uid: str) -> float:
    return [timer for timer in wire.timers[uid] if timer.timer.kind == "propose"][-1].delay


def test_time_outs_begin_to_grow_when_there_is_something_to_decide() -> None:
    wire = Wire()
    for round_ in range(6):
        _empty_round(wire, "a", round_)
        assert _latest(wire, "a") == pytest.approx(TIMING.base_ms / 1000)
    wire.submit("a", put(1))
    for more in range(1, 4):
        _empty_round(wire, "a", 5 + more)
        grown = TIMING.base_ms + TIMING.step_ms * more
        assert _latest(wire, "a") == pytest.approx(grown / 1000)


def test_a_proposal_that_came_too_late_is_something_to_decide() -> None:
    wire = Wire()
    core = wire.cores["a"]
    round_ = next(r for r in range(4) if core._proposer(r) != "a")
    for empty in range(round_ + 1):
        _empty_round(wire, "a", empty)
    proposer = core._proposer(round_)
    wire.give("a", signed_proposal(proposer, round_, block_of(core, [put(1)], proposer)))
    _empty_round(wire, "a", round_ + 1)
    assert _latest(wire, "a") == pytest.approx((TIMING.base_ms + TIMING.step_ms) / 1000)


def test_a_newcomer_goes_on_asking_while_rounds_pass() -> None:
    """It waits for answers that were lost; that rounds pass does not mean that all is well."""
    wire = Wire(observers=("e",))
    for round_ in range(3):
        _empty_round(wire, "e", round_)
        begin = len(wire.log["e"])
        wire.fire("e", "tick")
        assert sent(wire.log["e"][begin:], msg.Ask)


def test_a_transaction_is_told_again_while_rounds_pass_without_it() -> None:
    wire = Wire(observers=("e",))
    wire.submit("e", put(1))
    wire.fire("e", "tick")
    for round_ in range(2):
        _empty_round(wire, "e", round_)
        begin = len(wire.log["e"])
        wire.fire("e", "tick")
        assert [m.items for m in sent(wire.log["e"][begin:], msg.Transactions)] == [(put(1),)]
