"""Members that try to fill the state, to forge, to replay, or to block others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.identity import Role, node_uid
from swarm.ledger.state import (
    DEFAULT_CONTRACT,
    DEFAULT_RUNNER,
    TABLES,
    Header,
    State,
    authorities,
    contracts,
    ids,
    membership,
    taskrunners,
    tasks,
)
from swarm.ledger.state import args as a
from swarm.ledger.state.draft import MAX_VALIDATORS
from swarm.ledger.state.machine import MAX_AHEAD
from swarm.ledger.state.table import Table
from swarm.ledger.state.transitions import Transition, Transitions
from swarm.ledger.state.verdict import Refused
from swarm.ledger.transaction import Transaction
from tests.state.world import RULES, World, sha


@pytest.fixture
def world() -> World:
    return World()


# Replay and ids


def test_a_transaction_counts_once(world: World) -> None:
    world.add("swci-1")
    tx = world.transaction("task.create", {})
    assert world.block((tx, world.members["swci-1"]))[0].code == "SW4002"
    assert "used already" in (world.state.refusal(tx, world.members["swci-1"]) or "")
    assert world.block((tx, world.members["swci-1"]))[0].code == "SW4001"


def test_twice_in_one_block(world: World) -> None:
    world.add("swci-1")
    tx = world.transaction("contract.create", {"name": "c"})
    pair = (tx, world.members["swci-1"])
    assert [verdict.ok for verdict in world.block(pair, pair)] == [True, False]


def test_nobody_can_use_up_the_id_of_another(world: World) -> None:
    world.add("swci-1")
    world.add("sl-9")
    tx = world.transaction("contract.create", {"name": "c"})
    assert not world.block((tx, world.members["sl-9"]))[0].ok
    assert world.state.refusal(tx, world.members["swci-1"]) is None
    assert world.block((tx, world.members["swci-1"]))[0].ok


def test_expiry_and_other_chains(world: World) -> None:
    peer, chain, height = world.members["sn-1"], world.state.chain, world.state.height
    cases = [
        (Transaction(bytes(32), bytes(16), 10, "x", {}), "another swarm"),
        (Transaction(chain, bytes(16), height, "x", {}), "expired"),
        (Transaction(chain, bytes(16), height + MAX_AHEAD + 1, "x", {}), "ahead"),
    ]
    for tx, why in cases:
        assert why in (world.state.refusal(tx, peer) or "")
    last = Transaction(chain, bytes(16), height + 1, "x", {})
    assert world.state.refusal(last, peer) is None


def test_ids_are_forgotten_when_they_expire(world: World) -> None:
    world.add("swci-1")
    peer = world.members["swci-1"]
    tx = Transaction(world.state.chain, bytes(16), world.state.height + 2, "x", {})
    world.block((tx, peer))
    assert sum(table == "txids" for table, _, _ in world.state.rows(None)) == 1
    world.block()
    world.block()
    assert sum(table == "txids" for table, _, _ in world.state.rows(None)) == 0
    assert "expired" in (world.state.refusal(tx, peer) or "")


def test_a_sender_cannot_fill_the_id_table(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "MAX_PER_SENDER", 3)
    world.add("swci-1")
    for _ in range(3):
        world.do("swci-1", "x")
    tx = world.transaction("x", {})
    assert "not expired" in (world.state.refusal(tx, world.members["swci-1"]) or "")
    assert world.state.refusal(tx, world.members["sn-1"]) is None


def test_only_the_next_block_can_follow(world: World) -> None:
    with pytest.raises(ValueError, match="cannot follow"):
        world.state.apply(Header(5, 0, ""), [])


@pytest.mark.parametrize("time_ms", [-1, 1 << 80])
def test_a_proposers_absurd_clock_does_no_harm(world: World, time_ms: int) -> None:
    world.learners("sl-1", min_peers=1)
    args = {"contract": DEFAULT_CONTRACT, "uid": world.uid("sl-1")}
    tx = world.transaction("contract.leave", args)
    header = world.header()._replace(time_ms=time_ms)
    state, verdicts, _ = world.state.apply(header, [(tx, world.members["sl-1"])])
    assert verdicts[0].ok and len(state.digest()) == 32


# Forging


def test_acts_for_another_are_refused(world: World) -> None:
    world.learners("sl-1", "sl-2")
    world.add("swop-9")
    victim = world.uid("sl-1")
    about = {"contract": DEFAULT_CONTRACT, "uid": victim}
    for op, args in (
        ("node.leave", {"uid": victim}),
        ("contract.leave", about),
        ("round.close", {**about, "round": 0}),
    ):
        assert world.do("sl-2", op, **args).code == "SW4005", op
    assert world.checkin("sl-2", uid=victim).code == "SW4005"
    about = {"contract": DEFAULT_CONTRACT, "host": "h", "port": 1, "mode": "snapshot"}
    own = {**about, "uid": world.uid("sl-2"), "rules": {**RULES}}
    assert world.do("sl-2", "contract.enroll", **own, name="sl-1").code == "SW4005"


def test_one_certificate_may_have_several_learners_but_not_those_of_another(world: World) -> None:
    for name in ("sl-1", "sl-2"):
        world.add(name, certificate="sl-host")
    world.learners("sl-1", "sl-2")
    assert world.uid("sl-1") != world.uid("sl-2")
    world.add("sl-3")
    stolen = world.join("sl-3", uid_name="sl-1")
    assert stolen.ok and stolen.result["uid"] == node_uid(world.members["sl-3"].fingerprint, "sl-1")
    assert stolen.result["uid"] != world.uid("sl-1")


def test_another_certificate_of_the_same_key_is_the_same_node_in_its_role_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One key, certified by two organisations or for two roles."""
    mine = world.add("sl-1")
    assert world.join("sl-1").ok
    uid = world.uid("sl-1")
    for role, kind in ((Role.SWOP, "SWOP"), (Role.SN, "SN")):
        world.members["sl-1"] = replace(mine, role=role)
        assert world.join("sl-1", uid_name="sl-1", type=kind).code in ("SW4005", "SW4002")
        assert world.do("sl-1", "node.leave", uid=uid).code == "SW4005"
    world.members["sl-1"] = replace(mine, organisation=sha("org-2").hex())
    world.join("sl-2")
    with monkeypatch.context() as patch:
        patch.setattr(membership, "MAX_NODES_PER_ORGANISATION", 0)
        assert world.join("sl-1", port=9).code == "SW4006", "no room in that organisation"
        world.members["sl-1"] = mine
        assert world.join("sl-1", port=9).ok, "it has its place in this one"
    world.members["sl-1"] = replace(mine, organisation=sha("org-2").hex())
    assert world.join("sl-1", port=8).ok, "the CA of its organisation was replaced"
    node = world.state.get("nodes", uid)
    assert node is not None and node["type"] == "SL" and node["port"] == 8
    assert node["organisation"] == sha("org-2").hex() and node["fingerprint"] == mine.fingerprint


