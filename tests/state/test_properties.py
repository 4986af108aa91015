"""What must hold for any transactions whatever: determinism, no exceptions, all or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.errors import RemoteError
from swarm.identity import Peer
from swarm.ledger import codec
from swarm.ledger.state import DEFAULT_CONTRACT, DEFAULT_RUNNER, DISPATCH, TABLES, Header, State
from swarm.ledger.state.operation import Operation
from swarm.ledger.transaction import SignedTransaction, Transaction
from tests.state.model import check_step
from tests.state.world import NODE, RULES, World, genesis, sha

MEMBERS = ("sn-1", "sn-2", "sl-1", "sl-2", "sl-3", "swop-1", "swop-2", "swci-1")
WORLD = World()
for _name in MEMBERS[1:]:
    WORLD.add(_name, organisation="org-2" if _name in ("sl-3", "swop-2") else "org-1")
UIDS = [WORLD.uid(name) for name in MEMBERS]
STATEMENTS = [
    WORLD.statement(name, block, round_=round_).encode()
    for name in ("sn-1", "sn-2")
    for block in ("one", "other")
    for round_ in range(4)
]
# Needs three that contribute, of the three learners; one may check in without weight.
TRIMMED = {**RULES, "min_peers": 3, "merge_method": "trimmedmean", "merge_args": {"f": 1}}
OPERATION_IDS = st.sampled_from(["0" * 16, "f" * 16])

# Values that fit each argument, mostly. Few of each, so that random sequences get somewhere.
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "uid": st.sampled_from(UIDS),
    "uid_name": st.sampled_from([*MEMBERS, ""]),
    "name": st.sampled_from([*MEMBERS, "task", "other"]),
    "type": st.sampled_from(["SN", "SL", "SWOP", "SENTINEL", "RUN_SWARM", "PULL_IMAGE"]),
    "contract": st.sampled_from([DEFAULT_CONTRACT, "other"]),
    "runner": st.sampled_from([DEFAULT_RUNNER, DEFAULT_RUNNER, DEFAULT_RUNNER, "other"]),
    "task": st.sampled_from(["task", "other", "ROOTTASK"]),
    "prereq": st.sampled_from(["ROOTTASK", "task"]),
    "author": st.just("me"),
    "outcome": st.just("image"),
    "index": st.integers(0, 2),
    "lines": st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3),
    "peers": st.integers(0, 2),
    "target": st.sampled_from(["*", WORLD.uid("swop-1")]),
    "among": st.lists(st.sampled_from(UIDS), max_size=2),
    "operation": OPERATION_IDS,
    "pairs": st.integers(0, 2),
    "peer": st.sampled_from(["", "a-0", "a-1"]),
    "state": st.sampled_from(["RUNNING", "COMPLETE", "ERROR"]),
    "text": st.text(max_size=5),
    "why": st.just("slow"),
    "reason": st.just("gone"),
    "validators": st.lists(st.sampled_from(UIDS[:2]), min_size=1, max_size=2, unique=True),
    "first": st.sampled_from(STATEMENTS),
    "second": st.sampled_from(STATEMENTS),
    "rules": st.sampled_from([RULES, RULES, RULES, TRIMMED]).map(dict),
    "mode": st.sampled_from(["snapshot", "inactive"]),
    "host": st.just("10.0.0.1"),
    "port": st.just(30305),
    "round": st.integers(0, 2),
    "attempt": st.integers(0, 2),
    "weight": st.sampled_from([0, 10_000]),
    "samples": st.just(1),
    "root": st.just(sha("root")),
    "schema": st.sampled_from([sha("schema"), sha("schema"), sha("other")]),
    "tensors": st.just(["w float32 2"]),
    "size": st.just(64),
    "base": st.sampled_from([None, sha("d")]),
    "done": st.booleans(),
    "digest": st.sampled_from([sha("d"), sha("d"), sha("e")]),
    "shards": st.just([]),
    "accused": st.lists(st.sampled_from(UIDS[2:5]), min_size=1, max_size=2, unique=True),
    "loss": st.just("0.5"),
    "metric": st.just(""),
    "epochs": st.just(1),
    "total_epochs": st.just(2),
    "der": st.just(b"\x30\x50" + bytes(80)),
    "p2p": st.just([]),
    "peer_id": st.sampled_from(["", "Peer2"]),
    "parent": st.sampled_from(["", UIDS[0]]),
    "validator": st.booleans(),
    "version": st.just("1"),
}
HOSTILE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40)
    | st.sampled_from([UIDS[2], DEFAULT_CONTRACT, object(), {1}, (1, 2), -1, 1 << 70, "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
Step = tuple[str, str, dict[str, Any]]


def arguments(draw: st.DrawFn, operation: Operation) -> dict[str, Any]:
    args = {key: draw(LIKELY[key]) for key in operation.fields}
    if "among" in args and (args["peers"] or args["target"] != "*" or draw(st.booleans())):
        del args["among"]  # it goes with ALL PEERS, and may be left out
    return args


@st.composite
def likely_step(draw: st.DrawFn) -> Step:
    operation = DISPATCH[draw(st.sampled_from(sorted(DISPATCH)))]
    args = arguments(draw, operation)
    senders = [name for name in MEMBERS if name.partition("-")[0].upper() in operation.roles]
    sender = draw(st.sampled_from(senders))
    # Mostly the sender speaks for itself, as honest members do.
    if draw(st.integers(0, 9)):
        if "uid" in args and operation.name != "round.lost":
            args["uid"] = WORLD.uid(sender)
        if operation.name in ("node.enroll", "contract.enroll"):
            key = "uid_name" if operation.name == "node.enroll" else "name"
            args[key] = "" if sender.startswith("sn") else sender
            if "type" in args:
                args["type"] = sender.partition("-")[0].upper()
    return sender, operation.name, args


USING = [
    *("task.create", "task.finalize", "runner.create", "runner.assign", "runner.reset"),
    *("contract.create", "contract.reset", "contract.enroll", "contract.leave", "node.enroll"),
    *("node.leave", *3 * ("task.delete", "runner.delete", "contract.delete")),
]


@st.composite
def using_step(draw: st.DrawFn) -> Step:
    """What makes, uses and deletes two objects of each kind; by honest senders."""
    operation = DISPATCH[draw(st.sampled_from(USING))]
    args = arguments(draw, operation)
    if operation.name.endswith(".create"):
        args["name"] = draw(st.sampled_from(["task", "other"]))
    args |= {key: "other" for key in ("runner", "contract") if args.get(key)}
    roles = [name for name in MEMBERS if name.partition("-")[0].upper() in operation.roles]
    sender = draw(st.sampled_from(roles))
    if "uid" in args:
        args["uid"] = WORLD.uid(sender)
    if operation.name == "contract.enroll":
        args["name"] = sender
    if operation.name == "node.enroll":
        own = {"uid_name": "" if sender.startswith("sn") else sender, "validator": False}
        args |= {**own, "type": sender.partition("-")[0].upper()}
    return sender, operation.name, args


@st.composite
def hostile_step(draw: st.DrawFn) -> Step:
    _, op, args = draw(likely_step())
    kind = draw(st.integers(0, 3))
    if kind == 0:
        args = draw(HOSTILE)
    elif kind == 1 and args:
        args = {**args, draw(st.sampled_from(sorted(args))): draw(HOSTILE)}
    elif kind == 2:
        args = {**args, draw(st.text(max_size=5)): draw(HOSTILE)}
    else:
        op = draw(st.text(max_size=60))
    return draw(st.sampled_from(MEMBERS)), op, args


def prepared() -> State:
    """A swarm where all have enrolled, so that random steps are not all refused at the door."""
    world = World()
    for name in MEMBERS[1:-1]:
        organisation = "org-2" if name in ("sl-3", "swop-2") else "org-1"
        world.add(name, organisation=organisation)
        changes = {"pairs": 1} if name.startswith("swop") else {}
        assert world.join(name, **changes).ok
        if name.startswith("sl"):
            assert world.train(name).ok
    world.task("task")
    return world.state


PREPARED = prepared()


def in_use() -> State:
    """Objects of one's own that are used, each in one way."""
    world = World()
    world.members |= WORLD.members
    world.must("swci-1", "contract.create", name="other")
    world.must("swci-1", "runner.create", name="other")
    world.task("task", "PULL_IMAGE")
    world.task("other", prereq="task")
    assert world.join("swop-1", runner="other", pairs=1).ok
    world.must("swci-1", "runner.assign", runner="other", task="other", peers=1, target="*")
    assert world.join("sl-1", contract="other").ok and world.train("sl-1", contract="other").ok
    return world.state


