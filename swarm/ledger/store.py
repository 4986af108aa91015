"""The ledger on disk: blocks, certificates, own votes and the state, in SQLite.

`write` makes the durable effects of a step so in one transaction with `synchronous=FULL`: after a
crash either all of a step is there or nothing. The state's records are kept beside the blocks, so
that opening does not replay the chain.

What is read back is not believed: `open` checks that the file belongs to this swarm and to this
node, that its pages and its write-ahead log (`wal.py`) are whole, that heights, hashes and chain of
the blocks fit together, that the last blocks are certified by the validators of their heights, and
that the records have the digest that the last block led to. What no hash of the chain covers has a
checksum of its own: a damaged vote would make this node contradict itself. Damage is a LocalError
SW3011; the node then starts with an empty directory and fetches the ledger from its peers, which is
safe, as an empty store does not vote until that is.

What cannot be seen here is that the whole directory is an old copy. The core asks the others about
that before it signs (`Resume.unconfirmed`).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from swarm.errors import LocalError, RemoteError
from swarm.ledger import codec, wal
from swarm.ledger.application import Application, Outcome, Row
from swarm.ledger.block import Block, Certificate, Verify, validators_hash
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.algorithm import Lock, Resume
from swarm.ledger.consensus.quorum import quorum
from swarm.ledger.consensus.statement import Statement
from swarm.ledger.recovery import check_certificate
from swarm.ledger.state.verdict import Validator, Verdict

FILE = "ledger.db"
VERSION = 3
RECENT = 1000  # blocks checked while opening; older ones are checked by `audit` afterwards
CERTIFIED = 20  # certificates checked while opening
MAX_OUTCOME = 64 << 20
MAX_EVIDENCE = 64  # double votes read while opening; no more says anything new

App = TypeVar("App", bound=Application)

log = logging.getLogger("swarm.ledger")

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE blocks (height INTEGER PRIMARY KEY, block BLOB NOT NULL, certificate BLOB NOT NULL,
    outcome BLOB NOT NULL, state BLOB NOT NULL, sum BLOB NOT NULL);
CREATE TABLE transactions (id BLOB PRIMARY KEY, height INTEGER NOT NULL, position INTEGER NOT NULL,
    sum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE validators (height INTEGER PRIMARY KEY, keys BLOB NOT NULL);
CREATE TABLE records (tbl TEXT, key TEXT, value BLOB NOT NULL, PRIMARY KEY (tbl, key));
CREATE TABLE votes (height INTEGER, round INTEGER, kind INTEGER, message BLOB NOT NULL,
    sum BLOB NOT NULL, PRIMARY KEY (height, round, kind)) WITHOUT ROWID;
CREATE TABLE lock (only INTEGER PRIMARY KEY CHECK (only = 0), height INTEGER, locked_round INTEGER,
    locked_id BLOB, valid_round INTEGER, valid_block BLOB, proof BLOB, sum BLOB NOT NULL);
CREATE TABLE evidence (height INTEGER, voter TEXT, first BLOB, second BLOB,
    PRIMARY KEY (height, voter)) WITHOUT ROWID;
"""

_MEMORY = (
    "SELECT sum FROM (SELECT sum, height, round, kind FROM votes ORDER BY height, round, kind) "
    "UNION ALL SELECT sum FROM lock"
)
_FORGETFUL = (fx.WriteEvidence, fx.WritePosition)  # effects that leave votes and lock as they are
# What SQLite says when the disk, and not what is on it, is at fault.
_UNUSABLE = ("full", "readonly", "unable to open", "disk I/O error")


