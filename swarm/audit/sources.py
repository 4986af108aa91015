"""Where an audit reads a ledger from: a node's data directory, or an export.

An export is one file: the line `swarm-export-1`, then frames, each a length (4 bytes, big endian)
and canonical CBOR of that many bytes:

    ["genesis", genesis, recoveries]      first; recoveries as texts "<height>-<block id>"
    ["block", block, certificate]         one for each height, from 1 on, in order
    ["end", height, block id]             last

Nothing in it is believed, so it carries no checksum: whoever alters it could alter that as well.
What it holds is checked by `replay.py`.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from swarm.errors import LocalError, RemoteError
from swarm.ledger import codec
from swarm.ledger.block import MAX_BLOCK, MAX_CERTIFICATE, Block
from swarm.ledger.directory import genesis_of, recoveries_of
from swarm.ledger.genesis import MAX_GENESIS, Genesis
from swarm.ledger.recovery import Name
from swarm.ledger.state.recoveries import MAX_RECOVERIES
from swarm.ledger.store import FILE, VERSION

MAGIC = b"swarm-export-1\n"
CODE = "SW3202"
_NAME = 128  # bytes that a recovery's name takes at most
MAX_FRAME = max(MAX_BLOCK + MAX_CERTIFICATE, MAX_GENESIS + MAX_RECOVERIES * _NAME) + 64


class Pair(NamedTuple):
    """A block and its certificate, encoded."""

    block: bytes
    certificate: bytes


class Source(Protocol):
    """A ledger as somebody kept it; nothing in it is trusted."""

    @property
    def genesis(self) -> Genesis:
        """What it begins with."""

    @property
    def recoveries(self) -> tuple[Name, ...]:
        """Recoveries that its owner has accepted."""

    def pairs(self) -> Iterator[Pair]:
        """All blocks, from height 1 on. Raises LocalError SW3202 or SW3015, RemoteError."""


def open_source(path: Path) -> Source:
    """What `path` is: a data directory or an export. Raises LocalError SW3202, SW3011, SW3012."""
    if path.is_dir():
        return DataDirectory(path)
    return Export(path)


class DataDirectory:
    """The ledger of a node that is not running; it is only read."""

    def __init__(self, path: Path) -> None:
        genesis = genesis_of(path)
        if genesis is None:
            raise LocalError(CODE, f"{path} is no data directory of a network node")
        self.genesis = genesis
        self.recoveries = recoveries_of(path)
        self._path = path / FILE

    def pairs(self) -> Iterator[Pair]:
        if not self._path.is_file():
            raise LocalError(CODE, f"there is no {self._path}")
        try:
            with _database(self._path) as db:
                (version,) = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
                if version != VERSION:
                    raise LocalError(
                        CODE, f"the format of {self._path} is {version}, not {VERSION}"
                    )
                for row in db.execute("SELECT block, certificate FROM blocks ORDER BY height"):
                    if not all(type(value) is bytes for value in row):
                        raise LocalError(CODE, f"{self._path} holds something else than blocks")
                    yield Pair(*row)
        except (sqlite3.Error, TypeError) as error:
            if "locked" in str(error):
                raise LocalError(
                    "SW3015",
                    f"{self._path} is open in a running node; export it through the node's API "
                    "(swarm ledger export --sn HOST:PORT …)",
                ) from error
            raise LocalError(CODE, f"{self._path}: {error}") from error


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open without leaving a trace, where SQLite can."""
    log = path.with_name(path.name + "-wal")
    if not log.exists() or not log.stat().st_size:
        # A running node has a log beside its file: nobody can be writing.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as db:
            yield db
        return
    with tempfile.TemporaryDirectory(prefix="swarm-audit-") as copy:
        # The node was killed, and the log holds the last blocks. Ask for the lock first.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.5)
        ) as db:
            try:
                db.execute("SELECT 1 FROM meta").fetchone()
                yield db
                return
            except sqlite3.OperationalError as error:
                if "locked" in str(error):
                    raise
        # In a directory where nothing may be written SQLite cannot read such a log.
        for file in (path, log):
            shutil.copyfile(file, Path(copy) / file.name)
        with closing(sqlite3.connect(Path(copy) / path.name)) as db:
            yield db


class Export:
    """A ledger in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as file:
            genesis, names = self._head(file)
        try:
            self.genesis = Genesis.decode(genesis)
            self.recoveries = tuple(Name.parse(name) for name in names)
        except RemoteError as error:
            raise LocalError(CODE, f"{path}: {error.cause}") from None

    def _open(self) -> BinaryIO:
        try:
            file = self._path.open("rb")
        except OSError as error:
            raise LocalError(CODE, f"{self._path}: {error.strerror}") from error
        if file.read(len(MAGIC)) != MAGIC:
            file.close()
            raise LocalError(CODE, f"{self._path} is neither a data directory nor an export")
        return file

    def _head(self, file: BinaryIO) -> tuple[bytes, list[str]]:
        try:
            value = _frame(file)
            genesis, names = codec.fields(value, "genesis", (bytes, list), "first frame", CODE)
            codec.list_of(names, str, "recoveries", most=MAX_RECOVERIES, code=CODE)
        except RemoteError as error:
            raise LocalError(CODE, f"{self._path}: {error.cause}") from None
        return genesis, names

    def pairs(self) -> Iterator[Pair]:
        with self._open() as file:
            self._head(file)
            height, last = 0, None
            try:
                while True:
                    value = _frame(file)
                    if type(value) is list and value[:1] == ["end"]:
                        break
                    last = Pair(*codec.fields(value, "block", (bytes, bytes), "a frame", CODE))
                    height += 1
                    yield last
                end = codec.fields(value, "end", (int, bytes), "the last frame", CODE)
                codec.require(file.read(1) == b"", "bytes after the end", CODE)
                expected = [height, block_id(last) if last else self.genesis.chain_id]
                codec.require(end == expected, "its end does not fit its last block", CODE)
            except RemoteError as error:
                raise LocalError(
                    CODE, f"{self._path}, behind height {height}: {error.cause}"
                ) from None


def block_id(pair: Pair) -> bytes:
    """Id of a block."""
    return Block.decode(pair.block).id


def _frame(file: BinaryIO) -> codec.Value:
    head = file.read(4)
    codec.require(len(head) == 4, "it ends too soon", CODE)
    size = int.from_bytes(head, "big")
    codec.require(size <= MAX_FRAME, f"a frame of {size} bytes", CODE)
    data = file.read(size)
    codec.require(len(data) == size, "it ends within a frame", CODE)
    return codec.decode(data, limit=MAX_FRAME, what="a frame", code=CODE)


def write_export(
    path: Path, genesis: Genesis, recoveries: Iterable[Name], pairs: Iterable[Pair]
) -> int:
    """Write an export; the number of blocks. It appears when it is whole.

    Raises LocalError SW3202 when it cannot be written, and what `pairs` raises.
    """
    draft = path.with_name(path.name + ".new")
    height, last = 0, None
    try:
        with draft.open("wb") as file:
            file.write(MAGIC)
            _put(file, ["genesis", genesis.encode(), [str(name) for name in recoveries]])
            for pair in pairs:
                last, height = pair, height + 1
                _put(file, ["block", *pair])
            _put(file, ["end", height, block_id(last) if last else genesis.chain_id])
        draft.replace(path)
    except OSError as error:
        raise LocalError(CODE, f"{draft}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    return height


def _put(file: BinaryIO, value: codec.Value) -> None:
    data = codec.encode(value)
    file.write(len(data).to_bytes(4, "big") + data)
