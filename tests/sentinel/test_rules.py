"""The small pure parts: presence, lost learners, waits, refusals, settings, bootstrap."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from sentinel.bootstrap import found, read_origin, write_origin
from sentinel.late_mesh import LateMesh
from sentinel.lost import LostRule
from sentinel.presence import FORGET, Presence
from sentinel.refusals import Refusals
from sentinel.settings import Settings
from sentinel.waiting import WaitLog
from swarm.errors import LocalError, RemoteError
from swarm.identity import Role
from tests import pki

ME, OTHER, SL = "a" * 32, "b" * 32, "c" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# -------------------------------------------------------------------- presence


def test_a_client_is_alive_while_one_stream_is_open(clock: Clock) -> None:
    presence = Presence(clock)
    presence.attach(SL, "f")
    presence.attach(SL, "f")
    clock.now += 100
    presence.detach(SL, "f")
    assert presence.local() == {SL: 0.0}
    presence.detach(SL, "f")
    clock.now += 2
    assert presence.ages() == {SL: 2.0}
    clock.now += FORGET
    assert presence.ages() == {}


def test_signs_of_life_travel(clock: Clock) -> None:
    here, there = Presence(clock), Presence(clock)
    assert there.attach(SL, "f") and not there.attach(SL, "f")
    here.heard(OTHER, there.beat())
    clock.now += 5
    assert here.ages() == {SL: 0.0}  # connected there, as of the last sign of life
    clock.now += 11
    assert here.ages() == {SL: 16.0}  # that node itself is silent
    here.told(OTHER, [SL, True])
    assert here.ages() == {SL: 0.0}
    here.told(OTHER, [SL, False])
    clock.now += 2
    assert here.ages() == {SL: 2.0}
    assert not there.detach(SL, "f") and there.detach(SL, "f")
    clock.now += 2
    here.heard(OTHER, there.beat())
    assert here.ages() == {SL: 2.0}


@pytest.mark.parametrize(
    "payload", [None, 7, [], {"short": 1}, {SL: -1}, {SL: 1.5}, {SL: True}, {SL: 10**12}, {7: 1}]
)
def test_malformed_signs_of_life_are_left_out(clock: Clock, payload: Any) -> None:
    presence = Presence(clock)
    presence.heard(OTHER, payload)
    presence.told(OTHER, payload)
    presence.told(OTHER, [payload, True])
    assert presence.ages() == {}


# ------------------------------------------------------------------------ lost


def world(parent: str, state: str = "active", over: bool = False) -> tuple[dict, dict]:
    contracts = {
        "train": {"over": over, "members": {SL: {"state": state}}, "lost_reports": {}},
    }
    nodes = {SL: {"parent": parent}, OTHER: {"name": "sn2"}, ME: {"name": "sn1"}}
    return contracts, nodes


def test_the_parent_reports_three_seconds_after_the_disconnect(clock: Clock) -> None:
    rule = LostRule(ME, clock)
    contracts, nodes = world(ME)
    assert not list(rule.overdue(contracts, nodes, {SL: 0.0}, lambda uid: 0.0))
    assert not list(rule.overdue(contracts, nodes, {SL: 3.0}, lambda uid: 0.0))
    (loss,) = rule.overdue(contracts, nodes, {SL: 3.1}, lambda uid: 0.0)
    assert (loss.contract, loss.uid) == ("train", SL)
    assert loss.reason == "its connection was closed 3 s ago"
    assert not list(rule.overdue(*world(ME, "lost"), {SL: 9.0}, lambda uid: 0.0))
    assert not list(rule.overdue(*world(ME, over=True), {SL: 9.0}, lambda uid: 0.0))
    contracts["train"]["lost_reports"] = {SL: [ME]}
    assert not list(rule.overdue(contracts, nodes, {SL: 9.0}, lambda uid: 0.0))


def test_a_learner_that_never_came_gets_fifteen_seconds(clock: Clock) -> None:
    rule = LostRule(ME, clock)
    contracts, nodes = world(ME)
    assert not list(rule.overdue(contracts, nodes, {}, lambda uid: None))
    clock.now += 15.5
    (loss,) = rule.overdue(contracts, nodes, {}, lambda uid: None)
    assert "no sign of life" in loss.reason


def test_others_report_only_when_the_parent_is_gone_too(clock: Clock) -> None:
    rule = LostRule(ME, clock)
    contracts, nodes = world(OTHER)

    def look(age: dict[str, float], parent_age: float | None) -> list[Any]:
        return list(rule.overdue(contracts, nodes, age, lambda uid: parent_age))

    assert not look({SL: 20.0}, 1.0)  # its parent lives: the parent's business
    assert not look({SL: 20.0}, 20.0)  # not before it has been missing here for 15 s
    clock.now += 16
    assert not look({SL: 2.0}, 36.0)  # it has moved to another network node
    assert not look({SL: 20.0}, 36.0)
    clock.now += 16
    (loss,) = look({SL: 36.0}, 52.0)
    assert "sn2 has not been seen for 52 s" in loss.reason


def test_after_a_restart_nobody_is_blamed_at_once(clock: Clock) -> None:
    rule = LostRule(ME, clock)
    contracts, nodes = world(OTHER)
    assert not list(rule.overdue(contracts, nodes, {}, lambda uid: None))
    clock.now += 14
    assert not list(rule.overdue(contracts, nodes, {}, lambda uid: None))


# ----------------------------------------------------------------------- waits


def test_a_wait_is_told_when_it_lasts_and_when_it_ends(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    waits = WaitLog(clock)

    def look(reason: str) -> list[str]:
        caplog.clear()
        waits.look({"ledger": reason})
        clock.now += 1
        return [r.getMessage() for r in caplog.records]

    assert [look("no quorum") for _ in range(3)] == [[], [], []]
    assert look("no quorum") == ["ledger: no quorum"]
    assert look("no quorum") == []
    assert look("") == ["ledger: goes on"]
    assert look("brief") == []
    assert look("") == []


def test_refusals_are_logged_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(clock)
    for _ in range(1000):
        refusals.note("1.2.3.4", "plain_http", "it speaks plain HTTP")
    assert len(caplog.records) == 1
    clock.now += 61
    refusals.note("1.2.3.4", "plain_http", "it speaks plain HTTP")
    assert "999 more" in caplog.records[1].getMessage()
    for number in range(5000):
        refusals.note(f"10.0.0.{number}", "x", "y")
    assert len(refusals._seen) <= 1024


# -------------------------------------------------------------------- settings


def test_settings() -> None:
    settings = Settings.from_env(
        {"THIS_NODE_IP": "10.1.1.1", "SN_ETH_PORT_EXT": "40303", "SN_I_AM_SENTINEL": "True"}
    )
    assert settings.announced == "/ip4/10.1.1.1/tcp/40303"
    assert settings.p2p_port == 30303 and settings.api_port == 30304
    assert settings.is_sentinel and settings.name == "10.1.1.1"
    assert Settings.from_env({"THIS_NODE_IP": "::1"}).announced == "/ip6/::1/tcp/30303"
    named = Settings.from_env({"THIS_NODE_IP": "sn1.example"})
    assert named.announced == "/dns/sn1.example/tcp/30303"


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({}, "THIS_NODE_IP"),
        ({"THIS_NODE_IP": "x", "SN_API_SERVER_PORT": "0"}, "SN_API_SERVER_PORT=0"),
        ({"THIS_NODE_IP": "x", "SN_P2P_PORT": "http"}, "SN_P2P_PORT=http"),
        ({"THIS_NODE_IP": "x", "SN_I_AM_SENTINEL": "maybe"}, "SN_I_AM_SENTINEL=maybe"),
        ({"THIS_NODE_IP": "x", "SN_I_AM_SENTINEL": "1", "SENTINEL_NODE_IP": "y"}, "not both"),
        ({"THIS_NODE_IP": "x", "SWARM_FAULT_MODEL": "none"}, "SWARM_FAULT_MODEL=none"),
    ],
)
def test_settings_that_do_not_fit(env: dict[str, str], word: str) -> None:
    with pytest.raises(LocalError, match=word) as caught:
        Settings.from_env(env)
    assert caught.value.code == "SW5101"


# ------------------------------------------------------- bootstrap and mesh


def test_bootstrap_travels(tmp_path: Path) -> None:
    identity = pki.identity(tmp_path, Role.SN, pki.authority(tmp_path))
    settings = Settings.from_env({"THIS_NODE_IP": "10.1.1.1", "SN_I_AM_SENTINEL": "1"})
    genesis = found(settings, identity)
    answer = write_origin(genesis, [("Qm1", ["/ip4/10.1.1.1/tcp/1"]), ("", [])])
    answer["chain"] = answer["chain"].hex()
    origin = read_origin(answer)
    assert origin.genesis == genesis
    assert origin.peers == (("Qm1", ("/ip4/10.1.1.1/tcp/1",)),)
    with pytest.raises(RemoteError, match="does not fit"):
        read_origin({**answer, "chain": "00" * 32})
    for broken in (None, [], {}, {**answer, "genesis": "%%%"}, {**answer, "peers": [{}]}):
        with pytest.raises(RemoteError):
            read_origin(broken)


def test_the_mesh_may_come_late() -> None:
    class Real:
        peer_id = "Qm"

        def __init__(self) -> None:
            self.seen: list[Any] = []

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **options: self.seen.append((name, args))

    late = LateMesh()
    ledger, presence = late.view("ledger"), late.view("presence")
    ledger.set_beat(lambda: 7)
    presence.set_beat(lambda: {"x": 1})
    heard: list[Any] = []
    presence.on_beat(lambda peer, value: heard.append(value))
    ledger.handle("ask", None)  # type: ignore[arg-type]
    ledger.cast("lost", 1)  # nobody is there to hear it
    assert ledger.peer_id == "" and ledger.peers() == []
    real = Real()
    late.plug(real)  # type: ignore[arg-type]
    calls = dict(real.seen)
    assert calls["handle"] == ("ask", None)
    assert calls["set_beat"][0]() == {"ledger": 7, "presence": {"x": 1}}
    calls["on_beat"][0](None, {"presence": 5, "ledger": 6})
    calls["on_beat"][0](None, "nonsense")
    assert heard == [5]
    assert ledger.peer_id == "Qm"