def test_a_creator_keeps_its_task_when_its_ca_is_replaced(world: World) -> None:
    mine, other = world.add("swci-1"), world.add("swci-2")
    about = {"type": "RUN_SWARM", "author": "me", "prereq": "ROOTTASK", "outcome": "x"}
    world.must("swci-1", "task.create", name="t1", **about)
    moved = sha("org-2").hex()
    world.members["swci-1"] = replace(mine, organisation=moved)
    world.members["swci-2"] = replace(other, organisation=moved)
    assert world.do("swci-2", "task.delete", task="t1").code == "SW4024"
    assert world.do("swci-1", "task.delete", task="t1").ok


def test_nobody_becomes_a_sentinel_or_takes_a_peer_id(world: World) -> None:
    assert world.join("sn-2", type="SENTINEL").ok
    node = world.state.get("nodes", world.uid("sn-2"))
    assert node is not None and node["type"] == "SN"
    assert world.join("sn-3", peer_id="Peer1").code == "SW4011"
    assert world.join("sn-1", validator=True).ok
    sentinel = world.state.get("nodes", world.uid("sn-1"))
    assert sentinel is not None and sentinel["type"] == "SENTINEL"


def test_the_last_validator_cannot_resign(world: World) -> None:
    assert world.join("sn-1", validator=False).result["validator"]
    assert [v.uid for v in world.state.validators()] == [world.uid("sn-1")]


def test_at_most_25_validators(world: World) -> None:
    for number in range(2, MAX_VALIDATORS + 4):
        verdict = world.join(f"sn-{number}", validator=True)
        assert verdict.result["validator"] == (number <= MAX_VALIDATORS)
    assert len(world.state.validators()) == MAX_VALIDATORS


