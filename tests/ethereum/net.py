"""Network nodes that take their order from a real Ethereum node, for tests.

The mesh among them is the in-memory double, the clock is the real one: requests to the network run
in threads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from swarm.identity import Role
from swarm.ledger import directory
from swarm.ledger.ethereum import deploy
from swarm.ledger.ethereum.account import Account
from swarm.ledger.ethereum.client import Client
from swarm.ledger.ethereum.orderer import EthereumOrderer
from swarm.ledger.genesis import EthereumOrder, Genesis
from tests import pki
from tests.ethereum.anvil import ACCOUNTS, Anvil
from tests.ledger.net import Site, Swarm, genesis_for
from tests.mesh import fake

BOUND = 240.0  # seconds for a whole test: the machine may be busy


class EthereumSite(Site):
    """A network node whose orderer is the Ethereum one."""

    swarm: EthereumSwarm

    async def start(self) -> EthereumOrderer:  # type: ignore[override]
        mesh = self.swarm.net.join(self.name, self.info())
        order = self.swarm.genesis.order
        assert order is not None
        self.client = Client(self.swarm.urls, order.chain_id, seconds=self.swarm.seconds)
        self.replica = EthereumOrderer(
            self.directory, self.swarm.genesis, self.identity, mesh, self.client, self.account
        )
        self.scope, self.ended, self.error = trio.CancelScope(), trio.Event(), None
        await self.swarm.nursery.start(self._run)
        return self.replica

    @property
    def account(self) -> Account:
        """The account that it pays with: a funded one of the test network."""
        number = self.swarm.sites.index(self)
        return Account(bytes.fromhex(ACCOUNTS[number].key))


class EthereumSwarm(Swarm):
    """All sites of a test, and the network below them."""

    node: Anvil
    urls: Sequence[str]
    confirmations = 1
    seconds = 10.0

    @property
    def genesis(self) -> Genesis:
        if self._genesis is None:
            identity = self.sites[0].identity
            made = contract(self.node, 0, bytes.fromhex(identity.fingerprint))
            order = replace(made, confirmations=self.confirmations)
            self._genesis = replace(genesis_for(identity, self.model), order=order)
        return self._genesis

    def site(self) -> Site:
        name = f"sn-{len(self.sites) + 1}"
        identity = pki.identity(self.tmp / name, Role.SN, self.ca)
        site = EthereumSite(self, name, identity, self.tmp / name / "data")
        self.sites.append(site)
        directory.create(site.directory, self.genesis, founder=len(self.sites) == 1)
        return site


def contract(node: Anvil, account: int, fingerprint: bytes = b"\1" * 32) -> EthereumOrder:
    """Deploy a contract of that account; blocks for a moment."""
    client = Client([node.url], None)
    try:
        made = deploy.deploy(client, Account(bytes.fromhex(ACCOUNTS[account].key)), fingerprint)
        return EthereumOrder(node.chain_id, made.address, made.block, 1)
    finally:
        client.close()


@asynccontextmanager
async def ethereum_swarm(
    tmp: Path,
    node: Anvil,
    *,
    urls: Sequence[str] = (),
    confirmations: int = 1,
    seconds: float = 10.0,
) -> AsyncIterator[EthereumSwarm]:
    """A swarm above a network."""
    async with fake.network() as network, trio.open_nursery() as nursery:
        made = EthereumSwarm(tmp, network, nursery, "byzantine")
        made.node, made.urls = node, urls or [node.url]
        made.confirmations, made.seconds = confirmations, seconds
        try:
            yield made
        finally:
            nursery.cancel_scope.cancel()


Test = Callable[[EthereumSwarm], Awaitable[None]]


def run(tmp: Path, node: Anvil, test: Test, **options: object) -> None:
    """Run `test` with a swarm above `node`."""

    async def main() -> None:
        with trio.fail_after(BOUND):
            async with ethereum_swarm(tmp, node, **options) as made:  # type: ignore[arg-type]
                await test(made)

    trio.run(main)
