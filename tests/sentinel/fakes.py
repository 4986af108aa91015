"""An orderer of one node in memory, for tests of the API without consensus, mesh or disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from swarm.ledger.transaction import SignedTransaction

CHAIN = bytes(32)


@dataclass(frozen=True)
class FakeVerdict:
    ok: bool
    code: str = ""
    text: str = ""
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeHeader:
    state: bytes
    time_ms: int = 0


@dataclass(frozen=True)
class FakeBlock:
    header: FakeHeader
    transactions: tuple[bytes, ...]

    @property
    def encoded(self) -> bytes:
        return b"block:" + b"".join(self.transactions)


class FakeCertificate:
    def encode(self) -> bytes:
        return b"certificate"


@dataclass(frozen=True)
class FakeCommitted:
    block: FakeBlock
    verdicts: tuple[FakeVerdict, ...]
    changed: frozenset[str]
    certificate: FakeCertificate = FakeCertificate()  # noqa: RUF009 - it has no state


@dataclass(frozen=True)
class FakeState:
    """Tables of records; `task.create` adds a task, everything else is refused."""

    height: int = 0
    tables: Mapping[str, Mapping[str, dict[str, Any]]] = field(default_factory=dict)
    chain: bytes = CHAIN

    def digest(self) -> bytes:
        return self.height.to_bytes(32, "big")

    def get(self, table: str, key: str) -> dict[str, Any] | None:
        return self.tables.get(table, {}).get(key)

    def keys(self, table: str) -> list[str]:
        return sorted(self.tables.get(table, {}))

    def table(self, name: str) -> Mapping[str, dict[str, Any]]:
        return self.tables.get(name, {})

    def put(self, table: str, key: str, record: dict[str, Any]) -> FakeState:
        tables = {**self.tables, table: {**self.tables.get(table, {}), key: record}}
        return FakeState(self.height, tables)


class FakeLedger:
    """Commits at once, one transaction a block; `reason` set means there is no quorum."""

    def __init__(self) -> None:
        self.state = FakeState()
        self.blocks: dict[int, FakeCommitted] = {}
        self.reason = ""
        self.done: dict[bytes, tuple[int, FakeVerdict]] = {}
        self.on_block: list[Any] = []

    async def submit(self, tx: bytes) -> tuple[int, FakeVerdict]:
        signed = SignedTransaction.decode(tx)
        if self.reason:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if tx in self.done:
            return self.done[tx]
        height = self.state.height + 1
        state = FakeState(height, self.state.tables)
        args = signed.transaction.args
        if signed.transaction.op == "task.create":
            verdict = FakeVerdict(True, result={"name": args["name"], "raw": b"\x01\x02"})
            state = state.put("tasks", args["name"], {"name": args["name"], "digest": b"\xff"})
            changed = frozenset({f"tasks/{args['name']}"})
        else:
            verdict, changed = FakeVerdict(False, "SW1001", "no such operation"), frozenset()
        block = FakeBlock(FakeHeader(state.digest()), (tx,))
        self.blocks[height] = FakeCommitted(block, (verdict,), changed)
        self.state = state
        self.done[tx] = (height, verdict)
        for callback in self.on_block:
            callback()
        return height, verdict

    async def wait_for(self, height: int) -> None:
        if height > self.state.height:
            await trio.sleep_forever()

    def waiting(self) -> str:
        return self.reason

    def block(self, height: int) -> FakeCommitted | None:
        return self.blocks.get(height)
