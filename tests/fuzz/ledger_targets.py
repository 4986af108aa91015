"""Parsers of the ledger: transactions, blocks, consensus messages, stored rows, arguments."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from swarm.errors import LocalError, RemoteError
from swarm.identity import Role
from swarm.ledger import codec
from swarm.ledger.application import LedgerApplication, Row
from swarm.ledger.block import NIL, PRECOMMIT, PREVOTE, Block, BlockHeader, Certificate
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Core, Now
from swarm.ledger.consensus.statement import Statement
from swarm.ledger.genesis import Genesis
from swarm.ledger.recovery import Draft, Name
from swarm.ledger.state import DISPATCH, State
from swarm.ledger.store import Store
from swarm.ledger.transaction import SignedTransaction, Transaction
from tests import pki
from tests.fuzz.source import Source, join, split
from tests.fuzz.target import Target
from tests.ledger import kv, test_store
from tests.ledger.cores import (
    CHAIN,
    UIDS,
    Wire,
    block_of,
    put,
    signed_proposal,
    signed_vote,
)
from tests.ledger.net import genesis_for
from tests.state import world

ROUND_TRIP = "what is accepted is canonical"


@lru_cache(maxsize=1)
def identities() -> tuple[Any, ...]:
    """A network node and a learner of one organisation."""
    with tempfile.TemporaryDirectory() as name:
        ca = pki.authority(Path(name))
        return pki.identity(Path(name), Role.SN, ca), pki.identity(Path(name), Role.SL, ca)


@lru_cache(maxsize=1)
def genesis() -> Genesis:
    return genesis_for(identities()[0])


def signed(op: str = "task.create", **args: Any) -> bytes:
    sn = identities()[0]
    return SignedTransaction.sign(sn, Transaction.new(genesis().chain_id, 50, op, args)).encode()


# ---------------------------------------------------------------- codec, transactions


def run_codec(data: bytes) -> None:
    value = codec.decode(data, limit=1 << 16, what="value")
    assert codec.encode(value) == data, ROUND_TRIP


def run_transaction(data: bytes) -> None:
    found = SignedTransaction.decode(data)
    assert found.encode() == data, ROUND_TRIP
    LedgerApplication.genesis(genesis()).check(data)


def run_body(data: bytes) -> None:
    assert Transaction.from_body(data).body() == data, ROUND_TRIP


def bodies() -> list[bytes]:
    return [SignedTransaction.decode(tx).body for tx in transactions()]


def transactions() -> list[bytes]:
    return [signed(name="t"), signed("node.leave", uid="0" * 32), signed("ca.admit", der=b"0" * 70)]


# ---------------------------------------------------------------- blocks, messages


def run_header(data: bytes) -> None:
    assert BlockHeader.decode(data).encode() == data, ROUND_TRIP


def run_block(data: bytes) -> None:
    assert Block.decode(data).encoded == data, ROUND_TRIP


def run_certificate(data: bytes) -> None:
    certificate = Certificate.decode(data)
    assert certificate.encode() == data, ROUND_TRIP
    keys = {uid: kv.key_of(uid) for uid in UIDS}
    certificate.check(block(), keys, 3, kv.verify)


def run_message(data: bytes) -> None:
    assert msg.encode(msg.decode(data)) == data, ROUND_TRIP


def run_statement(data: bytes) -> None:
    assert Statement.decode(data).encode() == data, ROUND_TRIP


@lru_cache(maxsize=1)
def block() -> Block:
    return block_of(Wire().cores["a"], [put(1), put(2)], "a")


def certificate() -> Certificate:
    votes = [signed_vote(uid, PRECOMMIT, 0, block().id) for uid in UIDS[:3]]
    return Certificate(1, 0, block().id, tuple((v.voter, v.signature) for v in votes))


def messages() -> list[msg.Message]:
    pair = (block().encoded, certificate().encode())
    return [
        signed_vote("a", PREVOTE, 0, block().id),
        signed_vote("b", PRECOMMIT, 3, NIL),
        signed_proposal("a", 0, block()),
        signed_proposal("b", 2, block(), 1),
        msg.Transactions((put(1), put(2))),
        msg.Ask(1, 0, True),
        msg.Answer(4, 5, -1),
        msg.Fetch(0),
        msg.Blocks((pair,)),
    ]


def statements() -> list[bytes]:
    return [
        Statement.of(m).encode() for m in messages()[:4] if isinstance(m, msg.Vote | msg.Proposal)
    ]


# ---------------------------------------------------------------- the core


def run_core(data: bytes) -> None:
    """Any sequence of events, with good signatures of anybody: nothing raises, nobody forks."""
    source = Source(data)
    wire = Wire()
    core = wire.cores["a"]
    blocks = [block_of(core, [put(n)], proposer) for n, proposer in enumerate("abcd")]
    ids = [NIL, *(b.id for b in blocks), b"x" * 32]
    decided: dict[int, bytes] = {}
    for step in range(60):
        if not source:
            break
        for effect in event(core, source, blocks, ids, Now(step / 10, step * 100)):
            if isinstance(effect, fx.Commit):
                assert decided.setdefault(effect.block.height, effect.block.id) == effect.block.id


def event(
    core: Core, source: Source, blocks: Sequence[Block], ids: Sequence[bytes], now: Now
) -> list[fx.Effect]:
    kind, uid = source.byte() % 10, source.choose(UIDS)
    round_ = source.byte() % 4
    if kind < 4:
        height = core.height + source.choose((1, 1, 1, 2, 9))
        vote = signed_vote(uid, PREVOTE + kind % 2, round_, source.choose(ids), height)
        return core.receive(uid, vote, now)
    if kind == 4:
        valid = source.byte() % (round_ + 1) - 1
        message = signed_proposal(uid, round_, source.choose(blocks), valid)
        return core.receive(uid, message, now)
    if kind == 5:
        timer = source.choose(("propose", "prevote", "precommit", "tick", "again"))
        return core.timeout(fx.Timer(timer, source.byte() % 4, round_), now)
    if kind == 6:
        return core.receive(uid, msg.Transactions((put(source.byte()), source.take(9))), now)
    if kind == 7:
        number, other = source.byte() % 9 - 1, source.byte() % 9 - 1
        found: msg.Message = source.choose(
            (msg.Ask(number, other, True), msg.Answer(number, other, round_), msg.Fetch(number))
        )
        return core.receive(uid, found, now)
    if kind == 8:
        return core.peer_up(uid, now)
    try:
        return core.receive(uid, msg.decode(source.take(source.byte())), now)
    except RemoteError:
        return []


# ---------------------------------------------------------------- the state machine


@lru_cache(maxsize=1)
def swarm() -> world.World:
    """A swarm in which most operations have something to work on."""
    made = world.World()
    for name in ("sn-2", "swop-1", "swci-1"):
        made.join(name)
    made.learners("sl-1", "sl-2")
    made.checkin("sl-1")
    made.checkin("sl-2")
    made.task("task-1")
    made.assign("task-1", 1)
    return made


@lru_cache(maxsize=1)
def pool() -> tuple[Any, ...]:
    """What arguments are about there."""
    made = swarm()
    conflict = [made.statement("sn-2", text).encode() for text in ("one", "two")]
    state = [made.contract["round"], made.runner["operation"], world.DEFAULT_CONTRACT]
    names = [world.DEFAULT_RUNNER, "task-1", "sl-1", *(made.uid(name) for name in made.members)]
    rest = [world.RULES, world.sha("x"), "0.5", "mean", 1, 2, 10_000, "", [], True, None, 30305]
    return (*state, *names, *conflict, *rest)


def run_state(data: bytes) -> None:
    """Arguments of every operation: `apply` refuses, and never raises."""
    source = Source(data)
    made, items = swarm(), pool()
    state, senders = made.state, [made.members[name] for name in sorted(made.members)]
    operations = [DISPATCH[name] for name in sorted(DISPATCH)]
    number = 0
    for _ in range(6):
        if not source:
            break
        pairs = []
        for _ in range(1 + source.byte() % 3):
            operation, sender = source.choose(operations), source.choose(senders)
            args = {
                name: source.value(items) for name in operation.fields if source.byte() % 16 != 1
            }
            if source.byte() % 32 == 1:
                args[source.text()] = source.value(items)
            number += 1
            tx_id = (1 << 64) + number
            found = Transaction(
                state.chain, tx_id.to_bytes(16, "big"), state.height + 99, operation.name, args
            )
            pairs.append((Transaction.from_body(found.body()), sender))
        header = made.header()._replace(height=state.height + 1)
        state, verdicts, _ = state.apply(header, pairs)
        assert len(verdicts) == len(pairs)
        assert not [v for v in verdicts if v.code == "SW1001"], "refused, not failed inside"
    rows = [(t, k, r) for t, k, r in state.rows(None) if r is not None]
    assert State.from_rows(state.chain, state.height, rows).digest() == state.digest()


def states() -> list[bytes]:
    return [bytes([0, n, who, *range(n, n + 40)]) for n in range(len(DISPATCH)) for who in (0, 3)]


# ---------------------------------------------------------------- disk, files, first contact


def run_rows(data: bytes) -> None:
    parts = split(data)
    rows = [
        Row(table.decode("latin-1"), key.decode("latin-1"), value)
        for table, key, value in zip(parts[::3], parts[1::3], parts[2::3], strict=False)
    ]
    LedgerApplication.restore(genesis().chain_id, 5, rows).digest()


def rows() -> list[bytes]:
    app = LedgerApplication(swarm().state)
    each = [join([r.table.encode(), r.key.encode(), r.value or b""]) for r in app.rows(None)]
    return [b"".join(each)[:MAX_ROWS], *each]


MAX_ROWS = 6000
_COLUMNS = (
    ("blocks", "block"), ("blocks", "certificate"), ("blocks", "outcome"), ("blocks", "state"),
    ("validators", "keys"), ("votes", "message"), ("lock", "proof"), ("lock", "valid_block"),
    ("meta", "value"), ("records", "value"), ("records", "key"), ("transactions", "height"),
)  # fmt: skip


@lru_cache(maxsize=1)
def image() -> bytes:
    """A ledger file with three blocks, votes and a lock."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "ledger.db"
        test_store.made(path, 3)
        store, _ = test_store.opened(path)
        vote = signed_vote("a", PREVOTE, 0, block().id, 4)
        proof = (msg.encode(vote),)
        store.write(
            [
                fx.WriteVote(4, 0, PREVOTE, msg.encode(vote)),
                fx.WriteLock(4, 0, block().id, 0, block().encoded, proof),
            ]
        )
        store.close()
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("PRAGMA journal_mode=DELETE")
        db.close()
        return path.read_bytes()


