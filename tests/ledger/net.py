"""Replicas over the in-memory mesh, with real certificates, for tests under trio's clock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from swarm.identity import Identity, Role, node_uid
from swarm.ledger.genesis import Founder, Genesis
from swarm.ledger.replica import Replica
from swarm.ledger.state import Verdict
from swarm.ledger.transaction import SignedTransaction, Transaction
from swarm.mesh.port import PeerInfo
from tests import pki
from tests.mesh import fake


def genesis_for(identity: Identity, model: str = "byzantine") -> Genesis:
    """A genesis founded by `identity`."""
    founder = Founder(
        uid=node_uid(identity.fingerprint),
        fingerprint=identity.fingerprint,
        organisation=identity.organisation,
        public_key=identity.public_key_der,
        name=identity.common_name,
        host="127.0.0.1",
        port=30304,
        p2p=(),
        peer_id="",
    )
    cas = {identity.organisation: identity.trust.ca_ders[identity.organisation]}
    return Genesis("test", model, cas, founder, int(time.time() * 1000), b"n" * 16)


def sign(
    identity: Identity, genesis: Genesis, op: str, args: dict[str, Any], expires: int
) -> bytes:
    """An encoded, signed transaction."""
    made = Transaction.new(genesis.chain_id, expires, op, args)
    return SignedTransaction.sign(identity, made).encode()


class Site:
    """One network node: identity, directory and the running replica."""

    def __init__(self, swarm: Swarm, name: str, identity: Identity, directory: Path) -> None:
        self.swarm = swarm
        self.name = name
        self.identity = identity
        self.uid = node_uid(identity.fingerprint)
        self.directory = directory
        self.replica: Any = None
        self.scope = trio.CancelScope()
        self.error: BaseException | None = None
        self.ended = trio.Event()
        self.number = 0

    def info(self) -> PeerInfo:
        i = self.identity
        return PeerInfo(f"peer-{self.name}", self.uid, i.fingerprint, i.organisation, i.common_name)

    async def start(self) -> Replica:
        mesh = self.swarm.net.join(self.name, self.info())
        self.replica = Replica(self.directory, self.swarm.genesis, self.identity, mesh)
        self.scope, self.ended, self.error = trio.CancelScope(), trio.Event(), None
        await self.swarm.nursery.start(self._run)
        assert isinstance(self.replica, Replica)
        return self.replica

    async def _run(self, task_status: Any) -> None:
        with self.scope:
            try:
                await self.replica.run(task_status=task_status)
            except Exception as error:
                self.error = error
        self.ended.set()

    async def kill(self) -> None:
        """Stop at once, as a crash does: nothing is written that was not written before."""
        self.scope.cancel()
        await self.ended.wait()
        self.swarm.net.crash(self.name)

    def transaction(self, op: str, args: dict[str, Any], *, expires: int = 0) -> bytes:
        expires = expires or self.replica.state.height + 500
        return sign(self.identity, self.swarm.genesis, op, args, expires)

    async def do(self, op: str, args: dict[str, Any]) -> tuple[int, Verdict]:
        """Submit here and wait."""
        height, verdict = await self.replica.submit(self.transaction(op, args))
        assert isinstance(verdict, Verdict)
        return height, verdict

    async def task(self) -> int:
        """One harmless transaction; the height it was committed at."""
        self.number += 1
        name = f"{self.name}-{self.number}"
        height, verdict = await self.replica.submit(self.swarm.new_task(name))
        assert verdict.ok, verdict.text
        assert isinstance(height, int)
        return height

    async def enroll(self) -> Verdict:
        args = {
            "uid_name": "", "type": "SN", "host": "127.0.0.1", "port": 30304, "p2p": [],
            "peer_id": "", "parent": "", "validator": True, "runner": "",
            "pairs": 0, "contract": "", "name": self.name, "version": "",
        }  # fmt: skip
        return (await self.do("node.enroll", args))[1]


class Swarm:
    """All sites of a test."""

    def __init__(self, tmp: Path, net: fake.FakeNet, nursery: trio.Nursery, model: str) -> None:
        self.tmp = tmp
        self.net = net
        self.nursery = nursery
        self.ca = pki.authority(tmp)
        self.operator = pki.identity(tmp / "operator", Role.SWCI, self.ca)
        self.sites: list[Site] = []
        self.model = model
        self._genesis: Genesis | None = None

    def new_task(self, name: str) -> bytes:
        """A transaction of the swarm's operator."""
        height = max(site.replica.state.height for site in self.sites if site.replica)
        return sign(
            self.operator,
            self.genesis,
            "task.create",
            {
                "name": name,
                "type": "RUN_SWARM",
                "author": "A",
                "prereq": "ROOTTASK",
                "outcome": "o",
            },
            height + 500,
        )

    @property
    def genesis(self) -> Genesis:
        if self._genesis is None:
            self._genesis = genesis_for(self.sites[0].identity, self.model)
        return self._genesis

    def site(self) -> Site:
        """A new site, not started; the first one founds the swarm."""
        name = f"sn-{len(self.sites) + 1}"
        identity = pki.identity(self.tmp / name, Role.SN, self.ca)
        site = Site(self, name, identity, self.tmp / name / "data")
        self.sites.append(site)
        Replica.create(site.directory, self.genesis, founder=len(self.sites) == 1)
        return site

    async def grow(self, count: int) -> list[Site]:
        """Sites that are all validators."""
        for _ in range(count):
            site = self.site()
            await site.start()
            if len(self.sites) > 1:
                await self.net.connected()
                await site.replica.synced.wait()
                verdict = await site.enroll()
                assert verdict.ok, verdict.text
        top = max(site.replica.state.height for site in self.sites)
        await self.at(top)
        return self.sites

    async def at(self, height: int) -> None:
        """Wait until every running site has that height."""
        for site in self.sites:
            if not site.ended.is_set():
                await site.replica.wait_for(height)


@asynccontextmanager
async def swarm(tmp: Path, *, model: str = "byzantine", **net: Any) -> AsyncIterator[Swarm]:
    """A swarm on an in-memory mesh."""
    async with fake.network(**net) as network, trio.open_nursery() as nursery:
        made = Swarm(tmp, network, nursery, model)
        try:
            yield made
        finally:
            nursery.cancel_scope.cancel()
