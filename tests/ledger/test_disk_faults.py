"""Whatever happens to a data directory is said clearly, and nothing in it is lost by the telling.

The store is tested byte by byte on a ledger of a few blocks with the real state machine's double;
what a user sees is in `tests/e2e/test_ledger_disks.py`.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.errors import LocalError
from swarm.identity import Role
from swarm.ledger import directory, wal
from swarm.ledger.block import NIL, PREVOTE
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.statement import Statement
from swarm.ledger.store import FILE, Store
from tests import pki
from tests.ledger import kv
from tests.ledger.net import genesis_for
from tests.ledger.test_store import CHAIN, UIDS, commit, proposed, restore, vote

BLOCKS = 12
FLIPS = 150  # bytes damaged in the file, and in its log: one in each copy
OWNER = "a"


def opened(path: Path, owner: str = OWNER) -> tuple[Store, kv.KV]:
    return Store.open(path, CHAIN, restore, kv.verify, owner=owner)


def crashed(path: Path, blocks: int = BLOCKS) -> None:
    """A ledger as a crash leaves it: with a write-ahead log, own votes and a lock."""
    made = path.with_name("made.db")
    Store.create(made, kv.KV(uids=UIDS), CHAIN, may_vote=True)
    store, app = opened(made)
    for number in range(blocks):
        app = commit(store, app, store.resume().last_id, number)
        if number == blocks // 2:  # one half in the file, the other in the log
            store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    height = app.height + 1
    block = proposed(app, store.resume().last_id)
    prevote = vote(PREVOTE, 0, block.id, height)
    store.write(
        [
            fx.WriteVote(height, 0, 1, msg.encode(prevote)),
            fx.WriteLock(height, 0, block.id, 0, block.encoded, (msg.encode(prevote),)),
            fx.WriteEvidence(
                *(Statement.of(vote(PREVOTE, 0, value, 3)) for value in (NIL, block.id))
            ),
        ]
    )
    store.write([fx.WriteVote(height, 0, 2, msg.encode(vote(2, 0, NIL, height)))])
    for source in (made, wal.path_of(made)):
        shutil.copy(source, str(source).replace("made.db", path.name))
    store.close()
    made.unlink()


def contents(path: Path) -> list[object]:
    """All that a node reads from its ledger. Raises LocalError."""
    store, app = opened(path)
    try:
        store.audit(1, app.height)
        blocks = [store.block(height) for height in range(1, app.height + 2)]
        transactions = [tx for block in blocks if block for tx in block[0].transactions]
        found = [store.find(app.identify(tx).id) for tx in transactions]
        return [app, store.resume(), blocks, found, store.batch(0, 100, 1 << 20), store.evidence()]
    finally:
        store.close()


def files(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}


def transactions(log: bytes) -> list[int]:
    """Where in a write-ahead log each transaction ends."""
    frame = 24 + int.from_bytes(log[8:12], "big")
    return [
        at + frame
        for at in range(32, len(log), frame)
        if log[at + 8 : at + 16] == log[16:24] and log[at + 4 : at + 8] != bytes(4)
    ]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A crashed node's ledger; copies of it are damaged."""
    path = tmp_path / "whole" / FILE
    path.parent.mkdir()
    crashed(path)
    return path


@pytest.fixture
def closed(whole: Path) -> Path:
    """The same without a log: everything is in the file."""
    opened(whole)[0].close()
    assert not wal.path_of(whole).exists()
    return whole


def copied(whole: Path, name: str = "", data: bytes = b"") -> Path:
    """A fresh copy, with one of its files replaced."""
    copy = whole.parent.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole.parent, copy)
    if name:
        (copy / name).write_bytes(data)
    return copy / FILE