def test_one_sn_cannot_bring_in_a_ca_or_lose_a_foreign_learner(world: World) -> None:
    world.join("sn-2", validator=True)
    der = b"\x30\x50" + bytes(80)
    assert not world.must("sn-2", "ca.admit", der=der)["admitted"]
    assert len(world.state.cas()) == 1
    world.learners("sl-1", "sl-2")
    assert world.lost("sn-2", "sl-1").result["state"] == "active"
    assert world.contract["members"][world.uid("sl-1")]["state"] == "active"


def test_operators_report_for_themselves_only(world: World) -> None:
    for name in ("swop-1", "swop-2"):
        world.join(name, pairs=1)
    world.task("run")
    assert world.assign("run").ok
    assert world.take_part("swop-2", uid=world.uid("swop-1")).code == "SW4005"
    assert world.take_part("swop-1").ok and world.take_part("swop-2").ok
    assert world.status("swop-2", "ERROR", uid=world.uid("swop-1")).code == "SW4005"
    assert world.status("swop-1", "RUNNING", peer="a").ok
    assert world.status("swop-2", "ERROR", peer="a").ok
    assert world.runner["peers"]["a"]["state"] == "RUNNING"


def test_tasks_belong_to_the_organisation_that_created_them(world: World) -> None:
    world.add("swci-2", organisation="org-2")
    world.add("swci-1")
    about = {"type": "PULL_IMAGE", "author": "x", "prereq": "ROOTTASK", "outcome": "o"}
    world.must("swci-1", "task.create", name="t", **about)
    for op, args in (
        ("task.append", {"task": "t", "index": 1, "lines": ["evil"]}),
        ("task.finalize", {"task": "t"}),
        ("task.delete", {"task": "t"}),
    ):
        assert world.do("swci-2", op, **args).code == "SW4024"
    assert world.do("swci-2", "task.delete", task="ROOTTASK").code == "SW4071"


def test_task_bodies(world: World) -> None:
    world.add("swci-1")
    about = {"type": "PULL_IMAGE", "author": "x", "prereq": "ROOTTASK", "outcome": "o"}
    world.must("swci-1", "task.create", name="t", **about)
    assert world.do("swci-1", "task.create", name="t", **about).code == "SW4021"
    assert world.do("swci-1", "task.append", task="t", index=2, lines=["x"]).code == "SW4002"
    world.must("swci-1", "task.append", task="t", index=1, lines=["a: 1", "\tb"])
    world.must("swci-1", "task.append", task="t", index=2, lines=["c", "d"])
    record = world.state.get("tasks", "t")
    assert record is not None and record["body"] == ["a: 1", "c", "d"]
    long = ["x" * tasks.MAX_LINE] * 60
    world.must("swci-1", "task.append", task="t", index=1, lines=long)
    assert world.do("swci-1", "task.append", task="t", index=61, lines=long).code == "SW4006"
    world.must("swci-1", "task.finalize", task="t")
    assert world.do("swci-1", "task.append", task="t", index=1, lines=["x"]).code == "SW4022"
    assert world.do("swci-1", "task.delete", task="t").ok


def test_what_others_created_is_not_deleted(world: World) -> None:
    """Also not by a member of the organisation that runs the taskrunner's only operator."""
    world.add("swci-1")
    world.add("swci-2", organisation="org-2")
    world.must("swci-1", "contract.create", name="mine")
    world.must("swci-1", "runner.create", name="mine")
    for sender, args, codes in (
        ("swci-2", "mine", ("SW4072", "SW4072")),
        ("swci-1", "", ("SW4002", "SW4002")),
        ("swci-1", "nothing", ("SW4040", "SW4030")),
        ("sn-1", "mine", ("SW4004", "SW4004")),
    ):
        assert world.do(sender, "contract.delete", contract=args).code == codes[0]
        assert world.do(sender, "runner.delete", runner=args).code == codes[1]


def test_a_deleted_name_leaves_nothing_and_frees_its_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tasks, taskrunners, contracts):
        monkeypatch.setattr(module, "MAX_PER_ORGANISATION", 1)
    world.add("swci-1", organisation="org-9")
    before = {table: dict(world.state.table(table)) for table in TABLES}
    about = {"type": "PULL_IMAGE", "author": "x", "prereq": "ROOTTASK", "outcome": "o"}
    for kind, key, extra in (("contract", "contract", {}), ("runner", "runner", {}),
                             ("task", "task", about)):  # fmt: skip
        for _ in range(2):
            world.must("swci-1", f"{kind}.create", name="n", **extra)
            assert world.do("swci-1", f"{kind}.create", name="m", **extra).code == "SW4006"
            world.must("swci-1", f"{kind}.delete", **{key: "n"})
    assert {table: dict(world.state.table(table)) for table in TABLES} == before


