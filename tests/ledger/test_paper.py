"""The rules of arXiv:1807.04938, Algorithm 1, each by the number of its line.

One production core is driven with hand-made messages of three others: `a`, `b` and `c` propose in
rounds 0, 1 and 2 of height 1, the core under test (`me`) in round 3. Four validators, so f = 1, a
quorum (the paper's 2f + 1) is 3, and f + 1 is 2. The core knows one transaction from the start,
else its height would not begin.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from swarm.ledger.block import NIL, PRECOMMIT, PREVOTE, Block
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import IDLE, PROPOSE, Core
from tests.ledger.cores import (
    TIMING,
    Wire,
    block_of,
    put,
    sent,
    signed_proposal,
    signed_vote,
    votes,
)

Effects = list[fx.Effect]


class Paper:
    """A core in round 0, step propose, and what others may tell it."""

    def __init__(self) -> None:
        self.wire = Wire()
        core = self.wire.cores["a"]
        self.a, self.b, self.c, self.me = (core._proposer(round_) for round_ in range(4))
        self.begun = self.wire.submit(self.me, put(0))
        self.v = self.block(self.a, 1)
        self.w = self.block(self.b, 2)

    @property
    def core(self) -> Core:
        return self.wire.cores[self.me]

    def block(self, proposer: str, number: int) -> Block:
        return block_of(self.core, [put(number)], proposer)

    def invalid(self, proposer: str) -> Block:
        """Well-formed and signed, but no successor of the last block."""
        return block_of(self.core, [put(1)], proposer, previous=b"?" * 32)

    def proposal(self, voter: str, round_: int, block: Block, valid_round: int = -1) -> Effects:
        return self.wire.give(self.me, signed_proposal(voter, round_, block, valid_round))

    def prevotes(self, who: Sequence[str], round_: int, block_id: bytes) -> Effects:
        return self._votes(who, PREVOTE, round_, block_id)

    def precommits(self, who: Sequence[str], round_: int, block_id: bytes) -> Effects:
        return self._votes(who, PRECOMMIT, round_, block_id)

    def _votes(self, who: Sequence[str], kind: int, round_: int, block_id: bytes) -> Effects:
        effects: Effects = []
        for voter in who:
            effects += self.wire.give(self.me, signed_vote(voter, kind, round_, block_id))
        return effects

    def timeout(self, kind: str, round_: int, height: int = 1) -> Effects:
        timer = fx.Timer(kind, height, round_)
        return self.wire.take(self.me, self.core.timeout(timer, self.wire.time()))

    def to_round(self, round_: int) -> Effects:
        """By line 55: a and b are there already."""
        effects = self.precommits([self.a, self.b], round_, NIL)
        assert self.core.round == round_
        return effects

    def lock_v(self, round_: int = 0) -> None:
        """By line 36, in a round whose proposer shows v."""
        proposer = (self.a, self.b, self.c)[round_]
        if round_:
            self.to_round(round_)
        self.proposal(proposer, round_, block_of(self.core, [put(1)], proposer))
        lock_id = self.core._tally.proposals[round_][0].block.id
        self.prevotes([self.a, self.b], round_, lock_id)
        assert self.lock() == (round_, lock_id)

    def lock(self) -> tuple[int, bytes]:
        return self.core._lock.locked_round, self.core._lock.locked_id

    def valid(self) -> tuple[int, bytes]:
        block = self.core._lock.valid_block
        return self.core._lock.valid_round, block.id if block else NIL


@pytest.fixture
def paper() -> Paper:
    return Paper()


def timers(effects: Effects, kind: str) -> list[fx.StartTimer]:
    return [e for e in effects if isinstance(e, fx.StartTimer) and e.timer.kind == kind]


def commits(effects: Effects) -> list[fx.Commit]:
    return [e for e in effects if isinstance(e, fx.Commit)]


# ---------------------------------------------------------------- lines 10 to 21: StartRound


def test_line_10_a_height_begins_with_round_0_once_there_is_work() -> None:
    wire = Wire()
    assert {core.step for core in wire.cores.values()} == {IDLE}
    wire.submit("b", put(1))
    assert wire.cores["b"].round == 0 and wire.cores["b"].step >= PROPOSE
    assert wire.cores["a"].step == IDLE, "which has not heard of it"
    wire.give("a", signed_vote("c", PREVOTE, 0))
    assert wire.cores["a"].round == 0, "a validator's message for the height is work, too"


def test_line_11_start_round_sets_round_and_step(paper: Paper) -> None:
    paper.proposal(paper.a, 0, paper.v)
    assert (paper.core.round, paper.core.step) == (0, PREVOTE)
    paper.precommits([paper.a, paper.b, paper.c], 0, NIL)
    paper.timeout("precommit", 0)
    assert (paper.core.round, paper.core.step) == (1, PROPOSE)


def test_line_14_only_the_proposer_of_the_round_proposes(paper: Paper) -> None:
    assert not sent(paper.begun, msg.Proposal)
    for round_ in (1, 2):
        assert not sent(paper.to_round(round_), msg.Proposal)
    assert len(sent(paper.to_round(3), msg.Proposal)) == 1


def test_line_16_a_valid_value_is_proposed_again_with_its_round(paper: Paper) -> None:
    paper.lock_v()
    (proposal,) = sent(paper.to_round(3), msg.Proposal)
    assert (proposal.block.id, proposal.valid_round, proposal.round) == (paper.v.id, 0, 3)


def test_line_18_without_one_the_proposer_takes_what_waits(paper: Paper) -> None:
    (proposal,) = sent(paper.to_round(3), msg.Proposal)
    assert proposal.block.transactions == (put(0),)
    assert (proposal.valid_round, proposal.voter) == (-1, paper.me)


def test_line_19_a_proposal_is_made_once_a_round(paper: Paper) -> None:
    paper.to_round(3)
    again = paper.wire.submit(paper.me, put(9)) + paper.prevotes([paper.a], 3, NIL)
    assert not sent(again, msg.Proposal)


def test_line_21_the_others_wait_for_the_proposal_with_a_time_out(paper: Paper) -> None:
    (timer,) = timers(paper.begun, "propose")
    assert timer.timer == fx.Timer("propose", 1, 0)
    (later,) = timers(paper.to_round(2), "propose")
    assert later.timer == fx.Timer("propose", 1, 2)
    assert later.delay - timer.delay == pytest.approx(2 * TIMING.step_ms / 1000)


# ---------------------------------------------------------------- line 22


def test_line_22_a_valid_first_proposal_gets_a_prevote(paper: Paper) -> None:
    assert votes(paper.proposal(paper.a, 0, paper.v)) == [(PREVOTE, 0, paper.v.id)]
    assert paper.core.step == PREVOTE


def test_line_22_only_from_the_proposer_of_the_round(paper: Paper) -> None:
    effects = paper.proposal(paper.b, 0, paper.w)
    assert not votes(effects) and paper.core.step == PROPOSE
    assert [e for e in effects if isinstance(e, fx.Blame)]


def test_line_22_only_in_the_proposals_round(paper: Paper) -> None:
    assert not votes(paper.proposal(paper.b, 1, paper.w))
    assert votes(paper.to_round(1)) == [(PREVOTE, 1, paper.w.id)]


def test_line_22_only_in_step_propose(paper: Paper) -> None:
    paper.timeout("propose", 0)
    assert not votes(paper.proposal(paper.a, 0, paper.v))
    other = paper.block(paper.a, 5)
    assert not votes(paper.proposal(paper.a, 0, other)), "nor for a second one"


def test_line_24_a_node_locked_on_the_same_value_prevotes_for_it(paper: Paper) -> None:
    paper.lock_v()
    paper.to_round(1)
    # Without its valid round b may not repeat a's block; that is stricter than the paper.
    assert votes(paper.proposal(paper.b, 1, paper.v)) == [(PREVOTE, 1, NIL)]
    again = Paper()
    again.lock_v()
    again.to_round(4)  # a's turn again
    assert votes(again.proposal(again.a, 4, again.v)) == [(PREVOTE, 4, again.v.id)]


def test_line_26_a_node_locked_on_another_value_prevotes_for_nothing(paper: Paper) -> None:
    paper.lock_v()
    paper.to_round(1)
    assert votes(paper.proposal(paper.b, 1, paper.w)) == [(PREVOTE, 1, NIL)]
    assert paper.lock() == (0, paper.v.id), "and stays locked"


def test_line_26_an_invalid_value_gets_a_prevote_for_nothing(paper: Paper) -> None:
    assert votes(paper.proposal(paper.a, 0, paper.invalid(paper.a))) == [(PREVOTE, 0, NIL)]


# ---------------------------------------------------------------- line 28


def test_line_28_a_value_with_an_earlier_quorum_gets_a_prevote(paper: Paper) -> None:
    paper.prevotes([paper.a, paper.b, paper.c], 0, paper.v.id)
    paper.to_round(1)
    assert votes(paper.proposal(paper.b, 1, paper.v, 0)) == [(PREVOTE, 1, paper.v.id)]


def test_line_28_waits_for_the_quorum_of_that_round(paper: Paper) -> None:
    paper.prevotes([paper.a, paper.b], 0, paper.v.id)
    paper.to_round(1)
    assert not votes(paper.proposal(paper.b, 1, paper.v, 0))
    assert not votes(paper.prevotes([paper.c], 0, paper.w.id)), "three votes, but not for v"
    assert not votes(paper.prevotes([paper.b], 0, paper.v.id)), "the same one again"
    assert votes(paper.prevotes([paper.c], 0, paper.v.id)) == [(PREVOTE, 1, paper.v.id)]


def test_line_28_only_in_step_propose(paper: Paper) -> None:
    paper.prevotes([paper.a, paper.b, paper.c], 0, paper.v.id)
    paper.to_round(1)
    paper.timeout("propose", 1)
    assert not votes(paper.proposal(paper.b, 1, paper.v, 0))


def test_line_29_a_lock_not_later_than_the_quorum_gives_way(paper: Paper) -> None:
    paper.lock_v()
    paper.prevotes([paper.a, paper.b, paper.c], 1, paper.w.id)
    paper.to_round(2)
    assert votes(paper.proposal(paper.c, 2, paper.w, 1)) == [(PREVOTE, 2, paper.w.id)]


def test_line_29_a_later_lock_on_the_same_value_does_not_matter(paper: Paper) -> None:
    paper.prevotes([paper.a, paper.b, paper.c], 0, paper.v.id)
    paper.to_round(1)
    paper.proposal(paper.b, 1, paper.v, 0)
    paper.prevotes([paper.a, paper.b], 1, paper.v.id)
    assert paper.lock() == (1, paper.v.id)
    paper.to_round(2)
    assert votes(paper.proposal(paper.c, 2, paper.v, 0)) == [(PREVOTE, 2, paper.v.id)]


def test_line_32_a_lock_later_than_the_quorum_holds(paper: Paper) -> None:
    paper.prevotes([paper.a, paper.b, paper.c], 0, paper.v.id)
    paper.lock_v(1)
    locked = paper.lock()
    assert locked[1] != paper.v.id
    paper.to_round(2)
    assert votes(paper.proposal(paper.c, 2, paper.v, 0)) == [(PREVOTE, 2, NIL)]
    assert paper.lock() == locked


def test_line_32_an_invalid_value_gets_a_prevote_for_nothing(paper: Paper) -> None:
    bad = paper.invalid(paper.a)
    paper.prevotes([paper.a, paper.b, paper.c], 0, bad.id)
    paper.to_round(1)
    assert votes(paper.proposal(paper.b, 1, bad, 0)) == [(PREVOTE, 1, NIL)]


# ---------------------------------------------------------------- line 34


def test_line_34_divided_prevotes_of_a_quorum_start_a_time_out_once(paper: Paper) -> None:
    paper.proposal(paper.a, 0, paper.v)  # with the own prevote for v
    assert not timers(paper.prevotes([paper.a], 0, NIL), "prevote"), "two of four"
    (timer,) = timers(paper.prevotes([paper.b], 0, paper.w.id), "prevote")
    assert timer.timer == fx.Timer("prevote", 1, 0)
    assert not timers(paper.prevotes([paper.c], 0, NIL), "prevote"), "for the first time only"


def test_line_34_a_double_voter_counts_once(paper: Paper) -> None:
    paper.proposal(paper.a, 0, paper.v)
    paper.prevotes([paper.a], 0, NIL)
    assert not timers(paper.prevotes([paper.a], 0, paper.w.id), "prevote")


def test_line_34_only_in_step_prevote(paper: Paper) -> None:
    effects = paper.prevotes([paper.a], 0, NIL) + paper.prevotes([paper.b, paper.c], 0, paper.v.id)
    assert paper.core.step == PROPOSE and not timers(effects, "prevote")
    assert timers(paper.timeout("propose", 0), "prevote"), "but then at once"


# ---------------------------------------------------------------- line 36


def test_line_36_a_quorum_of_prevotes_locks_and_precommits(paper: Paper) -> None:
    paper.proposal(paper.a, 0, paper.v)
    assert not votes(paper.prevotes([paper.a], 0, paper.v.id)) and paper.lock() == (-1, NIL)
    effects = paper.prevotes([paper.b], 0, paper.v.id)
    assert votes(effects) == [(PRECOMMIT, 0, paper.v.id)]
    assert paper.lock() == paper.valid() == (0, paper.v.id)
    assert paper.core.step == PRECOMMIT


def test_line_36_needs_the_proposal(paper: Paper) -> None:
    paper.timeout("propose", 0)
    paper.prevotes([paper.a, paper.b, paper.c], 0, paper.v.id)
    assert paper.core.step == PREVOTE and paper.lock() == (-1, NIL)
    assert votes(paper.proposal(paper.a, 0, paper.v)) == [(PRECOMMIT, 0, paper.v.id)]


def test_line_36_not_before_step_prevote(paper: Paper) -> None:
    paper.to_round(1)
    paper.proposal(paper.b, 1, paper.v, 0)  # whose quorum of round 0 is not here
    effects = paper.prevotes([paper.a, paper.b, paper.c], 1, paper.v.id)
    assert paper.core.step == PROPOSE and paper.lock() == (-1, NIL) and not votes(effects)
    effects = paper.timeout("propose", 1)
    assert votes(effects) == [(PREVOTE, 1, NIL), (PRECOMMIT, 1, paper.v.id)]
    assert paper.lock() == (1, paper.v.id)


def test_line_36_prevotes_of_another_round_do_not_count(paper: Paper) -> None:
    paper.prevotes([paper.a, paper.b], 0, paper.v.id)
    paper.to_round(4)
    paper.proposal(paper.a, 4, paper.v)
    paper.prevotes([paper.a], 4, paper.v.id)
    assert paper.core.step == PREVOTE and paper.lock() == (-1, NIL)


def test_line_36_an_invalid_value_is_not_locked(paper: Paper) -> None:
    bad = paper.invalid(paper.a)
    paper.proposal(paper.a, 0, bad)
    effects = paper.prevotes([paper.a, paper.b, paper.c], 0, bad.id)
    assert paper.lock() == paper.valid() == (-1, NIL) and not votes(effects)


def test_line_42_in_step_precommit_it_only_becomes_the_valid_value(paper: Paper) -> None:
    paper.proposal(paper.a, 0, paper.v)
    paper.timeout("prevote", 0)  # precommits nothing
    effects = paper.prevotes([paper.a, paper.b], 0, paper.v.id)
    assert not votes(effects)
    assert paper.lock() == (-1, NIL) and paper.valid() == (0, paper.v.id)


# ---------------------------------------------------------------- line 44


def test_line_44_a_quorum_for_nothing_precommits_nothing(paper: Paper) -> None:
    paper.timeout("propose", 0)  # the own prevote for nothing
    assert not votes(paper.prevotes([paper.a], 0, NIL))
    assert votes(paper.prevotes([paper.b], 0, NIL)) == [(PRECOMMIT, 0, NIL)]
    assert paper.core.step == PRECOMMIT


def test_line_44_not_when_prevotes_are_divided(paper: Paper) -> None:
    paper.timeout("propose", 0)
    effects = paper.prevotes([paper.a], 0, NIL) + paper.prevotes([paper.b, paper.c], 0, paper.v.id)
    assert not votes(effects) and paper.core.step == PREVOTE


def test_line_44_only_in_step_prevote(paper: Paper) -> None:
    assert not votes(paper.prevotes([paper.a, paper.b, paper.c], 0, NIL))
    assert paper.core.step == PROPOSE


# ---------------------------------------------------------------- line 47


def test_line_47_divided_precommits_of_a_quorum_start_a_time_out_once(paper: Paper) -> None:
    assert not timers(paper.precommits([paper.a, paper.b], 0, NIL), "precommit")
    (timer,) = timers(paper.precommits([paper.c], 0, paper.v.id), "precommit")
    assert timer.timer == fx.Timer("precommit", 1, 0)
    assert paper.core.step == PROPOSE, "in any step"
    effects = paper.timeout("propose", 0) + paper.timeout("prevote", 0)
    assert not timers(effects, "precommit"), "for the first time only"


def test_line_47_only_for_the_present_round(paper: Paper) -> None:
    paper.to_round(2)
    assert not timers(paper.precommits([paper.a, paper.b, paper.c], 0, NIL), "precommit")


# ---------------------------------------------------------------- line 49


def test_line_49_a_quorum_of_precommits_decides(paper: Paper) -> None:
    paper.proposal(paper.a, 0, paper.v)
    assert not commits(paper.precommits([paper.a, paper.b], 0, paper.v.id))
    (commit,) = commits(paper.precommits([paper.c], 0, paper.v.id))
    assert commit.block.id == paper.v.id
    assert [uid for uid, _ in commit.certificate.signatures] == sorted([paper.a, paper.b, paper.c])
    assert commit.certificate.round == 0


def test_line_49_in_any_step_and_for_any_round(paper: Paper) -> None:
    paper.proposal(paper.a, 0, paper.v)
    paper.to_round(2)
    (commit,) = commits(paper.precommits([paper.a, paper.b, paper.c], 0, paper.v.id))
    assert commit.certificate.round == 0
    ahead = Paper()
    proposal = ahead.block(ahead.c, 3)
    ahead.proposal(ahead.c, 2, proposal)
    assert commits(ahead.precommits([ahead.a, ahead.b, ahead.c], 2, proposal.id))


def test_line_49_precommits_of_different_rounds_do_not_add_up(paper: Paper) -> None:
    paper.proposal(paper.a, 0, paper.v)
    effects = paper.precommits([paper.a, paper.b], 0, paper.v.id)
    assert not commits(effects + paper.precommits([paper.c], 1, paper.v.id))


def test_line_49_prevotes_and_double_votes_decide_nothing(paper: Paper) -> None:
    paper.proposal(paper.a, 0, paper.v)
    effects = paper.prevotes([paper.a, paper.b, paper.c], 0, paper.v.id)  # and the own precommit
    effects += paper.precommits([paper.a], 0, paper.v.id) * 3
    effects += paper.precommits([paper.a], 0, paper.v.id)
    assert not commits(effects)


def test_line_49_a_quorum_without_the_block_waits_for_it(paper: Paper) -> None:
    assert not commits(paper.precommits([paper.a, paper.b, paper.c], 0, paper.v.id))
    assert commits(paper.proposal(paper.a, 0, paper.v))


def test_line_50_an_invalid_block_with_a_certificate_stops_the_node(paper: Paper) -> None:
    bad = paper.invalid(paper.a)
    paper.proposal(paper.a, 0, bad)
    effects = paper.precommits([paper.a, paper.b, paper.c], 0, bad.id)
    assert [e.code for e in effects if isinstance(e, fx.Halt)] == ["SW3013"]
    assert not commits(effects)


def test_line_52_the_next_height_begins_with_nothing_locked(paper: Paper) -> None:
    paper.lock_v()
    paper.precommits([paper.a, paper.b], 0, paper.v.id)  # with the own one: a quorum
    assert paper.core.height == 1
    assert paper.lock() == paper.valid() == (-1, NIL)
    assert not paper.core._signed, "and with nothing signed"


# ---------------------------------------------------------------- line 55


def test_line_55_f_plus_1_validators_of_a_later_round_are_joined(paper: Paper) -> None:
    paper.prevotes([paper.a], 3, NIL)
    assert paper.core.round == 0, "one may lie"
    paper.precommits([paper.b], 5, paper.v.id)
    assert paper.core.round == 3, "the highest that two of them have reached"


def test_line_55_several_messages_of_one_validator_are_one(paper: Paper) -> None:
    paper.prevotes([paper.a], 3, NIL)
    paper.precommits([paper.a], 3, NIL)
    paper.prevotes([paper.a], 4, paper.v.id)
    assert paper.core.round == 0


def test_line_55_a_proposal_counts_as_a_message(paper: Paper) -> None:
    paper.proposal(paper.c, 2, paper.block(paper.c, 3))
    paper.prevotes([paper.a], 2, NIL)
    assert paper.core.round == 2


def test_line_55_earlier_rounds_are_not_joined(paper: Paper) -> None:
    paper.to_round(3)
    paper.prevotes([paper.a, paper.b, paper.c], 2, NIL)
    assert paper.core.round == 3


# ---------------------------------------------------------------- lines 57, 61, 65: time-outs


def test_line_57_without_a_proposal_in_time_it_prevotes_for_nothing(paper: Paper) -> None:
    for wrong in (paper.timeout("propose", 1), paper.timeout("propose", 0, height=2)):
        assert not votes(wrong) and paper.core.step == PROPOSE
    assert votes(paper.timeout("propose", 0)) == [(PREVOTE, 0, NIL)]
    assert not votes(paper.timeout("propose", 0)), "the step is over"


def test_line_61_without_a_quorum_in_time_it_precommits_nothing(paper: Paper) -> None:
    assert not votes(paper.timeout("prevote", 0)), "not in step propose"
    paper.proposal(paper.a, 0, paper.v)
    for wrong in (paper.timeout("prevote", 1), paper.timeout("prevote", 0, height=2)):
        assert not votes(wrong)
    assert votes(paper.timeout("prevote", 0)) == [(PRECOMMIT, 0, NIL)]
    assert not votes(paper.timeout("prevote", 0))


def test_line_65_after_divided_precommits_the_next_round_begins(paper: Paper) -> None:
    for wrong in (paper.timeout("precommit", 1), paper.timeout("precommit", 0, height=2)):
        assert not wrong and paper.core.round == 0
    effects = paper.timeout("precommit", 0)
    assert (paper.core.round, paper.core.step) == (1, PROPOSE)
    assert timers(effects, "propose")
    assert not paper.timeout("precommit", 0) and paper.core.round == 1, "once"


def test_every_rule_of_the_algorithm_has_its_tests() -> None:
    lines = {int(name.split("_")[2]) for name in globals() if name.startswith("test_line_")}
    assert {11, 14, 16, 18, 21, 22, 28, 34, 36, 44, 47, 49, 55, 57, 61, 65} <= lines
