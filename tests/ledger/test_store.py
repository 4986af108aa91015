"""The ledger on disk: damage is found, steps are whole, and what was signed is kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest

from swarm.errors import LocalError
from swarm.ledger.application import Row, execute
from swarm.ledger.block import NIL, PRECOMMIT, PREVOTE, Block, Certificate, vote_bytes
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Lock
from swarm.ledger.state.verdict import Header
from swarm.ledger.store import Store
from tests.ledger import kv

CHAIN = b"c" * 32
UIDS = ("a", "b", "c", "d")


def restore(height: int, rows: Iterable[Row]) -> kv.KV:
    return kv.KV.restore(height, rows)


def opened(path: Path, chain: bytes = CHAIN) -> tuple[Store, kv.KV]:
    return Store.open(path, chain, restore, kv.verify)


def made(path: Path, blocks: int = 0) -> None:
    """A store with so many blocks."""
    genesis = kv.KV(uids=UIDS)
    Store.create(path, genesis, CHAIN, may_vote=True)
    store, app = opened(path)
    for number in range(blocks):
        last = store.resume()
        app = commit(store, app, last.last_id, number)
    store.close()


def commit(store: Store, app: kv.KV, previous: bytes, number: int) -> kv.KV:
    """Append a certified block with one transaction."""
    height = app.height + 1
    tx = kv.transaction("client", number, "put", f"k{number % 3}", str(number))
    after, outcome, effect = execute(app, Header(height, number, "a"), (tx,))
    assert isinstance(after, kv.KV)
    block = Block.make(
        chain=CHAIN,
        height=height,
        previous=previous,
        time_ms=number,
        proposer="a",
        transactions=[tx],
        effect=effect,
    )
    data = vote_bytes(CHAIN, PRECOMMIT, height, 0, block.id)
    signatures = tuple((uid, kv.sign(kv.key_of(uid), data)) for uid in UIDS[:3])
    certificate = Certificate(height, 0, block.id, signatures)
    ids = (app.check(tx).id,)
    store.write([fx.Commit(block, certificate, ids, app, after, outcome)])
    return after


def alter(path: Path, statement: str, *parameters: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement, parameters)
    db.close()


def flip(path: Path, table: str, column: str, height: int, place: int) -> None:
    """Change one bit of a stored value."""
    with sqlite3.connect(path) as db:
        query = f"SELECT {column} FROM {table} WHERE height = ?"
        (value,) = db.execute(query, (height,)).fetchone()
        changed = bytearray(value)
        changed[place % len(changed)] ^= 1
        db.execute(f"UPDATE {table} SET {column} = ? WHERE height = ?", (bytes(changed), height))
    db.close()


def test_blocks_and_state_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made(path, 30)
    store, app = opened(path)
    assert app.height == 30
    found = store.block(17)
    assert found is not None
    block, certificate, outcome = found
    assert block.height == certificate.height == 17
    assert outcome.verdicts[0].result == {"height": 17}
    assert store.find(app.identify(block.transactions[0]).id) == (17, 0)
    assert store.block(31) is None
    assert [Block.decode(b).height for b, _ in store.batch(10, 5, 1 << 20)] == [11, 12, 13, 14, 15]
    assert len(store.batch(10, 5, 1)) == 1
    store.close()


@pytest.mark.parametrize("column", ["block", "certificate", "state"])
@pytest.mark.parametrize("place", [3, 40, 90, 200, -1])
def test_point_12_one_flipped_bit_is_found_on_open(tmp_path: Path, column: str, place: int) -> None:
    path = tmp_path / "ledger.db"
    made(path, 8)
    flip(path, "blocks", column, 5, place)
    with pytest.raises(LocalError) as caught:
        opened(path)
    assert caught.value.code == "SW3011"


def test_point_12_a_missing_block_or_altered_record_is_found(tmp_path: Path) -> None:
    for number, statement in enumerate(
        [
            "DELETE FROM blocks WHERE height = 4",
            "DELETE FROM blocks WHERE height = 8",
            "DELETE FROM blocks WHERE height = 1",
            "UPDATE blocks SET height = 9 WHERE height = 8",
            "DELETE FROM records WHERE key = 'k1'",
            "UPDATE records SET value = x'6139' WHERE key = 'k1'",
            "INSERT INTO records VALUES ('entries', 'more', x'6139')",
            "UPDATE validators SET keys = x'a0'",
            "DROP TABLE votes",
        ]
    ):
        path = tmp_path / f"{number}.db"
        made(path, 8)
        alter(path, statement)
        with pytest.raises(LocalError) as caught:
            store, _ = opened(path)
            store.resume()
        assert caught.value.code == "SW3011", statement


def test_point_12_a_file_that_is_cut_short_or_overwritten_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made(path, 40)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no database at all" * 300, whole[:100]):
        path.write_bytes(damaged)
        with pytest.raises(LocalError) as caught:
            opened(path)
        assert caught.value.code in ("SW3011", "SW3015")


def test_old_blocks_are_audited_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.ledger.store.RECENT", 5)
    monkeypatch.setattr("swarm.ledger.store.CERTIFIED", 3)
    path = tmp_path / "ledger.db"
    made(path, 20)
    flip(path, "blocks", "block", 4, 60)
    store, _ = opened(path)
    store.audit(10, 15)
    with pytest.raises(LocalError):
        store.audit(1, 10)
    store.close()


def test_another_swarms_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made(path, 1)
    with pytest.raises(LocalError) as caught:
        opened(path, b"d" * 32)
    assert caught.value.code == "SW3010"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made(path, 1)
    store, _ = opened(path)
    with pytest.raises(LocalError) as caught:
        opened(path)
    assert caught.value.code == "SW3015"
    store.close()
    opened(path)[0].close()


def proposed(app: kv.KV, previous: bytes = CHAIN) -> Block:
    """Some next block."""
    height = app.height + 1
    txs = (kv.transaction("client", 1000 + height, "put", "k", "v"),)
    return Block.make(
        chain=CHAIN,
        height=height,
        previous=previous,
        time_ms=0,
        proposer="a",
        transactions=txs,
        effect=execute(app, Header(height, 0, "a"), txs).effect,
    )


def vote(kind: int, round_: int, block_id: bytes, height: int = 1) -> msg.Vote:
    return msg.Vote(kind, height, round_, block_id, "a", b"s")


def test_point_2_votes_and_locks_survive_and_end_with_their_height(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made(path)
    store, app = opened(path)
    first = vote(PREVOTE, 0, b"x" * 32)
    second = vote(PRECOMMIT, 0, NIL)
    block = proposed(app)
    lock = fx.WriteLock(1, 0, block.id, 0, block.encoded, (msg.encode(first),))
    store.write([fx.WriteVote(1, 0, 1, msg.encode(first)), lock])
    store.write([fx.WriteVote(1, 0, 2, msg.encode(second))])
    store.close()
    store, app = opened(path)
    assert store.resume().signed == (first, second)
    assert store.resume().lock == Lock(0, block.id, 0, block, (first,))
    commit(store, app, CHAIN, 0)
    assert store.resume().signed == ()
    assert store.resume().lock == Lock()
    store.close()


def test_point_2_a_second_value_for_one_step_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made(path)
    store, _ = opened(path)
    store.write([fx.WriteVote(1, 0, 1, msg.encode(vote(PREVOTE, 0, b"x" * 32)))])
    with pytest.raises(LocalError):
        store.write([fx.WriteVote(1, 0, 1, msg.encode(vote(PREVOTE, 0, NIL)))])
    assert len(store.resume().signed) == 1
    store.close()


def test_point_16_a_step_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made(path, 2)
    store, app = opened(path)
    good = fx.WriteVote(3, 0, 1, msg.encode(vote(PREVOTE, 0, NIL, 3)))
    with pytest.raises(LocalError):
        store.write([good, fx.WriteVoting(7, 0), good])  # the third one breaks the step
    store.close()
    store, app = opened(path)
    assert (app.height, store.resume().signed, store.resume().vote_from) == (2, (), (0, 0))
    store.close()


def test_a_new_store_may_not_vote_and_a_founders_may(tmp_path: Path) -> None:
    Store.create(tmp_path / "new.db", kv.KV(uids=UIDS), CHAIN, may_vote=False)
    store, _ = opened(tmp_path / "new.db")
    assert store.resume().vote_from is None
    store.write([fx.WriteVoting(12, 3)])
    store.close()
    store, _ = opened(tmp_path / "new.db")
    assert store.resume().vote_from == (12, 3)
    store.close()


def test_a_full_disk_is_a_local_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made(path, 1)
    store, app = opened(path)
    store._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(LocalError) as caught:
        for number in range(100):
            app = commit(store, app, store.resume().last_id, 50 + number)
    assert caught.value.code == "SW3012"
    store.close()
    assert opened(path)[1].height >= 1


def test_full_synchronous_writes_are_really_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made(path)
    store, _ = opened(path)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()
