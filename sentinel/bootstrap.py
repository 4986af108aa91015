"""How a network begins, and how a node finds it.

The first node makes the genesis. Any later one asks a running node, the sentinel or another, for
the genesis and for the peers' addresses, over HTTPS and with its own certificate; what it gets is
checked by hash, and by the certificates of the blocks that it fetches afterwards.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from sentinel.settings import Settings
from sentinel.threads import in_thread
from sentinel.version import VERSION
from swarm.api.models import Endpoint
from swarm.api.transport import OtherProtocol, Transport, code_of
from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, node_uid
from swarm.ledger.genesis import EthereumOrder, Founder, Genesis
from swarm.ledger.recovery import Name
from swarm.ledger.state.evictions import BARRED
from swarm.ledger.state.recoveries import MAX_RECOVERIES

log = logging.getLogger("swarm.node")

CHAIN_NAME = "swarm"
TELL_EVERY = 5.0  # seconds between two log lines while the sentinel does not answer
PAUSE_FIRST, PAUSE_MOST = 0.25, 2.0  # seconds between two attempts
MAX_PEERS = 64


@dataclass(frozen=True)
class Origin:
    """What a node starts from."""

    genesis: Genesis
    peers: tuple[tuple[str, tuple[str, ...]], ...] = ()  # peer id and its multiaddresses
    recoveries: tuple[Name, ...] = ()  # which the node has accepted that we join through


def found(settings: Settings, identity: Identity, order: EthereumOrder | None = None) -> Genesis:
    """Make the genesis of a new network, with this node as its first validator.

    `order`: the Ethereum-compatible network that gives the ledger its order, if one does.
    """
    founder = Founder(
        uid=node_uid(identity.fingerprint),
        fingerprint=identity.fingerprint,
        organisation=identity.organisation,
        public_key=identity.public_key_der,
        name=settings.name,
        host=settings.host,
        port=settings.api_announced,
        p2p=(settings.announced,),
        peer_id="",  # told by node.enroll, once the mesh is up
        version=VERSION,
        holder=identity.holder if identity.holder != identity.fingerprint else "",
    )
    return Genesis(
        chain_name=CHAIN_NAME,
        fault_model=settings.fault_model,
        cas=identity.trust.ca_ders,
        founder=founder,
        created_ms=int(time.time() * 1000),
        nonce=os.urandom(16),
        order=order,
    )


async def join(settings: Settings, identity: Identity, say: Callable[[str], None]) -> Origin:
    """Ask the sentinel until it answers. Raises LocalError SW4015 when this node was evicted;
    nothing else ends it.

    `say` hears at once, and each 5 s, why it has no answer yet.
    """
    endpoint = Endpoint(settings.sentinel_host, settings.sentinel_port)
    transport = Transport(identity, endpoint, timeout=15.0)
    pause, tell_at, told = PAUSE_FIRST, 0.0, ""
    try:
        while True:
            try:
                return await in_thread(_ask, transport)
            except RemoteError as fault:
                now = trio.current_time()
                if now >= tell_at or fault.cause != told:
                    say(f"waiting for the sentinel's API at {endpoint}: {fault}")
                    tell_at, told = now + TELL_EVERY, fault.cause
            await trio.sleep(pause)
            pause = min(2 * pause, PAUSE_MOST)
    finally:
        transport.close()


def _ask(transport: Transport) -> Origin:
    try:
        answer = transport.exchange("GET", "/v1/bootstrap")
    except OtherProtocol as fault:
        raise LocalError(fault.code, fault.cause) from fault
    except RemoteError as fault:
        if fault.code == BARRED:
            raise LocalError(BARRED, fault.cause) from fault
        raise
    if answer.status != 200:
        why = answer.text or f"status {answer.status}"
        raise RemoteError("SW5004" if not code_of(answer) else "SW5006", why)
    return read_origin(answer.value)


def read_origin(value: Any) -> Origin:
    """Check the answer of `/v1/bootstrap`. Raises RemoteError SW5004, SW3003 or SW3031."""
    try:
        chain = bytes.fromhex(value["chain"])
        genesis = Genesis.decode(base64.b64decode(value["genesis"], validate=True))
        peers = [
            (_texts([p["peer_id"]])[0], _texts(p["addresses"])) for p in value["peers"][:MAX_PEERS]
        ]
        names = _texts(value.get("recoveries", []), MAX_RECOVERIES)
        recoveries = tuple(Name.parse(name) for name in names)
    except (KeyError, TypeError, ValueError, binascii.Error) as fault:
        raise RemoteError("SW5004", f"malformed bootstrap answer ({fault!r})") from fault
    if genesis.chain_id != chain:
        raise RemoteError("SW5004", "the genesis does not fit the chain id beside it")
    return Origin(genesis, tuple(peers), recoveries)


def write_origin(
    genesis: Genesis,
    peers: Sequence[tuple[str, Sequence[str]]],
    recoveries: Sequence[Name] = (),
) -> dict[str, Any]:
    """Return the answer of `/v1/bootstrap`."""
    return {
        "chain": genesis.chain_id,
        "genesis": base64.b64encode(genesis.encode()).decode(),
        "peers": [
            {"peer_id": peer_id, "addresses": list(addresses)}
            for peer_id, addresses in peers[:MAX_PEERS]
            if peer_id
        ],
        "recoveries": [str(name) for name in recoveries[:MAX_RECOVERIES]],
    }


def _texts(value: Any, most: int = 16) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("not a list of texts")
    return tuple(value[:most])