@pytest.mark.parametrize("act", ["contract.delete", "contract.reset"])
def test_a_round_is_not_forgotten_in_the_block_that_decided_it(world: World, act: str) -> None:
    """No state after a block would hold it, and so no record could prove it."""
    world.add("swci-1")
    world.must("swci-1", "contract.create", name="c")
    assert world.join("sl-1").ok and world.train("sl-1", contract="c", min_peers=1).ok
    uid = world.uid("sl-1")
    attempt = {"contract": "c", "uid": uid, "round": 0, "attempt": 0}
    brought = {
        "weight": 10_000, "samples": 1, "root": sha("v"), "schema": sha("s"), "size": 4,
        "base": None, "done": False,
    }  # fmt: skip
    world.must("sl-1", "round.checkin", contract="c", uid=uid, round=0, **brought)
    acts = [
        ("sl-1", "round.merged", {**attempt, "digest": sha("r"), "shards": []}),
        ("sl-1", "contract.leave", {"contract": "c", "uid": uid}),
        ("swci-1", act, {"contract": "c"}),
    ]
    verdicts = world.block(
        *((world.transaction(op, args), world.members[who]) for who, op, args in acts)
    )
    assert [verdict.code for verdict in verdicts] == ["", "", "SW4073"]
    assert world.do("swci-1", act, contract="c").ok
    assert world.state.get("schemas", "c") is None


# Filling


def test_organisations_fill_their_own_share_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tasks, taskrunners, contracts):
        monkeypatch.setattr(module, "MAX_PER_ORGANISATION", 2)
    world.add("swci-1", organisation="org-9")
    world.add("swci-2", organisation="org-8")
    about = {"type": "PULL_IMAGE", "author": "x", "prereq": "ROOTTASK", "outcome": "o"}
    for op, extra in (("contract.create", {}), ("runner.create", {}), ("task.create", about)):
        codes = [world.do("swci-1", op, name=f"n{i}", **extra).code for i in range(3)]
        assert codes == ["", "", "SW4006"]
        assert world.do("swci-2", op, name="other", **extra).ok
        assert world.do("swci-1", op, name="other", **extra).code in ("SW4021", "SW4031", "SW4041")


def test_a_certificates_oldest_unused_node_gives_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "MAX_NODES_PER_KEY", 3)
    names = [f"sl-{i}" for i in range(5)]
    for name in names:
        world.add(name, certificate="one")
    world.learners(*names[:2])
    assert world.join(names[2]).ok
    assert world.join(names[3]).ok  # displaces the third, which trains nowhere
    assert world.state.get("nodes", world.uid(names[2])) is None
    assert world.train(names[3]).ok
    assert world.join(names[4]).code == "SW4006"


def test_members_of_one_certificate_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contracts, "MAX_MEMBERS_PER_KEY", 2)
    monkeypatch.setattr(contracts, "MAX_MEMBERS", 3)
    for i in range(3):
        world.add(f"sl-{i}", certificate="one")
    world.learners("sl-0", "sl-1")
    world.join("sl-2")
    assert world.train("sl-2").code == "SW4006"
    world.must("sl-0", "contract.leave", contract=DEFAULT_CONTRACT, uid=world.uid("sl-0"))
    assert world.train("sl-2").ok
    assert world.uid("sl-0") not in world.contract["members"]
    world.learners("sl-8")
    world.join("sl-9")
    assert world.train("sl-9").code == "SW4006"


def test_pairs_of_one_certificate_are_bounded(world: World) -> None:
    for name in ("swop-1", "swop-2"):
        world.add(name, certificate="one")
        world.join(name, pairs=40)
    world.join("swop-3", pairs=40)
    world.task("run")
    assert world.assign("run").ok
    assert world.take_part("swop-1", pairs=40).ok
    assert world.take_part("swop-2", pairs=40).code == "SW4006"
    assert world.take_part("swop-3", pairs=40).ok


def test_pending_cas_of_one_sn_are_bounded(world: World) -> None:
    world.join("sn-2", validator=True)
    codes = [
        world.do("sn-2", "ca.admit", der=b"\x30\x50" + bytes([i]) * 80).code
        for i in range(authorities.MAX_PENDING_PER_SN + 1)
    ]
    assert codes[-2:] == ["", "SW4006"]


