"""What a network node does about other members: reports, summaries, and what a joiner is told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from sentinel import schemas
from sentinel.bootstrap import _ask, read_origin, write_origin
from sentinel.members import LOOK_EVERY, TRY_AGAIN, Accuser, log_news, summary
from swarm.api.transport import Answer, CertificateRefused
from swarm.errors import LocalError, RemoteError
from swarm.ledger.recovery import Name
from swarm.ledger.state import Verdict
from tests.state.world import World, genesis, sha

Proof = Any


def four() -> World:
    """Four validators of as many organisations."""
    world = World()
    for number in (2, 3, 4):
        world.add(f"sn-{number}", organisation=f"org-{number}")
        assert world.join(f"sn-{number}", validator=True).ok
    return world


class FakeWriter:
    """Applies to the world at once, as `sender`; fails as often as it is told to."""

    def __init__(self, world: World, sender: str) -> None:
        self.world = world
        self.sender = sender
        self.fail = 0
        self.calls = 0

    async def submit(self, op: str, args: Mapping[str, Any]) -> Verdict:
        self.calls += 1
        if self.fail:
            self.fail -= 1
            raise RemoteError("SW3008", "going down")
        return self.world.do(self.sender, op, **args)


def watch(world: World, writer: FakeWriter, proofs: list[Proof], seconds: float) -> None:
    """Let an accuser of `writer.sender` run for so long."""

    async def main() -> None:
        uid = world.uid(writer.sender)
        accuser = Accuser(uid, lambda: world.state, lambda: proofs, writer)  # type: ignore[arg-type]
        with trio.move_on_after(seconds):
            await accuser.run()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def double(world: World, name: str, **step: Any) -> Proof:
    return tuple(world.statement(name, block, **step) for block in "ab")


def test_a_double_vote_is_reported_once() -> None:
    world = four()
    writer = FakeWriter(world, "sn-2")
    proofs = [double(world, "sn-4"), double(world, "sn-4", round_=1)]
    watch(world, writer, proofs, 20 * LOOK_EVERY)
    assert writer.calls == 2
    record = world.state.get("evidence", world.uid("sn-4"))
    assert record is not None and len(record["cases"]) == 2


def test_what_another_node_has_reported_is_not_reported_again() -> None:
    world = four()
    proof = double(world, "sn-4")
    assert world.accuse("sn-1", *proof).ok
    writer = FakeWriter(world, "sn-2")
    watch(world, writer, [proof], 5 * LOOK_EVERY)
    assert writer.calls == 0


def test_a_report_that_fails_is_made_again_and_one_that_is_refused_is_not() -> None:
    world = four()
    writer = FakeWriter(world, "sn-2")
    writer.fail = 1
    watch(world, writer, [double(world, "sn-4")], TRY_AGAIN - LOOK_EVERY)
    assert writer.calls == 1
    watch(world, writer, [double(world, "sn-4")], 2 * TRY_AGAIN)
    assert writer.calls == 2
    one = world.statement("sn-4", "a")
    watch(world, writer, [(one, one)], 2 * TRY_AGAIN)
    assert writer.calls == 2, "that step is on the ledger"
    other = world.statement("sn-3", "a")
    watch(world, writer, [(other, other)], 2 * TRY_AGAIN)
    assert writer.calls == 3, "refused once, and not sent again"


def test_nobody_reports_before_it_is_a_member() -> None:
    world = four()
    world.add("sn-5")
    writer = FakeWriter(world, "sn-5")
    watch(world, writer, [double(world, "sn-4")], 5 * LOOK_EVERY)
    assert writer.calls == 0


def test_the_status_tells_who_is_out_and_who_shall_go(caplog: pytest.LogCaptureFixture) -> None:
    world = four()
    caplog.set_level(logging.INFO)

    def told() -> str:
        caplog.clear()
        for key in sorted(world.changed):
            log_news(world.state, key)
        return caplog.text

    assert summary(world.state) == {
        "evicted": [], "disputed": [], "evidence": [], "recoveries": [],
    }  # fmt: skip
    world.accuse("sn-1", *double(world, "sn-4"))
    assert "it signed two precommits at height 7, round 0" in told()
    world.evict("sn-1", "sn-4")
    assert "SN-1 want sn-4 out" in told()
    world.evict("sn-2", "sn-4")
    found = summary(world.state)
    (disputed,) = found["disputed"]
    assert (disputed["name"], disputed["votes"], disputed["needed"]) == ("sn-4", 2, 3)
    world.evict("sn-3", "sn-4")
    assert "its key is barred" in told()
    found = summary(world.state)
    assert found["disputed"] == []
    assert "evicted at height" in found["evicted"][0]["reason"]
    assert found["evidence"][0]["cases"] == ["it signed two precommits at height 7, round 0"]
    world.recover("sn-1", "sn-1")
    assert "went on without 2 validators: two sites burnt down (SN-1)" in told()
    found = summary(world.state)
    assert found["recoveries"][0]["height"] == world.state.height
    for name, kind in (
        ("evicted", schemas.Evicted), ("evidence", schemas.Accused),
        ("recoveries", schemas.Recovered),
    ):  # fmt: skip
        assert [kind(**one).model_dump() for one in found[name]] == found[name]
    schemas.Disputed(**disputed)


def test_a_joiner_is_told_of_recoveries() -> None:
    names = [Name(7, sha("block")), Name(9, sha("other"))]
    made = write_origin(genesis(), [("Peer1", ["/ip4/10.0.0.1/tcp/1"])], names)
    value = {**made, "chain": made["chain"].hex()}
    assert read_origin(value).recoveries == tuple(names)
    del value["recoveries"]
    assert read_origin(value).recoveries == ()
    hostile: tuple[Any, ...] = ("7", ["7"], ["0-" + "0" * 64], [7], None, {})
    for bad in hostile:
        with pytest.raises(RemoteError):
            read_origin({**value, "recoveries": bad})


class Refusing:
    """A transport to an API whose door keeps us out."""

    def exchange(self, method: str, path: str) -> Answer:
        text = "sn1:30304: sn-4 was evicted at height 9 by the votes of SN-1"
        raise CertificateRefused("SW4015", text)


def test_an_evicted_node_that_wants_to_join_again_ends() -> None:
    with pytest.raises(LocalError, match="evicted at height 9") as fault:
        _ask(Refusing())  # type: ignore[arg-type]
    assert fault.value.code == "SW4015"
