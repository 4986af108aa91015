"""The sixteen points that a consensus implementation gets wrong, one test or more for each.

Points 12 and 16 are about the disk: there is more of them in `test_store.py`. What needs many
messages, faults and time is searched by the simulator (`tests/simulator`).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
import trio.testing

from swarm.errors import LocalError, RemoteError
from swarm.ledger import mempool, merkle
from swarm.ledger.application import Application, Outcome
from swarm.ledger.block import (
    NIL,
    PRECOMMIT,
    PREVOTE,
    Block,
    Certificate,
    validators_hash,
    verdict_leaf,
    vote_bytes,
)
from swarm.ledger.consensus import core as core_module
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.algorithm import EXECUTED
from swarm.ledger.consensus.amnesia import Amnesia
from swarm.ledger.consensus.core import Core, Lock, Now, Resume
from swarm.ledger.consensus.messages import Answer
from swarm.ledger.consensus.sync import SERVE_BURST, Sync
from swarm.ledger.consensus.tally import VALUES, WINDOW, Tally
from swarm.ledger.mempool import MAX_SENDER, MAX_SENDER_BYTES, Mempool
from swarm.ledger.state.verdict import Header
from tests.ledger import kv
from tests.ledger.cores import (
    CHAIN,
    TIMING,
    UIDS,
    Wire,
    block_of,
    put,
    sent,
    signed_proposal,
    signed_vote,
    votes,
)
from tests.ledger.net import swarm

KEYS = {uid: kv.key_of(uid) for uid in UIDS}


# ---------------------------------------------------------------- 1: double votes


def test_point_1_a_double_voter_counts_for_each_value_and_is_evidence() -> None:
    tally = Tally(KEYS, 3)
    ids = [bytes([n]) * 32 for n in range(5)]
    proofs = []
    for block_id in ids:
        vote = signed_vote("d", PREVOTE, 0, block_id)
        if tally.wanted(vote, 0):
            proofs.append(tally.add(vote, 0))
    assert [proof is not None for proof in proofs] == [False, True, True]
    assert len(proofs) == VALUES, "bounded"
    for voter in ("a", "b"):
        tally.add(signed_vote(voter, PREVOTE, 0, ids[1]), 0)
    assert tally.has_quorum(PREVOTE, 0, ids[1])
    assert tally.voters(PREVOTE, 0) == {"a", "b", "d"}, "but as one voter"


def test_point_1_the_same_vote_with_another_signature_is_no_evidence() -> None:
    tally = Tally(KEYS, 3)
    vote = signed_vote("a", PRECOMMIT, 0)
    assert tally.add(vote, 0) is None
    again = msg.Vote(vote.kind, vote.height, vote.round, vote.block_id, vote.voter, b"another")
    assert not tally.wanted(again, 0)


# ---------------------------------------------------------------- 2: one value a step


def test_point_2_written_before_sent_in_every_step() -> None:
    wire = Wire()
    for number in range(3):
        wire.submit(UIDS[number], put(number))
    wire.flow()
    assert set(wire.heights()) == {wire.cores["a"].height}
    for uid, effects in wire.log.items():
        written: set[bytes] = set()
        for effect in effects:
            if isinstance(effect, fx.WriteVote):
                written.add(effect.message)
            elif isinstance(effect, fx.Send):
                message = effect.message
                if isinstance(message, msg.Vote) and message.voter == uid:
                    assert msg.encode(message) in written


def test_point_2_after_a_crash_the_stored_message_is_sent_again() -> None:
    wire = Wire()
    proposer = wire.cores["a"]._proposer(0)
    before = wire.submit(proposer, put(1))
    first = sent(before, msg.Proposal) + sent(before, msg.Vote)
    assert len(first) == 2
    core = wire.boot(proposer, Resume(CHAIN, signed=tuple(first), vote_from=(0, 0)))
    after = core.start(Now(9.0, 9999))
    assert sent(after, msg.Proposal) + sent(after, msg.Vote) == first
    wire.take(proposer, after)
    again = wire.submit(proposer, put(2))  # a new transaction must not make a new proposal
    assert not sent(again, msg.Proposal) and not votes(again)


# ---------------------------------------------------------------- 3: a lost store


def test_point_3_rule_1_waits_for_a_quorum_of_the_others() -> None:
    memory = Amnesia()
    memory.hear("b", Answer(9, 10, -1))  # in height 10 it has precommitted
    memory.hear("c", Answer(9, 9, -1))
    assert memory.vote_from("a", 9, UIDS, 3) is None
    memory.hear("d", Answer(9, 9, -1))
    assert memory.vote_from("a", 9, UIDS, 3) is None, "10 may be decided; it is not here yet"
    assert memory.vote_from("a", 10, UIDS, 3) == (12, 0)


def test_point_3_rule_1_believes_no_node_that_may_not_vote_itself() -> None:
    memory = Amnesia()
    for uid in "bcd":
        memory.hear(uid, Answer(5, -1, -1))
    assert memory.vote_from("a", 5, UIDS, 3) is None


def test_point_3_rule_1_keeps_the_first_answer() -> None:
    memory = Amnesia()
    for uid in "bcd":
        memory.hear(uid, Answer(5, 5, -1))
        memory.hear(uid, Answer(6, 7, 0))
    assert memory.vote_from("a", 5, UIDS, 3) == (7, 0)


def test_point_3_rule_2_when_everybody_is_needed() -> None:
    memory = Amnesia()
    pair = ("a", "b")
    assert memory.vote_from("a", 4, pair, 2) is None
    memory.hear("b", Answer(5, 5, 3))
    assert memory.vote_from("a", 4, pair, 2) is None, "the other is ahead"
    assert memory.vote_from("a", 5, pair, 2) == (6, 5), "beyond where the former self can have been"
    assert Amnesia().vote_from("a", 0, ("a",), 1) is None, "the only one cannot ask anybody"


def test_point_3_an_empty_store_is_silent_though_its_key_is_a_validators() -> None:
    wire = Wire()
    core = wire.boot("d", Resume(CHAIN))
    wire.take("d", core.start(wire.time()))
    wire.submit("a", put(1))
    wire.cut = lambda a, b, m: isinstance(m, Answer)
    wire.flow()
    assert wire.heights() == [1, 1, 1, 1]
    assert not [m for m in sent(wire.log["d"], msg.Vote) if m.voter == "d"][1:]
    assert not core.may_vote


# ---------------------------------------------------------------- 4: valid value, locks


def test_point_4_the_block_with_a_quorum_is_proposed_again_also_after_a_restart() -> None:
    wire = Wire()
    a, b, c, d = order(wire)
    proposal = sent(wire.submit(a, put(1)), msg.Proposal)[0]
    block_id = proposal.block.id
    wire.waiting.clear()
    wire.give(b, proposal)
    effects: list[fx.Effect] = []
    for voter in (a, c):
        effects += wire.give(b, signed_vote(voter, PREVOTE, 0, block_id))
    lock = next(e for e in effects if isinstance(e, fx.WriteLock))
    assert (lock.locked_round, lock.locked_id, lock.valid_round) == (0, block_id, 0)
    places = [i for i, e in enumerate(effects) if isinstance(e, fx.WriteLock | fx.Send)]
    assert isinstance(effects[places[0]], fx.WriteLock), "the lock before the vote"
    assert votes(effects) == [(PRECOMMIT, 0, block_id)]

    stored = [msg.decode(e.message) for e in wire.log[b] if isinstance(e, fx.WriteVote)]
    signed = tuple(m for m in stored if isinstance(m, msg.Vote | msg.Proposal))
    kept = Lock(0, block_id, 0, Block.decode(lock.valid_block))
    core = wire.boot(b, Resume(CHAIN, signed=signed, lock=kept, vote_from=(0, 0)))
    wire.take(b, core.start(wire.time()))
    for voter in (a, c, d):
        wire.give(b, signed_vote(voter, PRECOMMIT, 0, NIL))
    again = wire.fire(b, "precommit")  # round 1, whose proposer is b
    repeated = sent(again, msg.Proposal)[0]
    assert (repeated.block.id, repeated.valid_round, repeated.round) == (block_id, 0, 1)


def test_point_4_a_locked_node_prevotes_for_nothing_else() -> None:
    wire = Wire()
    a, b, c, d = order(wire)
    first = block_of(wire.cores[d], [put(1)], a)
    other = block_of(wire.cores[d], [put(2)], b)
    wire.give(d, signed_proposal(a, 0, first))
    for voter in (a, b, c):
        wire.give(d, signed_vote(voter, PREVOTE, 0, first.id))
    for voter in (a, b, c):
        wire.give(d, signed_vote(voter, PRECOMMIT, 0, NIL))
    wire.fire(d, "precommit")
    assert votes(wire.give(d, signed_proposal(b, 1, other))) == [(PREVOTE, 1, NIL)]


def test_point_4_a_quorum_of_a_later_round_undoes_the_lock() -> None:
    wire = Wire()
    a, b, c, d = order(wire)
    first = block_of(wire.cores[d], [put(1)], a)
    other = block_of(wire.cores[d], [put(2)], b)
    wire.give(d, signed_proposal(a, 0, first))
    for voter in (a, b, c):
        wire.give(d, signed_vote(voter, PREVOTE, 0, first.id))
    for voter in (a, b, c):
        wire.give(d, signed_vote(voter, PREVOTE, 1, other.id))
        wire.give(d, signed_vote(voter, PRECOMMIT, 2, NIL))
    assert wire.cores[d].round == 2
    assert votes(wire.give(d, signed_proposal(c, 2, other, 1))) == [(PREVOTE, 2, other.id)]


def test_point_4_a_restarted_node_can_show_why_it_is_locked() -> None:
    """Found by the simulator: nobody else may have kept the prevotes of then."""
    wire = Wire()
    a, b, c, d = order(wire)
    block = block_of(wire.cores[d], [put(1)], a)
    wire.give(d, signed_proposal(a, 0, block))
    for voter in (a, b, c):
        wire.give(d, signed_vote(voter, PREVOTE, 0, block.id))
    lock = next(e for e in wire.log[d] if isinstance(e, fx.WriteLock))
    stored = [msg.decode(e.message) for e in wire.log[d] if isinstance(e, fx.WriteVote)]
    signed = tuple(m for m in stored if isinstance(m, msg.Vote))
    proof = tuple(v for v in map(msg.decode, lock.proof) if isinstance(v, msg.Vote))
    core = wire.boot(d, Resume(CHAIN, signed=signed, lock=Lock(0, block.id, 0, block, proof),
                               vote_from=(0, 0)))  # fmt: skip
    wire.take(d, core.start(wire.time()))
    answer = wire.give(d, msg.Ask(0, 0, False), source=c)
    prevotes = {v.voter for v in sent(answer, msg.Vote) if v.kind == PREVOTE}
    assert len(prevotes) >= 3


def test_point_3_a_node_votes_in_the_round_that_it_watched_in_silence() -> None:
    """Found by the simulator: all others waited for its vote, and no time-out could help them."""
    wire = Wire(("a", "b"))
    first = wire.cores["a"]._proposer(0)
    other = "a" if first == "b" else "b"
    core = wire.boot(other, Resume(CHAIN))
    wire.take(other, core.start(wire.time()))
    wire.cut = lambda x, y, m: isinstance(m, Answer)
    wire.submit(first, put(1))
    wire.flow()
    assert core.step != core_module.IDLE and not votes(wire.log[other])
    wire.give(other, Answer(0, 0, 0), source=first)
    assert core.round == 2
    assert votes(wire.fire(other, "propose")) == [(PREVOTE, 2, NIL)]
    wire.flow()
    assert wire.cores[first].round == 2, "which the other one joins"


def test_point_3_a_node_gets_its_own_old_votes_back() -> None:
    """Found by the simulator: after losing its disk it needs them to see an old quorum."""
    wire = Wire()
    wire.submit("a", put(1))
    own = signed_vote("b", PREVOTE, 0, NIL)
    wire.give("a", own)
    assert own in sent(wire.give("a", msg.Ask(0, 0, False), source="b"), msg.Vote)


def order(wire: Wire) -> tuple[str, str, str, str]:
    """Proposers of rounds 0 to 3."""
    core = wire.cores["a"]
    a, b, c, d = (core._proposer(round_) for round_ in range(4))
    return a, b, c, d


# ---------------------------------------------------------------- 5: no empty blocks


def test_point_5_nothing_happens_without_an_includable_transaction() -> None:
    wire = Wire()
    for uid in UIDS:
        effects = wire.fire(uid, "tick")
        assert not votes(effects) and not sent(effects, msg.Proposal)
    wire.waiting.clear()
    wire.submit("b", put(1, expires=1))
    wire.flow()
    assert wire.heights() == [1, 1, 1, 1]
    assert all(core.step == core_module.IDLE for core in wire.cores.values())


def test_point_5_a_transaction_that_expires_while_it_waits_starts_no_round() -> None:
    wire = Wire(("a",))
    core = wire.cores["a"]
    core.mempool.add(put(1, expires=2), kv.KV().identify(put(1, expires=2)))
    core.mempool.add(put(2, expires=1), kv.KV().identify(put(2, expires=1)))
    wire.submit("a", put(3))
    wire.flow()
    assert core.height == 1 and len(core.mempool) == 0
    late = put(4, expires=1)
    core.mempool.add(late, kv.KV().identify(late))
    dropped = wire.fire("a", "tick")
    assert [e.error.code for e in dropped if isinstance(e, fx.Dropped)] == ["SW3006"]
    assert core.step == core_module.IDLE and core.height == 1


def test_point_5_an_empty_block_is_not_even_readable() -> None:
    wire = Wire()
    with pytest.raises(RemoteError):
        Block.decode(block_of(wire.cores["a"], [], "a").encoded)


# ---------------------------------------------------------------- 6: replays


def test_point_6_a_committed_transaction_is_never_included_again() -> None:
    wire = Wire()
    wire.submit("a", put(1))
    wire.flow()
    for uid in UIDS:
        with pytest.raises(RemoteError, match="replayed"):
            wire.submit(uid, put(1))
    replay = block_of(wire.cores["a"], [put(1)], order(wire)[0])
    assert "replayed" in wire.cores["a"]._judge(replay)
    wire.give("a", msg.Transactions((put(1),)))
    assert len(wire.cores["a"].mempool) == 0


def test_point_6_nor_twice_in_one_block_nor_after_it_expired() -> None:
    wire = Wire()
    core, first = wire.cores["b"], order(wire)[0]
    assert "twice" in core._judge(block_of(core, [put(1), put(1)], first))
    wire.submit("a", put(1))
    wire.flow()
    assert "expired" in core._judge(block_of(core, [put(2, expires=1)], first))


# ---------------------------------------------------------------- 7: repair


def test_point_7_what_was_lost_is_repeated_after_a_tick() -> None:
    wire = Wire()
    wire.cut = lambda a, b, m: True
    for uid in UIDS:
        wire.submit(uid, put(1))
    wire.flow()
    assert wire.heights() == [0, 0, 0, 0]
    wire.cut = lambda a, b, m: False
    for _ in range(3):
        for uid in UIDS:
            wire.fire(uid, "tick")
        wire.flow()
    assert wire.heights() == [1, 1, 1, 1]


def test_point_7_votes_travel_through_third_nodes() -> None:
    """a and d never hear each other; all votes of all are needed, as one more node is down."""
    wire = Wire()
    down = order(wire)[3]
    a, d = order(wire)[0], order(wire)[1]
    wire.cut = lambda x, y, m: down in (x, y) or {x, y} == {a, d}
    wire.submit(a, put(1))
    for _ in range(8):
        wire.flow()
        for uid in UIDS:
            wire.fire(uid, "tick")
    assert sum(height == 1 for height in wire.heights()) == 3


# ---------------------------------------------------------------- 8: sync, sets


def certified(block: Block, signers: str, round_: int = 0) -> tuple[bytes, bytes]:
    data = vote_bytes(CHAIN, PRECOMMIT, block.height, round_, block.id)
    pairs = tuple((uid, kv.sign(kv.key_of(uid), data)) for uid in sorted(signers))
    return block.encoded, Certificate(block.height, round_, block.id, pairs).encode()


def test_point_8_a_joiner_checks_each_block_against_the_set_of_its_height() -> None:
    wire = Wire(("a",), observers=("o",))
    for number, tx in enumerate(
        [put(0), kv.transaction("b", 1, "join", "b"), put(2), kv.transaction("a", 3, "leave", "a")]
    ):
        if number == 2:  # b votes from here on
            core = wire.boot("b", Resume(wire.cores["a"]._last_id, "a", 0, vote_from=(0, 0)),
                             wire.cores["a"].app)  # fmt: skip
            wire.take("b", core.start(wire.time()))
        wire.submit("a", tx)
        wire.flow()
    chain = list(wire.blocks)
    assert [len(Certificate.decode(c).signatures) for _, c in chain] == [1, 1, 2, 2]
    fresh = Wire(("a",), observers=("o",))
    fresh.give("o", msg.Blocks(tuple(chain)))
    assert fresh.cores["o"].height == 4
    assert fresh.cores["o"].validators == ("b",)
    old_set = certified(Block.decode(chain[2][0]), "a")
    for batch in ((*chain[:2], old_set), (*chain[:2], certified(Block.decode(chain[2][0]), "b"))):
        fresh = Wire(("a",), observers=("o",))
        effects = fresh.give("o", msg.Blocks(batch))
        assert fresh.cores["o"].height == 2
        assert any(isinstance(e, fx.Blame) for e in effects)


@pytest.mark.parametrize("signers", ["", "a", "ab", "abx", "abz"])
def test_point_8_short_or_foreign_certificates_are_refused(signers: str) -> None:
    wire = Wire(observers=("o",))
    block = block_of(wire.cores["a"], [put(1)], "a")
    wire.give("o", msg.Blocks((certified(block, signers),)))
    assert wire.cores["o"].height == 0
    wire.give("o", msg.Blocks((certified(block, "abd"),)))
    assert wire.cores["o"].height == 1


def test_point_8_certificates_of_other_blocks_rounds_and_repeated_signers_are_refused() -> None:
    wire = Wire(observers=("o",))
    block = block_of(wire.cores["a"], [put(1)], "a")
    other = block_of(wire.cores["a"], [put(2)], "a")
    own = kv.sign(kv.key_of("a"), vote_bytes(CHAIN, PRECOMMIT, 1, 0, block.id))
    repeated = Certificate(1, 0, block.id, (("a", own),) * 3).encode()
    good = Certificate.decode(certified(block, "abc")[1])
    moved = Certificate(1, 1, block.id, good.signatures).encode()
    for certificate in (certified(other, "abc")[1], repeated, moved):
        effects = wire.give("o", msg.Blocks(((block.encoded, certificate),)))
        assert wire.cores["o"].height == 0
        assert any(isinstance(e, fx.Blame) for e in effects)


def test_point_8_observers_and_removed_nodes_sign_nothing() -> None:
    wire = Wire(observers=("o",))
    wire.submit("o", put(1))
    wire.flow()
    wire.submit("a", kv.transaction("d", 7, "leave", "d"))
    wire.flow()
    mark = len(wire.log["d"])
    wire.submit("d", put(2))
    wire.flow()
    assert wire.heights() == [3, 3, 3, 3, 3]
    for uid, begin in (("o", 0), ("d", mark)):
        assert not [m for m in sent(wire.log[uid][begin:], msg.Vote) if m.voter == uid]
        assert not [e for e in wire.log[uid][begin:] if isinstance(e, fx.WriteVote)]


# ---------------------------------------------------------------- 9: time-outs, skipping


def test_point_9_time_outs_grow_with_the_round() -> None:
    wire = Wire()
    a, b, c, d = order(wire)
    delays = []
    wire.submit(d, put(1))
    for round_ in range(4):
        timer = [t for t in wire.timers[d] if t.timer.kind == "propose"][-1]
        delays.append(timer.delay)
        for voter in (a, b, c):
            wire.give(d, signed_vote(voter, PRECOMMIT, round_, NIL))
        wire.fire(d, "precommit")
    expected = [(TIMING.base_ms + TIMING.step_ms * r) / 1000 for r in range(4)]
    assert delays == pytest.approx(expected)


def test_point_9_a_node_joins_a_round_that_f_plus_1_have_reached() -> None:
    wire = Wire()
    a, b, _, d = order(wire)
    wire.submit(d, put(1))
    wire.give(d, signed_vote(a, PREVOTE, 7, NIL))
    assert wire.cores[d].round == 0, "one may lie"
    wire.give(d, signed_vote(b, PRECOMMIT, 9, NIL))
    assert wire.cores[d].round == 7


def test_point_9_rounds_far_ahead_are_reached_too() -> None:
    wire = Wire()
    a, b, _, d = order(wire)
    wire.submit(d, put(1))
    for voter in (a, b):
        wire.give(d, signed_vote(voter, PREVOTE, 5000, NIL))
    assert wire.cores[d].round == 5000


# ---------------------------------------------------------------- 10: bounds


def test_point_10_a_sender_has_its_share_of_the_mempool_and_no_more() -> None:
    pool = Mempool()
    app = kv.KV()
    for number in range(MAX_SENDER):
        tx = kv.transaction("x", number, "put", "k", "v")
        assert pool.add(tx, app.identify(tx))
        assert not pool.add(tx, app.identify(tx))
    tx = kv.transaction("x", MAX_SENDER, "put", "k", "v")
    with pytest.raises(RemoteError) as caught:
        pool.add(tx, app.identify(tx))
    assert caught.value.code == "SW3007"
    other = kv.transaction("y", 9999, "put", "k", "v")
    assert pool.add(other, app.identify(other))
    pool.remove(app.identify(kv.transaction("x", 0, "put", "k", "v")).id)
    assert pool.add(tx, app.identify(tx))


def test_point_10_bytes_of_the_mempool_are_bounded_too() -> None:
    pool = Mempool()
    app = kv.KV()
    big = "v" * 60_000
    count = 0
    with pytest.raises(RemoteError):
        while True:
            tx = kv.transaction("x", count, "put", "k", big)
            pool.add(tx, app.identify(tx))
            count += 1
    assert count * 60_000 <= MAX_SENDER_BYTES


def test_point_10_messages_of_the_next_height_are_held_within_limits() -> None:
    wire = Wire()
    for number in range(1000):
        wire.give("a", signed_vote("b", PREVOTE, number, NIL, height=2), source="b")
    (held,) = wire.cores["a"]._future.values()
    assert len(held) == core_module.FUTURE_MESSAGES
    wire.give("a", signed_vote("b", PREVOTE, 0, NIL, height=3), source="b")
    assert len(held) == core_module.FUTURE_MESSAGES
    asked = sent(wire.log["a"], msg.Ask)
    assert len(asked) <= 2, "and cause one question, not a thousand"


def test_point_10_votes_far_ahead_take_no_memory() -> None:
    wire = Wire()
    wire.submit("a", put(1))
    for round_ in range(0, 4000, 2):
        wire.give("a", signed_vote("b", PREVOTE, round_, NIL))
    tally = wire.cores["a"]._tally
    assert sum(1 for _ in tally.messages(set(range(5000)))) <= WINDOW + 4
    assert tally.highest["b"] == 3998


def test_point_10_a_neighbour_that_asks_without_end_is_served_at_a_bounded_rate() -> None:
    wire = Wire(("a",))
    wire.submit("a", put(1))
    wire.flow()
    effects: list[fx.Effect] = []
    for _ in range(1000):
        effects += wire.give("a", msg.Fetch(0))
        effects += wire.give("a", msg.Ask(0, -1, False))
    assert len([e for e in effects if isinstance(e, fx.Serve)]) <= SERVE_BURST
    assert len(sent(effects, msg.Answer)) <= SERVE_BURST
    sync = Sync()
    for number in range(5000):
        sync.allow(f"peer{number}", 0.0)
        sync.hear(f"peer{number}", Answer(1, 1, -1))
    assert len(sync.heights) <= 256


# ---------------------------------------------------------------- 11: determinism


def test_point_11_the_same_events_give_the_same_effects() -> None:
    def run() -> list[str]:
        wire = Wire()
        for number in range(20):
            wire.submit(UIDS[number % 4], put(number))
        wire.flow()
        return [repr(effect) for effects in wire.log.values() for effect in effects]

    assert run() == run()


def test_point_11_a_block_carries_what_comes_of_it() -> None:
    wire = Wire()
    for number in range(3):
        wire.submit("a", put(number))
        wire.flow()
    assert wire.heights() == [3, 3, 3, 3]
    commits = [e for e in wire.log["b"] if isinstance(e, fx.Commit)]
    for commit in commits:
        effect = commit.block.header.effect
        assert effect.state == commit.application.digest()
        assert effect.results == merkle.root([verdict_leaf(v) for v in commit.outcome.verdicts])
        assert effect.next_validators == validators_hash(commit.application.validators())


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("state", "a different state"),
        ("results", "its verdicts"),
        ("next_validators", "other validators"),
    ],
)
def test_point_11_nobody_votes_for_a_block_that_lies_about_what_comes_of_it(
    part: str, said: str
) -> None:
    wire = Wire()
    first, second = order(wire)[:2]
    core = wire.cores[second]
    honest = block_of(core, [put(1)], first)
    effect = honest.header.effect._replace(**{part: b"w" * 32})
    lie = block_of(core, [put(1)], first, effect=effect)
    effects = wire.give(second, signed_proposal(first, 0, lie))
    assert votes(effects) == [(PREVOTE, 0, NIL)]
    assert said in core.refusal


def test_point_11_a_block_is_executed_once_on_its_way() -> None:
    class Counting(kv.KV):
        calls = 0

        def apply(self, header: Header, txs: tuple[bytes, ...]) -> tuple[Application, Outcome]:
            Counting.calls += 1
            return super().apply(header, txs)

    wire = Wire()
    for uid in UIDS:
        wire.boot(uid, Resume(CHAIN, vote_from=(0, 0)), Counting(uids=UIDS))
    wire.submit("a", put(1))
    wire.flow()
    assert wire.heights() == [1, 1, 1, 1]
    assert Counting.calls == len(UIDS)


def test_point_10_what_one_height_has_executed_does_not_grow() -> None:
    wire = Wire()
    core = wire.cores["a"]
    for number in range(3 * EXECUTED):
        core._outcome(block_of(core, [put(number)], "b"))
    assert len(core._executed) == EXECUTED


def test_point_11_a_node_whose_state_differs_stops_loudly() -> None:
    wire = Wire(observers=("o",))
    wrong = kv.KV(uids=UIDS, entries={"other": "of another version"})
    wire.boot("o", Resume(CHAIN), wrong)
    block = block_of(wire.cores["a"], [put(1)], "a")
    effects = wire.give("o", msg.Blocks((certified(block, "abc"),)))
    (halt,) = [e for e in effects if isinstance(e, fx.Halt)]
    assert halt.code == "SW3013" and "different state" in halt.cause
    assert not wire.give("o", signed_vote("a", PREVOTE, 0)), "and does nothing any more"


# ---------------------------------------------------------------- 13: evidence, fail-stop


@pytest.mark.parametrize("model", ["byzantine", "crash"])
def test_point_13_under_the_crash_rule_a_double_vote_stops_the_node(model: str) -> None:
    wire = Wire(("a", "b", "c"), model=model)
    wire.submit("a", put(1))
    wire.give("a", signed_vote("b", PREVOTE, 0, b"x" * 32))
    effects = wire.give("a", signed_vote("b", PREVOTE, 0, b"y" * 32))
    (proof,) = [e for e in effects if isinstance(e, fx.WriteEvidence)]
    assert (proof.height, proof.voter) == (1, "b")
    assert (proof.first.kind, proof.second.kind) == (PREVOTE, PREVOTE)
    assert proof.first.block_id != proof.second.block_id
    halts = [e for e in effects if isinstance(e, fx.Halt)]
    assert [halt.code for halt in halts] == (["SW3014"] if model == "crash" else [])


def test_point_13_an_equivocating_proposer_is_evidence_too() -> None:
    wire = Wire()
    a, _, _, d = order(wire)
    core = wire.cores[d]
    wire.give(d, signed_proposal(a, 0, block_of(core, [put(1)], a)))
    effects = wire.give(d, signed_proposal(a, 0, block_of(core, [put(2)], a)))
    assert [e.voter for e in effects if isinstance(e, fx.WriteEvidence)] == [a]


def test_point_13_nobody_is_accused_with_a_false_signature() -> None:
    wire = Wire()
    wire.submit("a", put(1))
    wire.give("a", signed_vote("b", PREVOTE, 0, b"x" * 32))
    good = signed_vote("b", PREVOTE, 0, b"y" * 32)
    forged = msg.Vote(good.kind, 1, 0, good.block_id, "b", b"\0" * 16)
    effects = wire.give("a", forged, source="evil")
    assert [e.source for e in effects if isinstance(e, fx.Blame)] == ["evil"]
    assert not [e for e in effects if isinstance(e, fx.WriteEvidence)]


# ---------------------------------------------------------------- 14: rules from the genesis


def test_point_14_quorum_comes_from_the_ledger() -> None:
    for model, needed in (("byzantine", 3), ("crash", 2)):
        assert Wire(("a", "b", "c"), model=model).cores["a"].quorum == needed


# ---------------------------------------------------------------- 15: no recursion


def test_point_15_a_long_backlog_neither_recurses_nor_blocks() -> None:
    wire = Wire(("a",))
    core = wire.cores["a"]
    for number in range(3000):
        tx = kv.transaction(f"s{number // 200}", number, "put", "k", "v")
        core.mempool.add(tx, core.app.check(tx))
    effects = wire.submit("a", put(9999))
    assert sum(isinstance(e, fx.Commit) for e in effects) == 1, "one block a step"
    wire.flow()
    # 15 senders with 200 each get LEAST a block.
    assert core.height == 200 // mempool.LEAST and len(core.mempool) == 0


# ---------------------------------------------------------------- 16: one transaction, then send


def test_point_16_what_a_replica_says_is_on_its_disk_first(tmp_path: Path) -> None:
    """Seen from outside: each own vote that leaves is in the file; a failed write says nothing."""
    said: list[bytes] = []

    async def main() -> None:
        async with swarm(tmp_path) as made:
            site, other = await made.grow(2)
            store, mesh = site.replica._store, site.replica._mesh
            written: set[bytes] = set()

            def write(effects: list[fx.Effect]) -> None:
                type(store).write(store, effects)
                written.update(e.message for e in effects if isinstance(e, fx.WriteVote))

            def cast(method: str, frame: list[bytes], *, to: str | None = None) -> None:
                for raw in frame:
                    message = msg.decode(raw)
                    if isinstance(message, msg.Vote | msg.Proposal) and message.voter == site.uid:
                        assert raw in written
                        said.append(raw)
                type(mesh).cast(mesh, method, frame, to=to)

            store.write, mesh.cast = write, cast
            await other.task()
            assert len(said) >= 2, "a prevote and a precommit"
            said.clear()

            def full(effects: list[fx.Effect]) -> None:
                if any(isinstance(effect, fx.DURABLE) for effect in effects):
                    raise LocalError("SW3012", "no space left")

            store.write = full
            made.nursery.start_soon(other.task)
            await site.ended.wait()
            made.nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert not said


# ---------------------------------------------------------------- all of them


def test_each_of_the_sixteen_points_has_a_test_with_its_number() -> None:
    names = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    found = {int(number) for number in re.findall(r"def test_point_(\d+)_", names)}
    assert found == set(range(1, 17))


# ---------------------------------------------------------------- sticky proposer


def test_the_proposer_stays_rotates_and_a_dead_one_costs_one_time_out() -> None:
    wire = Wire()
    proposers = []
    for number in range(2 * TIMING.rotate_blocks):
        wire.submit("a", put(number))
        wire.flow()
        last = [e for e in wire.log["b"] if isinstance(e, fx.Commit)][-1]
        proposers.append(last.block.header.proposer)
    assert len(set(proposers[: TIMING.rotate_blocks - 1])) == 1
    assert len(set(proposers)) == 3, "a new one at each multiple"
    dead = order(wire)[0]
    wire.cut = lambda x, y, m: dead in (x, y)
    others = [uid for uid in UIDS if uid != dead]
    waits = 0
    for number in range(100, 103):
        wire.submit(others[0], put(number))
        wire.flow()
        while wire.cores[others[0]].step != core_module.IDLE:
            waits += 1
            for uid in others:
                wire.fire(uid, "propose")
            wire.flow()
            for uid in others:
                if wire.cores[uid].step != core_module.IDLE:
                    wire.fire(uid, "precommit")
            wire.flow()
    assert waits == 1


def test_core_has_no_hidden_inputs() -> None:
    """No clock, no randomness, no I/O in the pure parts."""
    import ast
    from pathlib import Path

    import swarm.ledger.consensus as package

    forbidden = {"time", "random", "os", "socket", "trio", "threading", "sqlite3", "secrets"}
    for path in Path(package.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module.split(".")[0]]
            assert not forbidden & set(names), f"{path.name} imports {names}"


def test_core_is_the_production_one() -> None:
    assert Wire().made is Core
