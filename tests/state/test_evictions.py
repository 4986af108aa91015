"""Evictions: who may vote, when a vote counts, and that a barred key stays out."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.ledger.consensus.quorum import quorum
from swarm.ledger.state import State, evictions
from tests.state.world import World

ORGANISATIONS = ("org-1", "org-2", "org-3")
SNS = {"sn-1": "org-1", "sn-2": "org-2", "sn-3": "org-2", "sn-4": "org-3", "sn-5": "org-3"}
OTHERS = {"sl-1": "org-1", "sl-2": "org-3", "swop-1": "org-2"}


def swarm() -> World:
    """Five validators of three organisations, and some members of theirs."""
    world = World()
    for name, organisation in {**SNS, **OTHERS}.items():
        if name != "sn-1":
            world.add(name, organisation=organisation)
            changes = {"validator": True} if name in SNS else {}
            assert world.join(name, **changes).ok
    for number, organisation in enumerate(ORGANISATIONS, 1):
        world.add(f"swci-{number}", organisation=organisation)
    return world


def test_a_vote_counts_for_all_validators_of_the_organisation() -> None:
    world = swarm()
    first = world.evict("swci-2", "sl-1").result
    assert (first["evicted"], first["votes"], first["needed"]) == (False, 2, 4)
    again = world.evict("sn-3", "sl-1").result
    assert again["votes"] == 2, "the organisation has voted already"
    done = world.evict("swci-3", "sl-1").result
    assert (done["evicted"], done["votes"]) == (True, 4)
    node = world.state.get("nodes", world.uid("sl-1"))
    assert node is not None and node["evicted"] == world.state.height and not node["active"]


def test_a_barred_key_can_do_nothing_under_any_name_or_role() -> None:
    world = swarm()
    world.add("sl-9", organisation="org-1", certificate="sl-1")
    world.add("swci-9", organisation="org-1", certificate="sl-1")
    for voter in ("swci-2", "swci-3"):
        assert world.evict(voter, "sl-1").ok
    reason = world.state.barred()[world.members["sl-1"].fingerprint]
    assert "evicted at height" in reason and "SWCI-2" in reason
    assert world.state.bar(world.members["sl-1"].fingerprint) == reason
    for name in ("sl-1", "sl-9"):
        assert world.join(name).code == evictions.BARRED
    assert world.evict("swci-9", "sn-5").code == evictions.BARRED
    assert world.state.bar(world.members["sl-2"].fingerprint) is None


def test_an_eviction_holds_from_the_next_transaction_of_its_own_block() -> None:
    world = swarm()
    assert world.evict("swci-2", "swop-1").ok
    uid = world.uid("swop-1")
    vote = (world.transaction("node.evict", {"uid": uid}), world.members["swci-3"])
    last = (world.transaction("node.leave", {"uid": uid}), world.members["swop-1"])
    evicted, refused = world.block(vote, last)
    assert evicted.result["evicted"]
    assert refused.code == evictions.BARRED


def test_barred_is_cheap_and_survives_a_restart() -> None:
    world = swarm()
    for voter in ("swci-2", "swci-3"):
        world.evict(voter, "sl-1")
    before = world.state.barred()
    world.must("swci-1", "task.create", name="t", type="RUN_SWARM", author="a",
               prereq="ROOTTASK", outcome="t")  # fmt: skip
    assert world.state.barred() is before
    rows = [row for row in world.state.rows(None) if row[2] is not None]
    stored = State.from_rows(world.state.chain, world.state.height, rows)  # type: ignore[arg-type]
    assert stored.barred() == before


def test_unknown_nodes_and_strangers() -> None:
    world = swarm()
    assert world.do("swci-1", "node.evict", uid="0" * 32).code == "SW4010"
    world.add("swci-8", organisation="org-8")
    assert world.evict("swci-8", "sl-1").code == "SW4012"
    assert world.do("sl-2", "node.evict", uid=world.uid("sl-1")).code == "SW4004"


def test_votes_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evictions, "MAX_PENDING_PER_ORGANISATION", 2)
    world = swarm()
    assert world.evict("swci-1", "sl-2").ok
    assert world.evict("swci-1", "swop-1").ok
    assert world.evict("swci-1", "sn-5").code == "SW4006"
    assert world.evict("swci-1", "sl-2").ok, "that vote is there already"
    assert world.evict("swci-2", "sn-5").ok, "others have a share of their own"
    monkeypatch.setattr(evictions, "MAX_EVICTIONS", 3)
    assert world.evict("swci-3", "sl-1").code == "SW4006"


def test_the_last_validator_stays_whoever_votes() -> None:
    world = World()
    world.add("swci-1")
    assert world.evict("swci-1", "sn-1").code == evictions.LAST_VALIDATOR
    assert [validator.uid for validator in world.state.validators()] == [world.uid("sn-1")]


def test_a_vote_against_somebody_who_becomes_the_last_validator_waits() -> None:
    world = World()
    world.add("sn-2", organisation="org-2")
    assert world.join("sn-2", validator=True).ok
    assert not world.evict("sn-2", "sn-1").result["evicted"]
    assert world.do("sn-2", "node.leave", uid=world.uid("sn-2")).ok
    assert world.state.barred() == {}
    assert len(world.state.validators()) == 1
    assert world.join("sn-2", validator=True).ok
    assert len(world.state.validators()) == 2


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("evict"),
            st.sampled_from(["swci-1", "swci-2", "swci-3", *SNS]),
            st.sampled_from([*SNS, *OTHERS]),
        ),
        st.tuples(
            st.sampled_from(["leave", "join"]), st.sampled_from([*SNS, *OTHERS]), st.just("")
        ),
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_evictions_follow_the_votes(steps: list[tuple[str, str, str]]) -> None:
    """For any votes, leaves and returns, against a slow count of the same."""
    world = swarm()
    states = [world.state]
    for step, who, whom in steps:
        before = world.state.barred()
        if step == "evict":
            verdict = world.evict(who, whom)
        elif step == "leave":
            verdict = world.do(who, "node.leave", uid=world.uid(who))
        else:
            verdict = world.join(who, validator=who in SNS)
        assert verdict.code != "SW1001", verdict
        if world.members[who].fingerprint in before:
            assert verdict.code == evictions.BARRED
        states.append(world.state)
    model = world.state.fault_model
    for earlier, later in pairwise(states):
        assert later.validators(), "there is always a validator"
        assert set(earlier.barred()) <= set(later.barred()), "a barred key stays barred"
        for node in later.table("nodes").values():
            barred = node["fingerprint"] in later.barred()
            assert bool(node["evicted"]) == barred
            assert not (barred and (node["active"] or node["validator"]))
        voters = [later.get("nodes", v.uid)["organisation"] for v in later.validators()]  # type: ignore[index]
        for key, record in later.table("evictions").items():
            if record["at"]:
                continue
            enough = sum(one in record["votes"] for one in voters) >= quorum(len(voters), model)
            alone = all(
                later.get("nodes", v.uid)["fingerprint"] == key  # type: ignore[index]
                for v in later.validators()
            )
            assert not enough or alone, "an eviction with its votes is carried out at once"
