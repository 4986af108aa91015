"""A node whose directory is an old copy does not contradict what its key has signed since."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from swarm.ledger.block import PRECOMMIT, PREVOTE
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Core, Resume
from swarm.ledger.consensus.memory import Memory
from tests.ledger.cores import CHAIN, UIDS, Wire, put, sent, signed_vote, votes


def restored(wire: Wire, uid: str) -> Core:
    """`uid` starts again on the directory that it had at the very beginning."""
    core = wire.boot(uid, Resume(CHAIN, vote_from=(0, 0), unconfirmed=True))
    wire.take(uid, core.start(wire.time()))
    for other in wire.cores:
        if other != uid:
            wire.take(other, wire.cores[other].peer_up(uid, wire.time()))
    return core


def time_out(wire: Wire, uids: Iterable[str]) -> None:
    """Let all time pass that anybody waits for."""
    for kind in ("tick", "propose", "prevote", "precommit"):
        for uid in uids:
            if any(timer.timer.kind == kind for timer in wire.timers[uid]):
                wire.fire(uid, kind)
        wire.flow()


def commits(wire: Wire, count: int) -> None:
    """So many further blocks everywhere, with as many time-outs as that takes."""
    for _ in range(count):
        height = max(wire.heights()) + 1
        for uid in wire.cores:
            wire.submit(uid, put(1000 + height))
        for _ in range(20):
            wire.flow()
            if min(wire.heights()) >= height:
                break
            time_out(wire, wire.cores)
        assert min(wire.heights()) >= height


def check_own(wire: Wire, uid: str) -> set[tuple[int, int, int]]:
    """Height, round and kind of all votes of `uid` that anybody sent: one value for each."""
    found = {
        (vote.height, vote.round, vote.kind, vote.block_id)
        for log in wire.log.values()
        for vote in sent(log, msg.Vote)
        if vote.voter == uid
    }
    steps = {step[:3] for step in found}
    assert len(steps) == len(found), "it contradicts itself"
    return steps


def test_nothing_is_signed_before_enough_others_have_answered() -> None:
    wire = Wire()
    wire.log["d"].clear()
    core = restored(wire, "d")
    wire.waiting.clear()  # nobody is reached yet
    wire.submit("d", put(1))
    assert not sent(wire.log["d"], msg.Vote | msg.Proposal)
    assert not core.may_vote
    wire.give("d", msg.Answer(0, 0, -1), "a")
    assert not core.may_vote
    wire.give("d", msg.Answer(5, 5, -1), "b")  # far ahead: it could not have told everything
    assert not core.may_vote
    wire.give("d", msg.Answer(0, 0, -1), "c")
    assert core.may_vote
    assert votes(wire.log["d"]) or core._proposer(0) != "d"


def test_all_may_start_at_the_same_time() -> None:
    """After a power cut everywhere: those that wait answer each other."""
    wire = Wire()
    commits(wire, 2)
    apps = {uid: (core.app, core._last_id) for uid, core in wire.cores.items()}
    wire.waiting.clear()
    for uid, (app, last) in apps.items():
        wire.boot(uid, Resume(last, "a", 0, vote_from=(0, 0), unconfirmed=True), app)
    for uid in UIDS:
        wire.take(uid, wire.cores[uid].start(wire.time()))
    wire.flow()
    assert all(core.memory.confirmed and not core.memory.lost for core in wire.cores.values())
    commits(wire, 1)
    assert wire.heights() == [3] * 4


def test_the_only_validator_needs_nobody() -> None:
    wire = Wire(["a"])
    core = wire.boot("a", Resume(CHAIN, vote_from=(0, 0), unconfirmed=True))
    wire.take("a", core.start(wire.time()))
    wire.submit("a", put(1))
    assert core.height == 1


@pytest.mark.parametrize("uid", UIDS)
def test_an_old_copy_learns_of_its_votes_before_it_signs(uid: str) -> None:
    """It voted in height 1, which is not decided yet, and does not know that."""
    wire = Wire()
    wire.submit("a", put(1))
    wire.cut = lambda a, b, m: isinstance(m, msg.Vote) and m.kind == PRECOMMIT  # none decides
    wire.flow()
    before = check_own(wire, uid)
    assert before, "it voted"
    core = restored(wire, uid)
    wire.flow()
    assert core.memory.lost and not core.may_vote
    assert check_own(wire, uid) == before
    wire.cut = lambda a, b, m: False
    commits(wire, 4)
    assert core.may_vote, "it takes part again"
    assert min(check_own(wire, uid) - before) >= (3, 0, 0)


def test_an_old_copy_finds_its_signature_in_a_certificate() -> None:
    wire = Wire()
    commits(wire, 3)
    core = restored(wire, "a")
    wire.flow()
    assert core.height == 3
    assert core.memory.lost
    before = check_own(wire, "a")
    commits(wire, 4)
    assert core.may_vote
    assert min(check_own(wire, "a") - before) >= (5, 0, 0)


def test_a_node_that_was_merely_down_is_believed() -> None:
    """The others went on without it: no certificate holds a signature that it does not know."""
    wire = Wire()
    down = "d"
    wire.cut = lambda a, b, m: down in (a, b)
    others = [uid for uid in UIDS if uid != down]
    wire.submit("a", put(1))
    for _ in range(20):
        wire.flow()
        time_out(wire, others)
    assert [wire.cores[uid].height for uid in others] == [1] * 3
    wire.cut = lambda a, b, m: False
    core = restored(wire, down)
    wire.flow()
    for uid in UIDS:
        wire.fire(uid, "tick")
    wire.flow()
    assert core.height == 1
    assert not core.memory.lost and core.memory.confirmed and core.vote_from == (0, 0)
    commits(wire, 1)
    assert core.may_vote


def test_an_own_vote_that_is_stored_is_no_proof() -> None:
    wire = Wire()
    vote = signed_vote("d", PREVOTE, 0, b"x" * 32)
    core = wire.boot("d", Resume(CHAIN, signed=(vote,), vote_from=(0, 0), unconfirmed=True))
    wire.take("d", core.start(wire.time()))
    wire.give("d", vote, "a")
    assert not core.memory.lost
    wire.give("d", signed_vote("d", PREVOTE, 0), "b")
    assert core.memory.lost


def test_a_stranger_cannot_make_a_node_doubt_itself() -> None:
    wire = Wire()
    vote = signed_vote("d", PREVOTE, 0)
    forged = msg.Vote(vote.kind, vote.height, vote.round, vote.block_id, "d", b"forged")
    wire.give("d", forged, "a")
    assert not wire.cores["d"].memory.lost


def test_answers_count_once_their_height_is_reached() -> None:
    memory = Memory(confirmed=False)
    memory.hear("a", 4, own=3)
    memory.hear("b", 9, own=3)  # its votes of ours were too far ahead to be kept
    assert not memory.enough(["a", "b", "c"], 3, 2)
    assert memory.enough(["a", "b", "c"], 4, 2)
    assert not memory.enough(["a", "b", "c"], 9, 3)
    memory.hear("b", 9, own=9)
    assert memory.enough(["a", "b", "c"], 9, 3)
