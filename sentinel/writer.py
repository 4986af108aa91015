"""The network node's own transactions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import trio

from sentinel.ports import Ledger, VerdictView
from swarm.errors import RemoteError
from swarm.identity import Identity
from swarm.ledger.transaction import SignedTransaction, Transaction

log = logging.getLogger("swarm.node")

EXPIRES_AFTER = 1000  # heights
RETRY_FIRST, RETRY_MOST = 0.5, 10.0  # seconds


class Writer:
    """Signs operations with the node's certificate and submits them to its own ledger."""

    def __init__(self, identity: Identity, ledger: Ledger) -> None:
        self._identity = identity
        self._ledger = ledger

    async def submit(self, op: str, args: Mapping[str, Any]) -> VerdictView:
        """Return the verdict after the commit. Raises RemoteError when it cannot be included."""
        state = self._ledger.state
        transaction = Transaction.new(state.chain, state.height + EXPIRES_AFTER, op, args)
        signed = SignedTransaction.sign(self._identity, transaction)
        _, verdict = await self._ledger.submit(signed.encode())
        return verdict

    async def insist(self, op: str, args: Mapping[str, Any]) -> VerdictView:
        """Submit until the state machine accepts it; logs each new reason why it does not."""
        pause, told = RETRY_FIRST, ""
        while True:
            try:
                verdict = await self.submit(op, args)
                if verdict.ok:
                    return verdict
                why = f"{verdict.code}: {verdict.text}"
            except RemoteError as fault:
                why = str(fault)
            if why != told:
                log.warning("%s is refused, and tried again: %s", op, why)
                told = why
            await trio.sleep(pause)
            pause = min(2 * pause, RETRY_MOST)