class Store:
    """One open ledger file. Not for use by several threads."""

    def __init__(self, path: Path, chain: bytes, model: str, db: sqlite3.Connection) -> None:
        self.path = path
        self._chain = chain
        self._model = model
        self._db = db

    # ------------------------------------------------------------------ opening

    @classmethod
    def create(cls, path: Path, genesis: Application, chain: bytes, *, may_vote: bool) -> None:
        """Make a new file. `may_vote`: its owner founds the swarm, so nobody voted before it."""
        db = _connect(path)
        with _disk(path), db:
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('version', ?)", (VERSION,))
            db.execute("INSERT INTO meta VALUES ('chain', ?)", (chain,))
            if may_vote:
                db.execute("INSERT INTO meta VALUES ('voting', ?)", (codec.encode([0, 0]),))
            store = cls(path, chain, genesis.fault_model, db)
            store._write_records(genesis.rows(None))
            store._write_validators(genesis, None)
            store._write_memory()
        db.close()

    @staticmethod
    def unused(path: Path) -> bool:
        """Whether nobody has ever opened what `create` began to make. LocalError SW3012, SW3015."""
        with _disk(path), closing(sqlite3.connect(path, timeout=0.5)) as db:
            try:
                found = db.execute("SELECT key FROM meta WHERE key = 'owner'").fetchone()
                return found is None and not db.execute("SELECT 1 FROM blocks").fetchone()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return not _tables(db)
                raise

    @classmethod
    def open(
        cls,
        path: Path,
        chain: bytes,
        restore: Callable[[int, Iterable[Row]], App],
        verify: Verify,
        recoveries: Collection[bytes] = (),
        *,
        owner: str = "",
        certified: bool = True,
    ) -> tuple[Store, App]:
        """Open and check. `restore` builds an application from its height and rows, `recoveries`
        are the ids of the recovery blocks that were accepted here, `owner` is the uid of this node
        ("": whoever only reads).

        `certified`: the blocks have certificates, as they have where the nodes order by voting.
        Raises LocalError: SW3010 another swarm's, SW3011 damaged, SW3012 unreadable, SW3015 in use,
        SW3016 another node's.
        """
        torn, logged = _look_at_log(path)
        if torn:
            # Before SQLite sees it, which would drop the frames for good.
            if _in_use(path):
                raise LocalError("SW3015", f"{path} is open in another process")
            raise _damage(path, torn)
        db = _connect(path)
        try:
            with _disk(path, damaged=True):
                _check_pages(path, db)
                kept = dict(db.execute("SELECT key, value FROM meta"))
                if kept.get("version") != VERSION:
                    raise _damage(path, f"its format is {kept.get('version')!r}, not {VERSION}")
                if kept.get("chain") != chain:
                    raise LocalError("SW3010", f"{path} is the ledger of another swarm")
                if owner and kept.get("owner", owner) != owner:
                    raise LocalError(
                        "SW3016", f"{path} is the ledger of the network node {kept['owner']}"
                    )
                if kept.get("open") and not logged:
                    raise _damage(path, "its write-ahead log, with the last steps, is missing")
                (top,) = db.execute("SELECT coalesce(max(height), 0) FROM blocks").fetchone()
                rows = db.execute("SELECT tbl, key, value FROM records ORDER BY tbl, key")
                app = restore(top, (Row(*row) for row in rows))
                store = cls(path, chain, app.fault_model, db)
                store._check(top, app, verify, recoveries, certified)
            if owner:
                store._take(owner)
        except RemoteError as error:
            db.close()
            raise _damage(path, error.cause) from None
        except BaseException:
            db.close()
            raise
        return store, app

    def _check(
        self,
        top: int,
        app: Application,
        verify: Verify,
        recoveries: Collection[bytes],
        certified: bool,
    ) -> None:
        first = max(1, top - RECENT + 1)
        self.audit(first, top)
        for height in range(max(1, top - CERTIFIED + 1), top + 1) if certified else ():
            block, certificate = self._pair(height)
            keys = self._keys(height)
            needed = quorum(len(keys), self._model)
            check_certificate(block, certificate, keys, needed, verify, recoveries)
        digest = app.digest()
        if top:
            (kept,) = self._one("SELECT state FROM blocks WHERE height = ?", top)
            if kept != digest:
                raise _damage(self.path, "its records do not have the digest of the last block")
        known = self._keys(top + 1)
        if known != {v.uid: v.public_key_der for v in app.validators()}:
            raise _damage(self.path, "its validators are not those of its records")
        for height, raw in self._db.execute("SELECT height, keys FROM validators WHERE height > 1"):
            validators = [Validator(uid, key) for uid, key in _read_keys(raw).items()]
            before = self._row("SELECT block FROM blocks WHERE height = ?", height - 1)
            header = Block.decode(before[0]).header if before else None
            if header is None or header.effect.next_validators != validators_hash(validators):
                raise _damage(self.path, f"its validators of height {height} are wrong")

    def _take(self, owner: str) -> None:
        """Note whose it is, and that it is open: a crash leaves that behind, and a log."""
        with _disk(self.path):
            self._db.execute("REPLACE INTO meta VALUES ('owner', ?)", (owner,))
            self._db.execute("REPLACE INTO meta VALUES ('open', 1)")
            # Into the file itself, so that it is known even when the log is gone.
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def audit(self, first: int, last: int) -> None:
        """Check form and hash chain of stored blocks. Raises LocalError SW3011."""
        with _disk(self.path, damaged=True):
            before = self._row("SELECT block FROM blocks WHERE height = ?", first - 1)
            if first > 1 and before is None:
                raise _damage(self.path, f"block {first - 1} is missing")
            rows = self._db.execute(
                "SELECT height, block, certificate, outcome, state, sum FROM blocks "
                "WHERE height >= ? AND height <= ? ORDER BY height",
                (first, last),
            )
            try:
                self._check_chain(rows, first, last, Block.decode(before[0]) if before else None)
            except RemoteError as error:
                raise _damage(self.path, error.cause) from None

    def _check_chain(
        self,
        rows: Iterable[tuple[int, bytes, bytes, bytes, bytes, bytes]],
        first: int,
        last: int,
        previous: Block | None,
    ) -> None:
        expected = first
        for height, raw, raw_certificate, outcome, state, checksum in rows:
            block = Block.decode(raw)
            certificate = Certificate.decode(raw_certificate)
            header = block.header
            if not (
                height == expected == block.height == certificate.height
                and header.chain == self._chain
                and header.previous == (previous.id if previous else self._chain)
                and certificate.block_id == block.id
                and state == header.effect.state
                and checksum == _sum(height, raw, raw_certificate, outcome)
            ):
                raise _damage(self.path, f"block {expected} does not fit the chain")
            expected, previous = height + 1, block
        if expected != last + 1:
            raise _damage(self.path, f"block {expected} is missing")

    def close(self) -> None:
        """Close the file; everything written is durable already."""
        try:
            with _disk(self.path):
                self._db.execute("UPDATE meta SET value = 0 WHERE key = 'open'")
        except LocalError as error:
            # As after a crash, then: the log stays, and is found by the next start.
            log.warning("%s", error)
        finally:
            self._db.close()

    # ------------------------------------------------------------------ reading

    def resume(self) -> Resume:
        """What the core needs to go on. Raises LocalError SW3011."""
        with _disk(self.path, damaged=True):
            try:
                return self._resume()
            except RemoteError as error:
                raise _damage(self.path, f"own votes: {error.cause}") from None

    def _resume(self) -> Resume:
        signed, sums = [], []
        rows = self._db.execute("SELECT * FROM votes ORDER BY height, round, kind")
        for height, round_, kind, raw, checksum in rows:
            message = msg.decode(raw)
            if checksum != _sum(height, round_, kind, raw) or not isinstance(
                message, msg.Vote | msg.Proposal
            ):
                raise _damage(self.path, "own votes: one was altered")
            signed.append(message)
            sums.append(checksum)
        lock = Lock()
        row = self._row("SELECT * FROM lock")
        if row is not None:
            *values, checksum = row
            if checksum != _sum(*values[1:]):
                raise _damage(self.path, "own votes: the lock was altered")
            lock = _read_lock(values[2:])
            sums.append(checksum)
        voting = self._meta("voting")
        if self._meta("memory") != _sum(*sums, voting or b""):
            raise _damage(self.path, "own votes: some are missing")
        vote_from = None
        if voting is not None:
            height, round_ = codec.decode(voting, limit=64, what="voting")
            vote_from = (height, round_)
        last = self._row("SELECT block FROM blocks ORDER BY height DESC LIMIT 1")
        if last is None:
            return Resume(self._chain, "", 0, tuple(signed), lock, vote_from, True)
        block = Block.decode(last[0])
        header = block.header
        parts = (header.proposer, header.time_ms, tuple(signed), lock, vote_from, True)
        return Resume(block.id, *parts)

    def block(self, height: int) -> tuple[Block, Certificate, Outcome] | None:
        """A committed block with its certificate and outcome, or None."""
        with _disk(self.path, damaged=True):
            query = "SELECT block, certificate, outcome, sum FROM blocks WHERE height = ?"
            row = self._row(query, height)
            if row is None:
                return None
            if row[3] != _sum(height, *row[:3]):
                raise _damage(self.path, f"block {height} was altered")
            return Block.decode(row[0]), Certificate.decode(row[1]), _read_outcome(row[2])

    def find(self, tx_id: bytes) -> tuple[int, int] | None:
        """Height and position of a committed transaction."""
        with _disk(self.path, damaged=True):
            row = self._row("SELECT height, position, sum FROM transactions WHERE id = ?", tx_id)
            if row is None:
                return None
            if row[2] != _short_sum(tx_id, row[0], row[1]):
                raise _damage(self.path, "its index of transactions was altered")
            return row[0], row[1]

    def batch(self, after: int, count: int, size: int) -> tuple[tuple[bytes, bytes], ...]:
        """Encoded blocks and certificates from `after + 1` on: at least one, at most `size` bytes
        unless the first alone is larger."""
        chosen: list[tuple[bytes, bytes]] = []
        with _disk(self.path, damaged=True):
            rows = self._db.execute(
                "SELECT height, block, certificate, outcome, sum FROM blocks WHERE height > ? "
                "ORDER BY height LIMIT ?",
                (after, count),
            )
            for height, block, certificate, outcome, checksum in rows:
                if checksum != _sum(height, block, certificate, outcome):
                    raise _damage(self.path, f"block {height} was altered")
                size -= len(block) + len(certificate) + 16
                if chosen and size < 0:
                    break
                chosen.append((block, certificate))
        return tuple(chosen)

    def position(self) -> bytes | None:
        """The last `fx.WritePosition`, or None."""
        with _disk(self.path, damaged=True):
            found: bytes | None = self._meta("position")
            return found

    def evidence(self) -> list[fx.WriteEvidence]:
        """What proves that validators voted twice: the first MAX_EVIDENCE, in order of heights."""
        query = "SELECT first, second FROM evidence ORDER BY height, voter LIMIT ?"
        with _disk(self.path, damaged=True):
            rows = self._db.execute(query, (MAX_EVIDENCE,))
            return [fx.WriteEvidence(*map(Statement.decode, row)) for row in rows]

    def validators(self, height: int) -> dict[str, bytes]:
        """Who votes on the block of a height, with their keys."""
        with _disk(self.path, damaged=True):
            return self._keys(height)

    def _pair(self, height: int) -> tuple[Block, Certificate]:
        row = self._one("SELECT block, certificate FROM blocks WHERE height = ?", height)
        return Block.decode(row[0]), Certificate.decode(row[1])

    def _keys(self, height: int) -> dict[str, bytes]:
        """Validators of a height with their keys."""
        (raw,) = self._one(
            "SELECT keys FROM validators WHERE height <= ? ORDER BY height DESC LIMIT 1", height
        )
        return _read_keys(raw)

    def _meta(self, key: str) -> Any:
        row = self._row("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else row[0]

    def _row(self, query: str, *parameters: object) -> Sequence[Any] | None:
        found: Sequence[Any] | None = self._db.execute(query, parameters).fetchone()
        return found

    def _one(self, query: str, *parameters: object) -> Sequence[Any]:
        row = self._row(query, *parameters)
        if row is None:
            raise _damage(self.path, "something that must be there is missing")
        return row

    # ------------------------------------------------------------------ writing

    def write(self, effects: Iterable[fx.Effect]) -> None:
        """Make the durable ones among `effects` durable, all or none. LocalError SW3012."""
        durable = [effect for effect in effects if isinstance(effect, fx.DURABLE)]
        if not durable:
            return
        with _disk(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for effect in durable:
                    self._write(effect)
                if any(not isinstance(effect, _FORGETFUL) for effect in durable):
                    self._write_memory()
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _write(self, effect: fx.Durable) -> None:
        run = self._db.execute
        if isinstance(effect, fx.WriteVote):
            values = (effect.height, effect.round, effect.kind, effect.message)
            # Plain INSERT: a second value for one step is a defect and must fail loudly.
            run("INSERT INTO votes VALUES (?, ?, ?, ?, ?)", (*values, _sum(*values)))
        elif isinstance(effect, fx.WriteLock):
            lock = (
                effect.height,
                effect.locked_round,
                effect.locked_id,
                effect.valid_round,
                effect.valid_block,
                codec.encode(list(effect.proof)),
            )
            run("REPLACE INTO lock VALUES (0, ?, ?, ?, ?, ?, ?, ?)", (*lock, _sum(*lock)))
        elif isinstance(effect, fx.WriteVoting):
            value = codec.encode([effect.height, effect.round])
            run("REPLACE INTO meta VALUES ('voting', ?)", (value,))
        elif isinstance(effect, fx.WritePosition):
            run("REPLACE INTO meta VALUES ('position', ?)", (effect.position,))
        elif isinstance(effect, fx.WriteEvidence):
            run(
                "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?)",
                (effect.height, effect.voter, effect.first.encode(), effect.second.encode()),
            )
        else:
            self._write_commit(effect)

    def _write_commit(self, effect: fx.Commit) -> None:
        run = self._db.execute
        height = effect.block.height
        block = (
            effect.block.encoded,
            effect.certificate.encode(),
            _write_outcome(effect.outcome),
        )
        values = (height, *block, effect.application.digest(), _sum(height, *block))
        run("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?)", values)
        self._db.executemany(
            "INSERT OR IGNORE INTO transactions VALUES (?, ?, ?, ?)",
            [
                (tx_id, height, position, _short_sum(tx_id, height, position))
                for position, tx_id in enumerate(effect.ids)
            ],
        )
        self._write_records(effect.application.rows(effect.before))
        self._write_validators(effect.application, effect.before)
        run("DELETE FROM votes WHERE height <= ?", (height,))
        run("DELETE FROM lock WHERE height <= ?", (height,))

    def _write_memory(self) -> None:
        """Seal what this node must not forget: a row that is lost or came back is noticed."""
        sums = [checksum for (checksum,) in self._db.execute(_MEMORY)]
        memory = _sum(*sums, self._meta("voting") or b"")
        self._db.execute("REPLACE INTO meta VALUES ('memory', ?)", (memory,))

    def _write_records(self, rows: Iterable[Row]) -> None:
        for table, key, value in rows:
            if value is None:
                self._db.execute("DELETE FROM records WHERE tbl = ? AND key = ?", (table, key))
            else:
                self._db.execute("REPLACE INTO records VALUES (?, ?, ?)", (table, key, value))

    def _write_validators(self, app: Application, before: Application | None) -> None:
        now = app.validators()
        if before is None or before.validators() != now:
            keys = codec.encode({v.uid: v.public_key_der for v in now})
            self._db.execute("INSERT INTO validators VALUES (?, ?)", (app.height + 1, keys))


def _look_at_log(path: Path) -> tuple[str, bool]:
    """What is wrong with the write-ahead log, and whether there is one; before SQLite looks."""
    try:
        return wal.damage(path), wal.path_of(path).exists()
    except OSError as error:
        raise LocalError("SW3012", f"{path}: {error}") from error


def _tables(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _in_use(path: Path) -> bool:
    """Whether another process holds SQLite's lock (its SHARED range), without opening a database.

    Only before this process has opened it: closing the file gives up all locks on it.
    """
    with path.open("rb") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 510, 0x40000002)
        except OSError:
            return True
    return False


def _check_pages(path: Path, db: sqlite3.Connection) -> None:
    """Every page is part of exactly one thing. Otherwise a write could destroy a block."""
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise _damage(path, str(found).replace("\n", " "))


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file for this process alone."""
    with _disk(path):
        db = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")  # takes the lock, or says that another process has it
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
    return db


@contextmanager
def _disk(path: Path, *, damaged: bool = False) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise LocalError("SW3015", f"{path} is open in another process") from error
        if damaged and not any(text in str(error) for text in _UNUSABLE):
            raise _damage(path, str(error)) from error
        raise LocalError("SW3012", f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise _damage(path, str(error)) from error
    except RemoteError as error:
        if not damaged:
            raise
        raise _damage(path, error.cause) from error
    except UnicodeDecodeError as error:
        raise _damage(path, "a name in it is no text") from error
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        if not damaged:
            raise
        # A row is not what was stored: another type, or something is missing.
        raise _damage(path, f"a row is none of ours ({type(error).__name__}: {error})") from error


def _damage(path: Path, cause: str) -> LocalError:
    return LocalError("SW3011", f"{path}: {cause}")


def _write_outcome(outcome: Outcome) -> bytes:
    verdicts = [[v.ok, v.code, v.text, v.result] for v in outcome.verdicts]
    return codec.encode([verdicts, sorted(outcome.changed)])


def _read_outcome(data: bytes) -> Outcome:
    verdicts, changed = codec.decode(data, limit=MAX_OUTCOME, what="outcome")
    return Outcome(tuple(Verdict(*verdict) for verdict in verdicts), frozenset(changed))


def _read_keys(raw: bytes) -> dict[str, bytes]:
    return dict(codec.decode(raw, limit=1 << 20, what="validators"))


def _read_lock(values: Sequence[Any]) -> Lock:
    locked_round, locked_id, valid_round, block, proof = values
    votes = [msg.decode(raw) for raw in codec.decode(proof, limit=1 << 20, what="proof")]
    prevotes = tuple(vote for vote in votes if isinstance(vote, msg.Vote))
    return Lock(locked_round, locked_id, valid_round, Block.decode(block), prevotes)


def _sum(*parts: int | bytes) -> bytes:
    """Checksum of a row: against accidents of the disk, not against malice."""
    summary = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.to_bytes(8, "big", signed=True) if isinstance(part, int) else part
        summary.update(len(data).to_bytes(8, "big") + data)
    return summary.digest()


def _short_sum(tx_id: bytes, height: int, position: int) -> int:
    return zlib.crc32(b"%d %d " % (height, position) + tx_id)