def test_history_and_status_texts_are_bounded(world: World) -> None:
    world.learners("sl-1", min_peers=1)
    for number in range(70):
        assert world.checkin("sl-1").ok
        assert world.merged("sl-1", f"r{number}").ok
    assert [line["round"] for line in world.contract["history"]] == list(range(6, 70))
    world.join("swop-1", pairs=1)
    world.task("run")
    world.assign("run")
    world.take_part("swop-1")
    assert world.status("swop-1", "RUNNING", text="x" * 2001).code == "SW4002"
    assert world.status("swop-1", "ERROR", text="\x1b[31mred\nline").ok
    assert world.runner["swops"][world.uid("swop-1")]["text"] == "\ufffd[31mred\nline"


# Shapes


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weight": 1.5}, "weight"),
        ({"weight": True}, "weight"),
        ({"weight": -1}, "weight"),
        ({"weight": 100 * 10_000 + 1}, "weight"),
        ({"root": "00" * 32}, "root"),
        ({"root": b"short"}, "root"),
        ({"tensors": ["x"] * 600}, "tensors"),
        ({"tensors": ["x" * 200] * 400}, "tensors"),
        ({"uid": "../../etc"}, "uid"),
        ({"contract": "a/b"}, "contract"),
        ({"done": 1}, "done"),
        ({"surplus": 1}, "unknown argument 'surplus'"),
    ],
)
def test_malformed_check_ins(world: World, change: dict[str, object], told: str) -> None:
    world.learners("sl-1", "sl-2")
    verdict = world.checkin("sl-1", **change)
    assert verdict.code == "SW4002"
    assert told in verdict.text


def test_missing_arguments_and_unknown_operations(world: World) -> None:
    world.add("swci-1")
    assert "name is missing" in world.do("swci-1", "contract.create").text
    assert world.do("swci-1", "contract.destroy", name="x").code == "SW4003"


@pytest.mark.parametrize("value", ["1", "-1.5", "2e-05", "1.25E+3", "inf", "-inf", "nan"])
def test_decimals(value: str) -> None:
    assert not a.DECIMAL.problem(value)


@pytest.mark.parametrize("value", ["", "1.", ".5", "0x1", "1_0", "１", "1" * 33, " 1", "1\n", 1.5])
def test_not_decimals(value: object) -> None:
    assert a.DECIMAL.problem(value)


@pytest.mark.parametrize("text", ["a\nb", "\x00", "\u202eevil", "\x9b", "\ud800"])
def test_texts_without_tricks(text: str) -> None:
    assert a.text(0, 10).problem(text)
    assert not a.text(0, 10).problem("é 漢字")


@pytest.mark.parametrize(
    "der",
    [b"", b"\x30", b"\x31\x00", b"\x30\x01", b"\x30\x80", b"\x30\x81\x05abcde", b"\x30\x00x"],
)
def test_not_one_der_sequence(der: bytes) -> None:
    assert not authorities.is_der_sequence(der)


def test_der_sequences() -> None:
    assert authorities.is_der_sequence(b"\x30\x03abc")
    assert authorities.is_der_sequence(b"\x30\x81\x80" + bytes(128))
    assert authorities.is_der_sequence(b"\x30\x82\x01\x00" + bytes(256))


def test_impossible_steps_are_named() -> None:
    table = Transitions("Door", "open", (Transition("open", "shut", "closed", ""),))
    with pytest.raises(ValueError, match=r"Door: invalid transition \[closed -> shut\]"):
        table.step("closed", "shut")
    with pytest.raises(ValueError, match="two rows"):
        Transitions("Door", "open", (Transition("a", "b", "c", ""), Transition("a", "b", "d", "")))


def test_a_defect_becomes_a_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node would stop at the same block otherwise."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(contracts, "created_by", broken)
    world.add("swci-1")
    verdict = world.do("swci-1", "contract.create", name="c")
    assert verdict.code == "SW1001" and "ZeroDivisionError" in verdict.text
    assert world.state.get("contracts", "c") is None


# The contract's schema


def test_one_that_has_gone_does_not_bind_the_others(world: World) -> None:
    world.learners("sl-1", "sl-2", "sl-3")
    assert world.checkin("sl-1", schema=sha("odd")).ok
    assert world.checkin("sl-2").code == "SW4054"
    assert world.lost("sn-1", "sl-1").ok
    assert world.checkin("sl-2").ok


def test_schema_refusals_name_what_differs(world: World) -> None:
    world.learners("sl-1", "sl-2", "sl-3")
    world.checkin("sl-1")
    for tensors, told in (
        (["w float32 2x2"], "2 tensors there and 1 here"),
        ([], "64 bytes there and 64 here"),
    ):
        refused = world.checkin("sl-2", schema=sha("odd"), tensors=tensors)
        assert refused.code == "SW4054" and told in refused.text
    assert world.checkin("sl-2", size=128).code == "SW4054"


