"""The log as a node holds it, whoever orders it: clients wait for it, readers read it.

`Log` is what both orderers share: the store with the state above it, those who wait for a
transaction, those who are told of commits, and the one failure that ends it all.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

import trio

from swarm.errors import LocalError, RemoteError
from swarm.ledger.application import LedgerApplication, Ticket
from swarm.ledger.consensus import effects as fx
from swarm.ledger.orderer import CommittedBlock, OnCommit
from swarm.ledger.state import State, Verdict
from swarm.ledger.store import RECENT, Store

log = logging.getLogger("swarm.ledger")

AUDIT_SLICE = 100  # old blocks checked at a time after the start

Result = tuple[int, Verdict] | RemoteError


class _Waiter:
    """A client that waits for its transaction."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.result: Result | None = None

    def settle(self, result: Result) -> None:
        self.result = result
        self.done.set()


class Log(ABC):
    """The half of an `Orderer` that does not depend on who gives the order."""

    def __init__(self, store: Store, app: LedgerApplication) -> None:
        self.synced = trio.Event()
        self._store = store
        self._app = app
        self._failure: LocalError | None = None
        self._waiters: dict[bytes, list[_Waiter]] = {}
        self._callbacks: list[OnCommit] = []
        self._committed = trio.Event()

    # ------------------------------------------------------------------ for the rest of the node

    @property
    def state(self) -> State:
        """The state after the last block that is durable here."""
        return self._app.state

    async def submit(self, tx: bytes) -> tuple[int, Verdict]:
        """See `Orderer.submit`."""
        if self._failure is not None:
            raise RemoteError("SW3008", self._stopped())
        ticket = self._app.identify(tx)
        waiter = _Waiter()
        waiting = self._waiters.setdefault(ticket.id, [])
        waiting.append(waiter)
        try:
            found = self._included(tx, ticket.id)
            if found is not None:
                return self._verdict_at(*found)
            if len(waiting) == 1:
                self._accept(ticket, tx)
            await waiter.done.wait()
        finally:
            waiting.remove(waiter)
            if not waiting:
                self._waiters.pop(ticket.id, None)
        if isinstance(waiter.result, RemoteError):
            raise waiter.result
        assert waiter.result is not None, "settled"
        return waiter.result

    async def wait_for(self, height: int) -> None:
        """See `Orderer.wait_for`."""
        while self._app.height < height:
            await self._committed.wait()

    def block(self, height: int) -> CommittedBlock | None:
        """See `Orderer.block`."""
        found = self._store.block(height)
        if found is None:
            return None
        block, certificate, outcome = found
        return CommittedBlock(block, certificate, outcome.verdicts, outcome.changed)

    def on_commit(self, callback: OnCommit) -> None:
        """See `Orderer.on_commit`."""
        self._callbacks.append(callback)

    # ------------------------------------------------------------------ for those that order

    @abstractmethod
    def _accept(self, ticket: Ticket, tx: bytes) -> None:
        """Take a transaction that could be in the next block, and that nobody here waits for yet.

        Raises RemoteError SW3007 when too many wait.
        """

    @abstractmethod
    def _halt(self) -> None:
        """Have `run` end: there is a failure."""

    def _included(self, tx: bytes, tx_id: bytes) -> tuple[int, int] | None:
        """Height and position if it was committed before. Looks on the disk only when it may be."""
        try:
            self._app.check(tx)
        except RemoteError as error:
            found = self._store.find(tx_id)
            if found is None:
                raise error
            return found
        return None

    def _verdict_at(self, height: int, position: int) -> tuple[int, Verdict]:
        found = self._store.block(height)
        assert found is not None, "the index names committed blocks only"
        return height, found[2].verdicts[position]

    def _answer(self, tx_id: bytes, result: Result) -> None:
        """Tell all clients that wait for it."""
        for waiter in self._waiters.get(tx_id, ()):
            waiter.settle(result)

    def _advance(self, commit: fx.Commit) -> None:
        """A block is durable: it is the last one from now on, and its clients have their answer."""
        assert isinstance(commit.application, LedgerApplication), "the store was given one"
        self._app = commit.application
        for tx_id, verdict in zip(commit.ids, commit.outcome.verdicts, strict=True):
            self._answer(tx_id, (commit.block.height, verdict))

    def _announce(self, commit: fx.Commit) -> None:
        """Tell those who wait for heights, and those who want to know of each block."""
        self._committed.set()
        self._committed = trio.Event()
        verdicts, changed = commit.outcome
        committed = CommittedBlock(commit.block, commit.certificate, verdicts, changed)
        for callback in self._callbacks:
            callback(committed, self._app.state)

    def _fail(self, error: LocalError) -> None:
        """Going on would be wrong. The first failure is the one that counts."""
        if self._failure is None:
            self._failure = error
            log.critical("%s", error)
        self._halt()

    def _stopped(self) -> str:
        assert self._failure is not None, "asked by those who have looked"
        return f"this node has stopped: {self._failure.cause}"

    def _close(self) -> None:
        """The end: nobody is left waiting."""
        self._failure = self._failure or LocalError("SW3008", "this node is going down")
        for tx_id in list(self._waiters):
            self._answer(tx_id, RemoteError("SW3008", self._failure.cause))
        self._store.close()

    async def _audit(self) -> None:
        """Check the blocks that opening left out, a few at a time."""
        last = self._app.height - RECENT
        for first in range(1, last + 1, AUDIT_SLICE):
            try:
                self._store.audit(first, min(first + AUDIT_SLICE - 1, last))
            except LocalError as error:
                self._fail(error)
                return
            await trio.sleep(0.05)
