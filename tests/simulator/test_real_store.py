"""Simulated worlds whose nodes write to the product's own store, in SQLite files.

Each restart takes the files as they are at that moment, without closing them, as a crash does; adds
the beginning of one more transaction, cut anywhere, as a torn write does; opens them, and compares
what is found with the simulated disk, which all other worlds use: so that disk is a true model.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from swarm.ledger import codec
from swarm.ledger.application import Application, Row
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Resume
from swarm.ledger.store import FILE, Store
from tests.ledger import kv
from tests.simulator.disk import Disk
from tests.simulator.ledgers import Double, KvLedger
from tests.simulator.node import Node
from tests.simulator.profiles import Profile
from tests.simulator.world import World


class Stored(Double):
    """The double, to and from rows."""

    def rows(self, before: Application | None) -> Iterator[Row]:
        yield from super().rows(before)
        yield Row("meta", "time", codec.encode(self.time_ms))

    @classmethod
    def restore(cls, height: int, rows: Iterable[Row]) -> Stored:
        kept = list(rows)
        time_ms = next(
            codec.decode(r.value or b"", limit=99, what="") for r in kept if r.key == "time"
        )
        plain = kv.KV.restore(height, [row for row in kept if row.key != "time"])
        return cls(height, plain.fault_model, plain.uids, plain.entries, plain.used, time_ms)


class Mirror(Disk):
    """The simulated disk, and beside it the real one, which must agree whenever it is opened."""

    world: World
    uid: str
    home: Path
    numbers = itertools.count()
    opened = 0
    torn = 0

    def of(self, world: World, uid: str, home: Path) -> Mirror:
        self.world, self.uid, self.home = world, uid, home
        self.store: Store | None = None
        return self

    def write(self, effects: Iterable[fx.Durable]) -> None:
        kept = list(effects)
        assert self.store is not None, "opened at the start"
        self.store.write(kept)
        super().write(kept)

    def resume(self, chain: bytes) -> Resume:
        """What the simulated disk says, if the real one says the same."""
        path = self.home / str(next(self.numbers)) / FILE
        path.parent.mkdir()
        if self.store is None:
            genesis = self.world.genesis
            Store.create(path, genesis, chain, may_vote=self.vote_from is not None)
        else:
            self._crash(path)
        self.store, app = Store.open(path, chain, Stored.restore, self.world.verify, owner=self.uid)
        expected, found = super().resume(chain), self.store.resume()
        assert app.digest() == (self.app or self.world.genesis).digest()
        assert found.unconfirmed and found.vote_from == expected.vote_from
        assert sorted(map(msg.encode, found.signed)) == sorted(map(msg.encode, expected.signed))
        assert found.lock == expected.lock
        assert (found.last_id, found.last_proposer, found.last_time_ms) == (
            expected.last_id, expected.last_proposer, expected.last_time_ms,
        )  # fmt: skip
        Mirror.opened += 1
        return found

    def _crash(self, path: Path) -> None:
        """Copy the files of the store that is open, with a torn transaction at the end."""
        assert self.store is not None, "it was opened before"
        old, log = self.store.path, f"{FILE}-wal"
        before = (old.parent / log).stat().st_size
        self.store.write([fx.WriteVote(10**6, 0, 0, b"torn" * 100)])
        after = (old.parent / log).stat().st_size
        for name in (FILE, log):
            shutil.copy(old.parent / name, path.parent / name)
        if after > before:
            with (path.parent / log).open("r+b") as file:
                file.truncate(self.world.rng.randrange(before, after))
            Mirror.torn += 1
        else:
            pytest.fail("the log began anew: make the world shorter")
        self.store.close()
        shutil.rmtree(old.parent)


STEADY = Profile(
    transactions=8, heal=4.0, delay=0.1, loss=0.1, crashes=6, crash_in_step=0.02, joins=1, leaves=1,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_the_store_forgets_nothing_that_the_simulated_disk_keeps(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Node.__init__
    mirrors: list[Mirror] = []

    def mirrored(node: Node, world: World, uid: str, twin: int = 0) -> None:
        made(node, world, uid, twin)
        node.disk = Mirror().of(world, uid, tmp_path)
        mirrors.append(node.disk)

    def ledger(count: int, model: str) -> KvLedger:
        return KvLedger(count, model, Stored)

    monkeypatch.setattr(Node, "__init__", mirrored)
    monkeypatch.setattr(Mirror, "opened", 0)
    monkeypatch.setattr(Mirror, "torn", 0)
    world = World(seed, STEADY, ledger=ledger)
    world.run()
    for mirror in mirrors:
        if mirror.store is not None:
            mirror.store.close()
    assert Mirror.opened == Mirror.torn + len(mirrors)
    assert Mirror.torn >= 3
