"""The validators change from 1 to 7 to 2, down to 1 and back, under load, on a lossy network.

The production replica and state machine, disks and certificates; the mesh and the time are made.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
import trio

from swarm.errors import RemoteError
from swarm.identity import Role
from swarm.ledger.block import NIL, PREVOTE
from swarm.ledger.consensus import messages as msg
from swarm.ledger.transaction import SignedTransaction, transaction_hash
from tests import pki
from tests.ledger.net import Site, Swarm, sign
from tests.ledger.test_replica import run

# More were run once; `SWARM_SEEDS=20` runs more again.
SEEDS = range(int(os.environ.get("SWARM_SEEDS", "3")))
PAUSE = 0.05  # virtual seconds between two transactions of a client


class Load:
    """Clients that never stop: each transaction goes to some node until one has taken it."""

    def __init__(self, swarm: Swarm, rng: random.Random) -> None:
        self.swarm = swarm
        self.rng = rng
        self.acknowledged: dict[bytes, int] = {}  # hash to height
        self._count = 0
        self._ending = False
        self._running = 0
        self._ended = trio.Event()

    async def run(self) -> None:
        self._running += 1
        while not self._ending:
            await self._one()
            await trio.sleep(PAUSE)
        self._running -= 1
        if not self._running:
            self._ended.set()

    async def stop(self) -> None:
        """End after the transactions under way."""
        self._ending = True
        await self._ended.wait()

    async def _one(self) -> None:
        self._count += 1
        tx = self.swarm.new_task(f"task-{self._count}")
        while True:
            site = self.rng.choice(alive(self.swarm))
            with trio.move_on_after(5.0):
                try:
                    height, verdict = await site.replica.submit(tx)
                except RemoteError as error:
                    assert error.code == "SW3008", error  # that node is going; another one takes it
                else:
                    assert verdict.ok, verdict
                    self.acknowledged[transaction_hash(tx)] = height
                    return
            await trio.sleep(PAUSE)


def alive(swarm: Swarm) -> list[Site]:
    return [site for site in swarm.sites if not site.ended.is_set() and site.replica is not None]


def validators(site: Site) -> int:
    return len(site.replica.state.validators())


async def grow(swarm: Swarm, count: int) -> None:
    """Let nodes join, through whoever is there."""
    for _ in range(count):
        site = swarm.site()
        await site.start()
        await swarm.net.connected()
        await site.replica.synced.wait()
        assert (await site.enroll()).ok


async def leave(swarm: Swarm, site: Site) -> None:
    """As after SIGTERM: out of the votes first, and gone when the others have that block."""
    height, verdict = await site.do("node.leave", {"uid": site.uid})
    assert verdict.ok and not verdict.result["stays"]
    others = [one for one in alive(swarm) if one is not site]
    with trio.move_on_after(1.0):
        await others[0].replica.wait_for(height)
    await site.kill()


async def evict(swarm: Swarm, site: Site, rng: random.Random) -> None:
    """By the vote of another node; all are of one organisation here."""
    voter = rng.choice([one for one in alive(swarm) if one is not site])
    height, verdict = await voter.do("node.evict", {"uid": site.uid})
    assert verdict.ok and verdict.result["evicted"]
    await site.replica.wait_for(height)  # it gets the very block that puts it out
    with pytest.raises(RemoteError, match="was evicted"):
        await site.replica.submit(site.transaction("node.leave", {"uid": site.uid}))
    await site.kill()


def proposer(swarm: Swarm) -> Site:
    """Who made the last block, and will make the next one."""
    replica = max((site.replica for site in alive(swarm)), key=lambda one: one.state.height)
    block = replica.block(replica.state.height)
    uid = block.block.header.proposer
    return next(site for site in swarm.sites if site.uid == uid)


def check(swarm: Swarm, load: Load) -> None:
    """One chain, one state, and every acknowledged transaction in it once, where it was said."""
    sites = alive(swarm)
    top = min(site.replica.state.height for site in sites)
    chains = []
    for site in sites:
        blocks = [site.replica.block(height) for height in range(1, top + 1)]
        chains.append([committed.block.id for committed in blocks])
    assert all(chain == chains[0] for chain in chains)
    assert len({s.replica.state.digest() for s in sites if s.replica.state.height == top}) == 1
    found: Counter[bytes] = Counter()
    heights = {}
    for committed in (sites[0].replica.block(height) for height in range(1, top + 1)):
        for tx in committed.block.transactions:
            SignedTransaction.decode(tx)
            found[transaction_hash(tx)] += 1
            heights[transaction_hash(tx)] = committed.block.height
    assert max(found.values()) == 1
    for tx_hash, height in load.acknowledged.items():
        assert heights.get(tx_hash, height) == height
        assert height > top or tx_hash in heights, "an acknowledged transaction is lost"


@pytest.mark.parametrize("seed", SEEDS)
def test_validators_change_under_load(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)

    async def test(swarm: Swarm) -> None:
        await swarm.grow(1)
        load = Load(swarm, rng)
        for _ in range(2):
            swarm.nursery.start_soon(load.run)
        await grow(swarm, 6)
        await swarm.at(max(site.replica.state.height for site in swarm.sites))
        assert validators(swarm.sites[0]) == 7
        first = proposer(swarm)  # in the midst of its turn
        await leave(swarm, first)
        while len(alive(swarm)) > 2:
            site = rng.choice(alive(swarm))
            # A quorum must be left to vote: with three, all of them are needed.
            if rng.random() < 0.5:
                await evict(swarm, site, rng)
            else:
                await leave(swarm, site)
        await leave(swarm, rng.choice(alive(swarm)))
        (last,) = alive(swarm)
        await last.task()
        assert validators(last) == 1
        await grow(swarm, 1)
        await load.stop()
        await swarm.at(await last.task())
        assert validators(last) == 2
        assert len(load.acknowledged) > 20
        check(swarm, load)

    run(tmp_path, test, seed=seed, loss=0.02, delay=(0.001, 0.02))


def test_a_double_vote_lands_on_the_ledger(tmp_path: Path) -> None:
    """A key that is in use twice: the second process starts with an old copy of the disk."""

    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(4)
        liar, honest = sites[3], sites[0]
        height = honest.replica.state.height + 1

        def vote(block_id: bytes) -> bytes:
            bare = msg.Vote(PREVOTE, height, 0, block_id, liar.uid, b"")
            signature = liar.identity.sign(bare.signed_bytes(swarm.genesis.chain_id))
            return msg.encode(msg.Vote(PREVOTE, height, 0, block_id, liar.uid, signature))

        liar.replica._mesh.cast("ledger", [vote(NIL), vote(b"x" * 32)])
        while not honest.replica.evidence():
            await trio.sleep(0.1)
        first, second = honest.replica.evidence()[0]
        args = {"first": first.encode(), "second": second.encode()}
        _, verdict = await honest.do("node.accuse", args)
        assert verdict.ok and verdict.result == {"uid": liar.uid, "recorded": True}
        record = honest.replica.state.get("evidence", liar.uid)
        assert record["cases"][0]["reporter"] == honest.uid
        await honest.kill()
        await honest.start()
        assert honest.replica.evidence()[0][0] == first, "it is kept on disk"

    run(tmp_path, test)


def test_strangers_cannot_evict(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)
        other = pki.authority(tmp_path / "other")
        stranger = pki.identity(tmp_path / "other", Role.SWCI, other)
        tx = sign(stranger, swarm.genesis, "node.evict", {"uid": site.uid}, 100)
        with pytest.raises(RemoteError, match="none of the trusted CAs"):
            await site.replica.submit(tx)

    run(tmp_path, test)
