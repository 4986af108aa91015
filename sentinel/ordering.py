"""Which orderer this node runs: the genesis says it, the settings give what it needs.

Everything for Ethereum-compatible networks is imported only when one does the ordering: its
libraries are optional, and take seconds to load.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sentinel.settings import EthereumSettings, Settings
from sentinel.threads import in_thread
from swarm.errors import LocalError
from swarm.identity import Identity
from swarm.ledger.genesis import EthereumOrder, Genesis
from swarm.ledger.orderer import Orderer
from swarm.ledger.replica import Replica
from swarm.mesh.port import MeshPort

if TYPE_CHECKING:
    from swarm.ledger.ethereum.account import Account
    from swarm.ledger.ethereum.client import Client

log = logging.getLogger("swarm.node")


async def founding_order(settings: Settings) -> EthereumOrder | None:
    """What the genesis of a new network says about its order; None for the embedded orderer.

    Raises LocalError SW5101, SW3101 to SW3107; RemoteError SW3103 when nobody answers.
    """
    given = settings.ethereum
    if given is None or not given.chosen:
        return None
    if not given.contract:
        raise LocalError("SW5101", "--orderer ethereum: --contract is missing")

    def look() -> EthereumOrder:
        from swarm.ledger.ethereum.deploy import survey

        client, account = _connect(given, None)
        try:
            return survey(client, account, given.contract, given.confirmations)
        finally:
            client.close()

    order = await in_thread(look)
    log.info(
        "network %d orders by the contract %s; confirmations until an entry is final: %d",
        order.chain_id,
        order.contract,
        order.confirmations,
    )
    return order


async def open_orderer(
    settings: Settings, genesis: Genesis, identity: Identity, mesh: MeshPort
) -> Orderer:
    """Open the ledger in the data directory. Raises LocalError."""
    check(settings.ethereum, genesis.order, settings.data_dir)
    if genesis.order is None:
        return Replica(settings.data_dir, genesis, identity, mesh)
    given, order = settings.ethereum, genesis.order
    assert given is not None, "checked"
    client, account = await in_thread(_connect, given, order.chain_id)
    from swarm.ledger.ethereum.orderer import EthereumOrderer

    return EthereumOrderer(settings.data_dir, genesis, identity, mesh, client, account)


def _connect(given: EthereumSettings, chain_id: int | None) -> tuple[Client, Account]:
    from swarm.ledger.ethereum.account import Account
    from swarm.ledger.ethereum.client import Client

    account = Account.load(given.key)
    log.info("account %s pays for this node's entries", account.address)
    return Client(given.rpc, chain_id), account


def check(given: EthereumSettings | None, order: EthereumOrder | None, data_dir: Path) -> None:
    """LocalError SW5101 when settings and genesis do not fit together."""
    if order is None:
        if given is not None:
            raise LocalError(
                "SW5101",
                f"--rpc or --orderer: the ledger in {data_dir} is ordered by its network nodes",
            )
        return
    if given is None:
        raise LocalError(
            "SW5101",
            f"network {order.chain_id} orders this ledger: --rpc and --account-key are missing",
        )
    if given.contract and given.contract != order.contract:
        raise LocalError("SW5101", f"--contract: the genesis says {order.contract}")
    if given.confirmations and given.confirmations != order.confirmations:
        raise LocalError("SW5101", f"--confirmations: the genesis says {order.confirmations}")