IN_USE = in_use()


def transaction(state: State, number: int, op: str, args: Any) -> Transaction:
    return Transaction(state.chain, number.to_bytes(16, "big"), state.height + 500, op, args)


def follow(state: State, steps: list[Step], size: int = 1) -> list[State]:
    """Apply steps in blocks of `size`, and return all states."""
    states = [state]
    for start in range(0, len(steps), size):
        header = Header(states[-1].height + 1, 1000 * states[-1].height, UIDS[0])
        block: list[tuple[Transaction, Peer]] = [
            (transaction(state, 10_000 + start + place, op, args), WORLD.members[sender])
            for place, (sender, op, args) in enumerate(steps[start : start + size])
        ]
        after, verdicts, _ = states[-1].apply(header, block)
        for verdict in verdicts:
            assert verdict.code != "SW1001", verdict
            codec.encode([verdict.ok, verdict.code, verdict.text, verdict.result])
        states.append(after)
    return states


def reordered(value: Any) -> Any:
    """An equal value whose maps were filled the other way round."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    if isinstance(value, list):
        return [reordered(item) for item in value]
    return value


MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@MANY
@given(st.lists(likely_step(), min_size=5, max_size=30), st.integers(1, 5))
def test_replicas_agree(steps: list[Step], size: int) -> None:
    """Two replicas, one of which was restarted from its store half-way, have equal digests."""
    one = follow(PREPARED, steps, size)
    other = follow(PREPARED, [(who, op, reordered(args)) for who, op, args in steps], size)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.digest() == theirs.digest()
        assert mine.validators() == theirs.validators()
    middle = one[len(one) // 2]
    rows = [(table, key, record) for table, key, record in middle.rows(None) if record is not None]
    stored = State.from_rows(middle.chain, middle.height, reversed(rows))
    assert stored.digest() == middle.digest()
    done = (len(one) // 2) * size
    assert follow(stored, steps[done:], size)[-1].validators() == one[-1].validators()


@MANY
@given(st.lists(likely_step() | hostile_step(), min_size=1, max_size=20))
def test_apply_never_raises(steps: list[Step]) -> None:
    follow(PREPARED, steps)


@MANY
@given(st.lists(likely_step() | hostile_step(), min_size=1, max_size=20))
def test_a_refused_transaction_changes_nothing(steps: list[Step]) -> None:
    states = follow(PREPARED, steps)
    for number, (before, after) in enumerate(pairwise(states)):
        sender, op, args = steps[number]
        header = Header(before.height + 1, 1000 * before.height, UIDS[0])
        tx = transaction(PREPARED, 10_000 + number, op, args)
        again, verdicts, changed = before.apply(header, [(tx, WORLD.members[sender])])
        assert again.digest() == after.digest(), "applying a block twice gives two states"
        named = {f"{table}/{key}" for table, key, _ in after.rows(before) if table in TABLES}
        assert named == changed
        if not verdicts[0].ok:
            assert not changed
            assert {table for table, _, _ in after.rows(before)} <= {"txids"}


@MANY
@given(st.lists(likely_step(), min_size=5, max_size=40))
def test_contracts_keep_their_invariants(steps: list[Step]) -> None:
    """As in the model of rounds, except that members here lie about results."""
    states = follow(PREPARED, steps)
    for before, after in pairwise(states):
        old, new = (state.get("contracts", DEFAULT_CONTRACT) for state in (before, after))
        assert old is not None and new is not None
        reset = new["status"] == "UNINITIALIZED" or new["round"] != old["round"]
        if not reset:
            check_step(old, new)


@MANY
@given(st.lists(using_step(), min_size=1, max_size=12))
def test_what_is_in_use_is_there(steps: list[Step]) -> None:
    """However much is deleted: what works has what it works on, and the defaults stay."""
    for before, after in pairwise(follow(IN_USE, steps)):
        for table, key in (
            ("tasks", "ROOTTASK"),
            ("contracts", DEFAULT_CONTRACT),
            ("taskrunners", DEFAULT_RUNNER),
        ):
            assert after.get(table, key) is not None
        for runner in after.table("taskrunners").values():
            task = after.get("tasks", runner["task"]) if runner["task"] else None
            if runner["state"] != "IDLE":
                assert task is not None and task["finalized"], "a task was deleted under its runner"
                assert after.get("tasks", task["prereq"]) is not None
        for table in ("tasks", "taskrunners", "contracts"):
            for key in set(before.keys(table)) - set(after.keys(table)):
                check_was_free(before, table, key)
        assert set(after.keys("schemas")) <= set(after.keys("contracts"))


def check_was_free(state: State, table: str, key: str) -> None:
    """Nothing used it when it was deleted."""
    gone = state.get(table, key)
    assert gone is not None
    if table == "tasks" and gone["finalized"]:
        assert all(task["prereq"] != key for task in state.table("tasks").values())
    if table == "taskrunners":
        assert gone["state"] == "IDLE"
        assert not any(n["active"] and n["runner"] == key for n in state.table("nodes").values())
    if table == "contracts":
        assert all(member["state"] != "active" for member in gone["members"].values())


@given(st.binary(max_size=100))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    with pytest.raises(RemoteError):
        SignedTransaction.decode(data)


def test_the_digest_does_not_depend_on_the_process() -> None:
    """Hash randomisation changes the order of sets between processes."""
    program = (
        "from tests.state.world import World\n"
        "world = World()\n"
        "world.learners('sl-1', 'sl-2', 'sl-3')\n"
        "for name in ('sl-1', 'sl-2', 'sl-3'): world.checkin(name)\n"
        "world.suspect('sl-1', 'sl-2', 'sl-3'); world.suspect('sl-3', 'sl-2')\n"
        "world.join('sn-2', validator=True); world.join('sn-3', validator=True)\n"
        "print(world.state.digest().hex())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_the_genesis_digest_is_pinned() -> None:
    """Changing a record, a name or the hashing changes the ledger's format: on purpose only."""
    assert State.genesis(genesis()).digest().hex() == GENESIS_DIGEST
    assert PREPARED.get("nodes", WORLD.uid("sl-1"))["host"] == NODE["host"]  # type: ignore[index]


GENESIS_DIGEST = "e144d70f03fc6b4d7acb76ba993fad1b99a6e17f8c60d557a47674fc36735302"
