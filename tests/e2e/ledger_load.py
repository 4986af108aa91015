"""Clients that write to a network of SNs without end, and what they were promised.

Each client writes a line of a task again and again, which leaves the state as large as it was. The
line is unique, so that the blocks tell afterwards whether, where and how often it was committed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.api.client import ApiClient
from swarm.errors import RemoteError
from swarm.ledger import directory
from swarm.ledger.application import LedgerApplication
from swarm.ledger.consensus.effects import WriteEvidence
from swarm.ledger.store import Store
from swarm.ledger.transaction import SignedTransaction
from tests import pki
from tests.processes import Daemon, Processes

TASK = "load"
PATIENCE = 120.0  # seconds in which a client sends one transaction again, to one node or another


@dataclass(frozen=True)
class Acknowledged:
    """What a client was told: this line is in the block of this height, and was accepted."""

    line: str
    height: int


class Load:
    """Clients in threads, each with one transaction under way; `stop` ends and joins them."""

    def __init__(self, run: Processes, ca: pki.Authority, nodes: Sequence[Daemon]) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.failures: list[str] = []
        self._news = threading.Condition()
        self._stop = threading.Event()
        # Each begins with another node, and knows all of them.
        orders = [[*nodes[k:], *nodes[:k]] for k in range(len(nodes))]
        self._clients = [run.client(ca, *order, timeout=6.0) for order in orders]
        task = {"name": TASK, "type": "RUN_SWARM", "author": "load", "prereq": "ROOTTASK"}
        self._clients[0].submit("task.create", {**task, "outcome": TASK})
        self._threads = [
            threading.Thread(target=self._work, args=pair, daemon=True)
            for pair in enumerate(self._clients)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int, client: ApiClient) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            line = f"{number}-{count}"
            args = {"task": TASK, "index": 1, "lines": [line]}
            try:
                verdict = client.submit("task.append", args, patience=PATIENCE)
            except RemoteError as fault:
                # Not acknowledged: it may be in a block or not.
                self.failures.append(f"{line}: {fault}")
                continue
            with self._news:
                self.acknowledged.append(Acknowledged(line, verdict.height))
                self._news.notify_all()

    def more(self, count: int, timeout: float = PATIENCE) -> bool:
        """Wait until so many further transactions are acknowledged."""
        with self._news:
            wanted = len(self.acknowledged) + count
            return self._news.wait_for(lambda: len(self.acknowledged) >= wanted, timeout)

    def stop(self) -> None:
        """No new ones; what is under way is waited for."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE + 10)
            assert not thread.is_alive()


@dataclass(frozen=True)
class Chain:
    """What one node has on its disk."""

    height: int
    ids: tuple[bytes, ...]  # of blocks 1, 2, …
    digests: tuple[bytes, ...]  # of the state after block 1, 2, …
    lines: dict[str, list[int]]  # by line of the load: heights of the blocks that hold it, accepted
    evidence: tuple[WriteEvidence, ...]


def open_ledger(sn: Daemon) -> tuple[Store, LedgerApplication]:
    """Open the ledger of an ended node, with all the checks that a start makes."""
    path = Path(sn.env["SWARM_DATA_DIR"])
    genesis = directory.genesis_of(path)
    assert genesis is not None
    return directory.open_store(path, genesis)


def read_chain(sn: Daemon) -> Chain:
    """Read and check all blocks that an ended node holds."""
    store, app = open_ledger(sn)
    height = app.height
    ids, digests = [], []
    lines: dict[str, list[int]] = {}
    try:
        store.audit(1, height)
        for number in range(1, height + 1):
            found = store.block(number)
            assert found is not None
            block, certificate, outcome = found
            assert certificate.block_id == block.id
            ids.append(block.id)
            digests.append(block.header.effect.state)
            for raw, verdict in zip(block.transactions, outcome.verdicts, strict=True):
                transaction = SignedTransaction.decode(raw).transaction
                if transaction.op == "task.append" and verdict.ok:
                    (line,) = transaction.args["lines"]
                    lines.setdefault(line, []).append(number)
        assert not height or digests[-1] == app.digest()
        evidence = tuple(store.evidence())
    finally:
        store.close()
    return Chain(height, tuple(ids), tuple(digests), lines, evidence)


def judge(nodes: Sequence[Daemon], load: Load) -> list[Chain]:
    """Compare what ended nodes hold with each other and with what clients were promised."""
    chains = [read_chain(sn) for sn in nodes]
    longest = max(chains, key=lambda chain: chain.height)
    for chain in chains:
        assert chain.evidence == ()
        assert chain.ids == longest.ids[: chain.height]
        assert chain.digests == longest.digests[: chain.height]
    lost = [a for a in load.acknowledged if a.line not in longest.lines]
    assert not lost
    twice = {line: heights for line, heights in longest.lines.items() if len(heights) != 1}
    assert not twice
    moved = [a for a in load.acknowledged if longest.lines[a.line] != [a.height]]
    assert not moved
    return chains


def digests(clients: Sequence[ApiClient]) -> set[tuple[int, str]]:
    """Height and digest that nodes tell."""
    return {(status["height"], status["digest"]) for status in (c.status() for c in clients)}