def run_store(data: bytes) -> None:
    """A damaged value in any column: found on opening or reading, never something else."""
    source = Source(data)
    table, column = source.choose(_COLUMNS)
    row, value = source.byte(), source.take(4096)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        path = Path(name) / "ledger.db"
        path.write_bytes(image())
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("PRAGMA synchronous=OFF")
            (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
            key = "only" if table == "lock" else "key" if table in ("meta",) else "height"
            if table == "records":
                key = "tbl || key"
            chosen = db.execute(f"SELECT {key} FROM {table}").fetchall()[row % count][0]
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (value, chosen))
        store, _ = Store.open(path, CHAIN, test_store.restore, kv.verify)
        try:
            store.resume()
            for height in range(1, 5):
                store.block(height)
            store.batch(0, 9, 1 << 20)
        finally:
            store.close()


def stored() -> list[bytes]:
    numbers = range(len(_COLUMNS))
    values = (b"", b"\x80", codec.encode([[], []]), codec.encode([0, 0]), codec.encode({"a": b""}))
    return [bytes([column, 0]) + value for column in numbers for value in values]


def run_genesis(data: bytes) -> None:
    assert Genesis.decode(data).encode() == data, ROUND_TRIP


def run_recovery(data: bytes) -> None:
    Draft.decode(data)