def flips(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Copies with one damaged byte: some of the head, and a sample of the rest."""
    rng = random.Random(1)
    for place in [*range(0, 100, 3), *(rng.randrange(len(raw)) for _ in range(FLIPS))]:
        damaged = bytearray(raw)
        damaged[place] ^= rng.randrange(1, 256)
        yield place, bytes(damaged)


def test_no_damaged_byte_of_the_file_goes_unnoticed(closed: Path) -> None:
    """It is refused, or reads as if nothing had happened: much of a page is empty."""
    expected = contents(copied(closed))
    refused = 0
    for place, damaged in flips(closed.read_bytes()):
        try:
            assert contents(copied(closed, FILE, damaged)) == expected, f"byte {place}"
        except LocalError as error:
            # Byte 18 says whether the file may be written: it seems to be read-only.
            wanted = ("SW3012",) if place == 18 else ("SW3010", "SW3011", "SW3016")
            assert error.code in wanted, (place, error)
            refused += 1
    assert refused > FLIPS // 5


def test_no_damaged_byte_of_the_log_goes_unnoticed(whole: Path) -> None:
    """The same, but for the last transaction: damage there is what a crash while writing it looks
    like, and means the same."""
    name = FILE + "-wal"
    raw = (whole.parent / name).read_bytes()
    expected = contents(copied(whole))
    last = transactions(raw)[-2]
    before = contents(copied(whole, name, raw[:last]))
    assert before != expected
    refused = 0
    for place, damaged in flips(raw):
        try:
            found = contents(copied(whole, name, damaged))
        except LocalError as error:
            assert error.code == "SW3011", (place, error)
            refused += 1
            continue
        assert found == expected or (place >= last and found == before), f"byte {place}"
    assert refused > FLIPS // 5


def test_a_file_that_was_cut_is_refused(closed: Path) -> None:
    raw = closed.read_bytes()
    for end in range(0, len(raw), 4099):
        with pytest.raises(LocalError) as caught:
            contents(copied(closed, FILE, raw[:end]))
        assert caught.value.code == "SW3011", end


def test_a_log_that_was_cut_ends_with_a_whole_step(whole: Path) -> None:
    """Nobody can know how long it was; votes and blocks belong together all the same."""
    name = FILE + "-wal"
    raw = (whole.parent / name).read_bytes()
    ends = transactions(raw)
    for end in (ends[3], ends[3] + 999, ends[-1] - 1):
        held = max(at for at in ends if at <= end)
        found = contents(copied(whole, name, raw[:end]))
        assert found == contents(copied(whole, name, raw[:held])), f"cut at {end}"


def test_a_missing_log_is_refused(whole: Path) -> None:
    copy = copied(whole)
    wal.path_of(copy).unlink()
    before = files(copy.parent)
    for _ in range(2):
        with pytest.raises(LocalError, match=r"write-ahead log.* is missing") as caught:
            opened(copy)
        assert caught.value.code == "SW3011"
        assert files(copy.parent) == before


def test_another_nodes_ledger_is_refused_and_stays_as_it_is(whole: Path) -> None:
    copy = copied(whole)
    opened(copy)[0].close()
    before = files(copy.parent)
    with pytest.raises(LocalError, match="of the network node a") as caught:
        opened(copy, "b")
    assert caught.value.code == "SW3016"
    assert files(copy.parent) == before
    opened(copy)[0].close()


def test_votes_that_were_altered_removed_or_put_back_are_noticed(whole: Path) -> None:
    """A node that forgot a vote, or believes another one, would contradict itself."""
    kept = "CREATE TABLE old AS SELECT * FROM votes; DELETE FROM votes;"
    for statements in (
        "DELETE FROM votes WHERE kind = 2",
        "DELETE FROM votes",
        "UPDATE votes SET round = 1 WHERE kind = 2",
        "UPDATE votes SET message = (SELECT message FROM votes WHERE kind = 1)",
        "UPDATE votes SET kind = 0 WHERE kind = 1",
        "DELETE FROM lock",
        "UPDATE lock SET locked_round = -1",
        "UPDATE lock SET locked_round = 'x'",
        "UPDATE meta SET value = x'820900' WHERE key = 'voting'",
        "DELETE FROM meta WHERE key = 'voting'",
        "DELETE FROM meta WHERE key = 'memory'",
        kept,
    ):
        copy = copied(whole)
        opened(copy)[0].close()
        with sqlite3.connect(copy) as db:
            db.executescript(statements)
        db.close()
        with pytest.raises(LocalError) as caught:
            store, _ = opened(copy)
            try:
                store.resume()
            finally:
                store.close()
        assert caught.value.code == "SW3011", statements


def test_damage_that_appears_while_running_stops_with_a_local_error(whole: Path) -> None:
    store, app = opened(copied(whole))
    block = store.block(3)
    assert block is not None
    tx_id = app.identify(block[0].transactions[0]).id
    for table, column, where in (
        ("blocks", "certificate", "height = 3"),
        ("blocks", "outcome", "height = 4"),
        ("transactions", "height", "height = 3"),
    ):
        store._db.execute(f"UPDATE {table} SET {column} = x'00' WHERE {where}")
    for read in (
        lambda: store.block(3),
        lambda: store.block(4),
        lambda: store.find(tx_id),
        lambda: store.batch(2, 5, 1 << 20),
        lambda: store.audit(1, 5),
    ):
        with pytest.raises(LocalError) as caught:
            read()
        assert caught.value.code == "SW3011"
    store.close()


def test_a_full_disk_is_no_damage(whole: Path) -> None:
    """What cannot be written now is said to be that, and everything written before is there."""
    copy = copied(whole)
    store, app = opened(copy)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    height = app.height
    with pytest.raises(LocalError, match="full") as caught:
        for number in range(100):
            app = commit(store, app, store.resume().last_id, 50 + number)
    assert caught.value.code == "SW3012"
    store.close()
    assert contents(copy)[0].height == app.height >= height


# ------------------------------------------------------------------ directories


def test_a_ledger_without_its_genesis_is_not_thrown_away(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    genesis = genesis_for(pki.identity(tmp_path / "sn", Role.SN, ca))
    data = tmp_path / "data"
    directory.create(data, genesis, founder=True)
    (data / directory.GENESIS).unlink()
    directory.create(data, genesis, founder=True)  # nobody has used it: a start was cut short
    directory.open_store(data, genesis, "me")[0].close()
    (data / directory.GENESIS).unlink()
    before = files(data)
    with pytest.raises(LocalError, match=r"no genesis\.cbor beside it") as caught:
        directory.create(data, genesis, founder=True)
    assert caught.value.code == "SW3010"
    assert files(data) == before
    (data / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(LocalError):
        directory.create(data, genesis, founder=True)
    assert (data / FILE).read_bytes() == b"no database at all" * 100


def test_a_damaged_log_is_refused_and_stays_as_it_is(whole: Path) -> None:
    """SQLite would put its good half into the file and drop the rest for good."""
    name = FILE + "-wal"
    raw = bytearray((whole.parent / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    copy = copied(whole, name, bytes(raw))
    before = files(copy.parent)
    with pytest.raises(LocalError, match="write-ahead log is damaged in frame") as caught:
        opened(copy)
    assert caught.value.code == "SW3011"
    assert files(copy.parent) == before
