"""What a key that signs more than once must not achieve. Found by the simulator (`test_found.py`
there has the worlds)."""

from __future__ import annotations

from swarm.ledger.block import NIL, PRECOMMIT, PREVOTE
from swarm.ledger.consensus import messages as msg
from tests.ledger.cores import Wire, block_of, put, signed_proposal, signed_vote, votes


def test_a_message_that_is_added_again_counts_once() -> None:
    """A core adds what it signs itself; others may have returned the very same before: to a key
    in two processes, or to a store that has lost its last steps."""
    wire = Wire()
    core = wire.cores["a"]
    block = block_of(core, [put(1)], "b")
    tally = core._tally
    for _ in range(3):
        assert tally.add(signed_vote("b", PRECOMMIT, 0, block.id), 0) is None
        assert tally.add(signed_vote("c", PRECOMMIT, 0, block.id), 0) is None
        assert tally.add(signed_proposal("b", 0, block), 0) is None
    assert not tally.has_quorum(PRECOMMIT, 0, block.id) and not tally.decided()
    assert len(tally.proposals[0]) == 1
    tally.add(signed_vote("d", PRECOMMIT, 0, block.id), 0)
    assert tally.decided() == [(0, block.id)]


def test_a_liar_of_many_values_cannot_hide_the_quorum_that_a_proposal_names() -> None:
    """Each node counts three values of a double voter. If the one that made a quorum were not among
    those that this node counts, it could never unlock, and the height would never end."""
    wire = Wire()
    core = wire.cores["a"]
    rounds = {core._proposer(round_): round_ for round_ in range(1, 5)}
    liar, good = [uid for uid in "bcd" if rounds[uid] != min(rounds[u] for u in "bcd")]
    later = rounds[good] if rounds[good] > 0 else rounds[good] + 4
    for number in range(5):
        wire.give("a", signed_vote(liar, PREVOTE, 0, bytes([number]) * 32))
    block = block_of(core, [put(1)], good)
    for voter in {"b", "c", "d"} - {liar}:
        wire.give("a", signed_vote(voter, PREVOTE, 0, block.id))
    for voter in ("b", "c", "d"):
        wire.give("a", signed_vote(voter, PRECOMMIT, later, NIL))
    assert core.round == later
    wire.give("a", signed_vote(liar, PREVOTE, 0, block.id))
    assert not core._tally.has_quorum(PREVOTE, 0, block.id), "a fourth value is not taken unasked"
    wire.give("a", signed_proposal(good, later, block, valid_round=0))
    wire.give("a", signed_vote(liar, PREVOTE, 0, block.id))
    assert core._tally.has_quorum(PREVOTE, 0, block.id)
    assert (PREVOTE, later, block.id) in votes(wire.log["a"])
    wire.give("a", signed_vote(liar, PREVOTE, 0, b"x" * 32))
    held = [v for v in core._tally.messages({0}) if v.voter == liar]
    assert len(held) == 4 and all(isinstance(v, msg.Vote) for v in held)
