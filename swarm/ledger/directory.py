"""A node's data directory: `genesis.cbor`, written once, `ledger.db`, and perhaps `recoveries`.

The genesis lies in a file of its own, so that it can be read while a running node holds the ledger
file for itself. `recoveries` names, a line each, the recovery blocks that the operator has accepted
(`recovery.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from swarm.errors import LocalError, RemoteError
from swarm.identity import verify_signature
from swarm.ledger.application import LedgerApplication
from swarm.ledger.genesis import Genesis
from swarm.ledger.recovery import Name
from swarm.ledger.store import FILE, Store

GENESIS = "genesis.cbor"
RECOVERIES = "recoveries"


def create(
    data_dir: Path, genesis: Genesis, *, founder: bool, recoveries: Iterable[Name] = ()
) -> None:
    """Make an empty ledger, which accepts `recoveries`.

    `founder` says that the swarm begins with this very call, so that nobody can have voted before.
    Everybody else may vote only after asking its peers (`consensus/amnesia.py`). Raises LocalError
    SW3010 when there is a ledger already, SW3012 when the directory cannot be written.
    """
    if (data_dir / GENESIS).exists():
        raise LocalError("SW3010", f"there is a ledger in {data_dir} already")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        _remove_leftover(data_dir / FILE)
        app = LedgerApplication.genesis(genesis)
        Store.create(data_dir / FILE, app, genesis.chain_id, may_vote=founder)
        for name in recoveries:
            accept(data_dir, name)
        _write_whole(data_dir / GENESIS, genesis.encode())
    except OSError as error:
        raise LocalError("SW3012", f"{data_dir}: {error}") from error


def _remove_leftover(path: Path) -> None:
    """Remove what a start made that was cut short before it wrote the genesis, which comes last.

    Nobody has used it yet. Raises LocalError SW3010 for any other ledger: its genesis is lost.
    """
    if path.exists() and not Store.unused(path):
        raise LocalError("SW3010", f"{path} is a ledger, but there is no {GENESIS} beside it")
    for leftover in path.parent.glob(FILE + "*"):
        leftover.unlink()


def genesis_of(data_dir: Path) -> Genesis | None:
    """The genesis in a directory; None when there is none. LocalError SW3011 when it is damaged."""
    path = data_dir / GENESIS
    try:
        return Genesis.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocalError("SW3012", f"{path}: {error}") from error
    except RemoteError as error:
        raise LocalError("SW3011", f"{path}: {error.cause}") from error


def recoveries_of(data_dir: Path) -> tuple[Name, ...]:
    """Recoveries that the operator has accepted, by height. LocalError SW3011 when unreadable."""
    path = data_dir / RECOVERIES
    try:
        lines = path.read_text("ascii").split()
        return tuple(sorted({Name.parse(line) for line in lines}))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError("SW3012", f"{path}: {error}") from error
    except RemoteError as error:
        raise LocalError("SW3011", f"{path}: {error.cause}") from error


def accept(data_dir: Path, name: Name) -> None:
    """Note that the operator has accepted a recovery. Raises LocalError SW3011, SW3012."""
    names = sorted({*recoveries_of(data_dir), name})
    try:
        _write_whole(data_dir / RECOVERIES, "".join(f"{one}\n" for one in names).encode())
    except OSError as error:
        raise LocalError("SW3012", f"{data_dir}: {error}") from error


def open_store(
    data_dir: Path, genesis: Genesis, owner: str = ""
) -> tuple[Store, LedgerApplication]:
    """Open the ledger of a directory for `genesis`. `owner` is the uid of the node that will write;
    whoever only reads gives none.

    A directory that has the genesis and no ledger file has lost it: it begins anew, as one that may
    not vote yet. Raises LocalError SW3010, SW3011, SW3012, SW3015, SW3016.
    """
    kept = genesis_of(data_dir)
    if kept is None or kept.chain_id != genesis.chain_id:
        what = "no ledger" if kept is None else "the ledger of another swarm"
        raise LocalError("SW3010", f"{data_dir} holds {what}")
    path = data_dir / FILE
    if not path.exists():
        app = LedgerApplication.genesis(genesis)
        Store.create(path, app, genesis.chain_id, may_vote=False)
    chain = genesis.chain_id
    return Store.open(
        path,
        chain,
        lambda height, rows: LedgerApplication.restore(chain, height, rows),
        verify_signature,
        {name.block_id for name in recoveries_of(data_dir)},
        owner=owner,
        certified=genesis.order is None,
    )


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there completely, or not at all, after a crash."""
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
