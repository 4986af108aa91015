"""Evidence: what convicts, and that nothing convicts a node that follows the rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import RemoteError
from swarm.ledger.block import NIL, PRECOMMIT, PREVOTE
from swarm.ledger.consensus.statement import PROPOSAL, Statement
from swarm.ledger.state.evidence import MAX_CASES, NO_EVIDENCE, describe
from tests.state.world import World, sha


@pytest.fixture(scope="module")
def fresh() -> World:
    world = World()
    for name in ("sn-2", "sn-3"):
        assert world.join(name, validator=True).ok
    return world


@pytest.fixture
def world(fresh: World) -> World:
    state = fresh.state
    made = World()
    made.members, made.names, made.state = dict(fresh.members), dict(fresh.names), state
    made._count = fresh._count
    return made


def test_two_votes_of_one_step_are_recorded(world: World) -> None:
    for kind in (PROPOSAL, PREVOTE, PRECOMMIT):
        one, other = (world.statement("sn-3", block, kind=kind) for block in "ab")
        assert world.accuse("sn-1", one, other).result["recorded"]
    record = world.state.get("evidence", world.uid("sn-3"))
    assert record is not None and record["name"] == "sn-3"
    assert [case["kind"] for case in record["cases"]] == [0, 1, 2]
    assert describe(record["cases"][1]) == "it signed two prevotes at height 7, round 0"
    assert record["cases"][0]["reporter"] == world.uid("sn-1")
    node = world.state.get("nodes", world.uid("sn-3"))
    assert node is not None and node["validator"], "people decide, with an eviction"


def test_a_vote_for_nothing_and_one_for_a_block_contradict_each_other(world: World) -> None:
    one = world.statement("sn-3", "a")
    other = world.signed("sn-3", replace(one, block_id=NIL))
    assert world.accuse("sn-1", one, other).result["recorded"]


def test_the_record_stays_small(world: World) -> None:
    for round_ in range(MAX_CASES + 3):
        one, other = (world.statement("sn-3", block, round_=round_) for block in "ab")
        assert world.accuse("sn-1", one, other).result["recorded"] == (round_ < MAX_CASES)
    record = world.state.get("evidence", world.uid("sn-3"))
    assert record is not None and len(record["cases"]) == MAX_CASES


def test_the_accused_has_to_be_a_network_node_and_the_reporter_too(world: World) -> None:
    one, other = (world.statement("sn-3", block) for block in "ab")
    world.add("sl-1")
    world.add("sn-9")
    assert world.accuse("sl-1", one, other).code == "SW4004"
    assert world.accuse("sn-9", one, other).code == "SW4010"
    stranger = [world.statement("sn-9", block) for block in "ab"]
    assert world.accuse("sn-1", *stranger).code == "SW4010"


def test_statements_for_another_swarm_prove_nothing(world: World) -> None:
    """A site that takes part in two swarms with one key signs at equal heights in both."""
    here = world.statement("sn-3", "a")
    there = world.statement("sn-3", "b", chain=sha("another swarm"))
    assert world.accuse("sn-1", here, there).code == NO_EVIDENCE
    assert world.accuse("sn-1", there, here).code == NO_EVIDENCE


HONEST = st.dictionaries(
    st.tuples(st.sampled_from([5, 6]), st.integers(0, 1), st.sampled_from([0, 1, 2])),
    st.sampled_from(["a", "b", ""]),
    min_size=2,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(HONEST, st.data())
def test_an_honest_node_is_never_framed(
    fresh: World, spoken: dict[tuple[int, int, int], str], data: st.DataObject
) -> None:
    """Whatever is made of the statements of a node that signs one value a step: mixed, altered,
    renamed, signed by others."""
    said = []
    for (height, round_, kind), block in spoken.items():
        bare = Statement(
            kind, height, round_, -1, sha(block) if block or kind == 0 else NIL, fresh.uid("sn-3"),
            b"",
        )  # fmt: skip
        said.append(fresh.signed("sn-3", bare))
    changes: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {},
        optional={
            "height": st.sampled_from([5, 6]),
            "round": st.integers(0, 1),
            "kind": st.sampled_from([0, 1, 2]),
            "block_id": st.sampled_from([sha("a"), sha("b"), NIL]),
            "voter": st.sampled_from([fresh.uid("sn-2"), fresh.uid("sn-3")]),
            "signature": st.sampled_from([one.signature for one in said]) | st.binary(max_size=80),
        },
    )
    pair = []
    for _ in range(2):
        one = replace(data.draw(st.sampled_from(said)), **data.draw(changes))
        if data.draw(st.booleans()):
            one = fresh.signed("sn-2", one)  # a liar's own signature
            if one.voter == fresh.uid("sn-2"):
                one = replace(one, voter=fresh.uid("sn-3"))
        pair.append(one.encode())
    world = World()
    world.members, world.names, world.state = fresh.members, fresh.names, fresh.state
    world._count = fresh._count
    verdict = world.do("sn-1", "node.accuse", first=pair[0], second=pair[1])
    assert verdict.code in (NO_EVIDENCE, "SW4010"), verdict
    assert world.state.get("evidence", fresh.uid("sn-3")) is None


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    with pytest.raises(RemoteError):
        Statement.decode(data)


@given(
    st.integers(-2, 3), st.integers(-1, 1 << 63), st.integers(-1, 1 << 32), st.integers(-2, 5),
    st.binary(max_size=33), st.text(max_size=70), st.binary(max_size=1100),
)  # fmt: skip
def test_what_is_parsed_is_in_range(
    kind: int, height: int, round_: int, valid: int, block: bytes, voter: str, signature: bytes
) -> None:
    try:
        raw = Statement(kind, height, round_, valid, block, voter, signature).encode()
        found = Statement.decode(raw)
    except (RemoteError, ValueError, UnicodeEncodeError):
        return
    assert found.encode() == raw
    assert found.height > 0 and (found.kind != PROPOSAL or len(found.block_id) == 32)