def run_recovery_name(data: bytes) -> None:
    Name.parse(data.decode("latin-1"))


def recoveries() -> list[bytes]:
    tx = signed("ledger.recover", validators=["a"], reason="all others are lost")
    own = block_of(Wire().cores["a"], [put(1)], "a")
    head = own.header
    made = Block.make(
        chain=head.chain, height=1, previous=head.previous, time_ms=1, proposer="a",
        transactions=[tx], effect=head.effect,
    )  # fmt: skip
    return [Draft(made.header.chain, made, {"a": b"signature"}).encode().encode()]


REMOTE = (RemoteError,)
TARGETS = (
    Target("codec", "canonical CBOR", run_codec, REMOTE, lambda: [m.encoded for m in messages()]),
    Target("transaction", "signed transactions", run_transaction, REMOTE, transactions),
    Target("body", "transaction bodies", run_body, REMOTE, bodies),
    Target("header", "block headers", run_header, REMOTE, lambda: [block().header.encode()]),
    Target("block", "blocks", run_block, REMOTE, lambda: [block().encoded]),
    Target("certificate", "certificates of blocks", run_certificate, REMOTE,
           lambda: [certificate().encode()]),
    Target("message", "consensus messages", run_message, REMOTE,
           lambda: [m.encoded for m in messages()]),
    Target("statement", "accusations' statements", run_statement, REMOTE, statements),
    Target("core", "what the consensus core receives", run_core, (),
           lambda: [bytes(range(n, n + 90)) for n in range(0, 160, 10)]),
    Target("state", "arguments of all operations", run_state, (), states),
    Target("genesis", "the genesis", run_genesis, REMOTE, lambda: [genesis().encode()]),
    Target("rows", "stored records", run_rows, REMOTE, rows),
    Target("store", "values in the ledger's file", run_store, (LocalError,), stored),
    Target("recovery", "recovery files", run_recovery, REMOTE, recoveries),
    Target("recovery-name", "names of recoveries", run_recovery_name, REMOTE,
           lambda: [f"7-{'ab' * 32}".encode()]),
)  # fmt: skip