def test_leaving_the_swarm_leaves_its_contracts(world: World) -> None:
    world.learners("sl-1", "sl-2", "sl-3")
    for name in ("sl-1", "sl-2", "sl-3"):
        world.checkin(name)
    world.must("sl-3", "node.leave", uid=world.uid("sl-3"))
    assert world.contract["members"][world.uid("sl-3")]["state"] == "left"
    assert world.contract["attempt"] == 1
    assert world.train("sl-3").code == "SW4010"  # it has to enroll in the swarm first


def test_a_restarted_learner_in_the_roster_fails_its_attempt(world: World) -> None:
    world.learners("sl-1", "sl-2", "sl-3")
    for name in ("sl-1", "sl-2", "sl-3"):
        world.checkin(name)
    assert world.train("sl-3").ok
    assert world.contract["attempt"] == 1
    assert world.uid("sl-3") not in world.contract["roster"]
    assert world.merged("sl-3").code == "SW4059"


def test_results_that_differ_are_told(world: World) -> None:
    world.learners("sl-1", "sl-2")
    world.checkin("sl-1")
    world.checkin("sl-2")
    world.merged("sl-1", "one")
    world.merged("sl-2", "other")
    assert "their results differ" in world.contract["waiting"]


def test_the_only_weights_leave_with_their_member(world: World) -> None:
    """Only inactive members that are done remain in the attempt: nothing is left to merge."""
    world.join("sl-1")
    world.train("sl-1", mode="inactive")
    world.join("sl-2")
    world.train("sl-2", mode="inactive")
    world.learners("sl-3")
    for name in ("sl-1", "sl-2"):
        assert world.checkin(name, weight=0, done=True).ok
    assert world.checkin("sl-3").ok
    assert world.lost("sn-1", "sl-3").ok
    assert world.contract["over"] and world.contract["status"] == "FINISHED"


def test_many_names_are_shortened(world: World) -> None:
    world.learners(*(f"sl-{i}" for i in range(9)))
    assert "sl-0, sl-1, sl-2, sl-3, sl-4, sl-5 and 3 more" in world.contract["waiting"]


def test_refused_is_not_an_error_of_this_node() -> None:
    refused = Refused("SW4002", "why")
    assert (refused.code, refused.text, refused.result) == ("SW4002", "why", {})


def test_reading(world: World) -> None:
    assert world.state.get("nothing", "x") is None
    assert world.state.fault_model == "byzantine"
    assert list(world.state.table("taskrunners")) == [DEFAULT_RUNNER]
    assert isinstance(world.state, State) and world.state.height == 0


def test_tables_are_read_in_the_order_of_names() -> None:
    names = [f"record-{number}" for number in range(600)]
    table = Table().updated({name: {"x": 1} for name in reversed(names)})
    shuffled = Table().updated({name: {"x": 1} for name in names[::2]})
    shuffled = shuffled.updated({name: {"x": 1} for name in names[1::2]})
    assert list(table) == list(shuffled) == sorted(names)
    assert table.digest == shuffled.digest != Table().digest
    assert table.updated(dict.fromkeys(names)).digest == Table().digest
    assert table.updated({}) is table


def test_each_decided_round_is_in_the_state_after_some_block(world: World) -> None:
    """A round begins after the block that decided the last one, so none hides inside a block."""
    world.learners("sl-1", min_peers=1)
    world.checkin("sl-1")
    uid, peer = world.uid("sl-1"), world.members["sl-1"]
    own = {"contract": DEFAULT_CONTRACT, "uid": uid}
    decide = {**own, "round": 0, "attempt": 0, "digest": sha("result"), "shards": []}
    again = {
        **own, "round": 1, "weight": 1, "samples": 1, "root": sha("next"), "size": 64,
        "schema": sha("schema"), "base": sha("result"), "done": False,
    }  # fmt: skip
    first = (world.transaction("round.merged", decide), peer)
    second = (world.transaction("round.checkin", again), peer)
    assert [v.code for v in world.block(first, second)] == ["", "SW4053"]
    last = world.contract["last"]
    assert (last["height"], last["roots"]) == (
        world.state.height,
        {uid: sha("vector of sl-1")},
    )
    assert world.do("sl-1", "round.checkin", **again).ok
