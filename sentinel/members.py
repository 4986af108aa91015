"""What members have decided about each other, as this node sees it and takes part in it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import trio

from sentinel.ports import StateView
from sentinel.writer import Writer
from swarm.errors import RemoteError
from swarm.ledger.consensus.statement import Statement
from swarm.ledger.state.evictions import standing
from swarm.ledger.state.evidence import describe
from swarm.ledger.state.records import Eviction

log = logging.getLogger("swarm.node")

LOOK_EVERY = 1.0  # seconds between two looks at what was seen
TRY_AGAIN = 10.0  # seconds after a report that the ledger did not take

Proofs = Callable[[], list[tuple[Statement, Statement]]]


class Accuser:
    """Puts double votes that this node has seen on the ledger, each once."""

    def __init__(self, uid: str, state: Callable[[], StateView], proofs: Proofs, writer: Writer):
        self._uid = uid
        self._state = state
        self._proofs = proofs
        self._writer = writer
        self._told: set[tuple[str, int, int, int]] = set()

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            for first, second in self._proofs():
                if first.step not in self._told:
                    await self._accuse(first, second)
            await trio.sleep(LOOK_EVERY)

    async def _accuse(self, first: Statement, second: Statement) -> None:
        me = self._state().get("nodes", self._uid)
        if me is None or not me["active"]:
            return  # only members report: after it has joined
        if not self._known(first):
            try:
                verdict = await self._writer.submit(
                    "node.accuse", {"first": first.encode(), "second": second.encode()}
                )
            except RemoteError as fault:
                log.warning("the double vote of %s cannot be reported: %s", first.voter, fault)
                await trio.sleep(TRY_AGAIN)
                return
            if not verdict.ok:
                log.warning("the double vote of %s: %s", first.voter, verdict.text)
        self._told.add(first.step)

    def _known(self, statement: Statement) -> bool:
        record = self._state().get("evidence", statement.voter)
        cases = record["cases"] if record else ()
        steps = {(case["height"], case["round"], case["kind"]) for case in cases}
        return statement.step[1:] in steps


def log_news(state: StateView, key: str) -> None:
    """Log a change of one of the tables about members."""
    table, _, name = key.partition("/")
    record = state.get(table, name)
    if record is None:
        return
    if table == "evidence" and record["cases"]:
        told = describe(record["cases"][-1])
        log.error("evidence against %s (%s) is on the ledger: %s", record["name"], name, told)
    elif table == "evictions" and record["at"]:
        log.warning("%s; its key is barred", record["reason"])
    elif table == "evictions":
        log.warning("%s want %s out", ", ".join(sorted(record["votes"].values())), record["name"])
    elif table == "recoveries":
        log.warning(
            "at height %d the network went on without %d validators: %s (%s)",
            int(name), len(record["dropped"]), record["reason"], record["by"],
        )  # fmt: skip


def summary(state: StateView) -> dict[str, list[dict[str, Any]]]:
    """For the API's status: who is out, who shall go, against whom there is evidence."""
    evictions = state.table("evictions").values()
    return {
        "evicted": [
            {"uid": one["uid"], "name": one["name"], "reason": one["reason"]}
            for one in evictions
            if one["at"]
        ],
        "disputed": [
            {"uid": one["uid"], "name": one["name"], **standing(state, cast(Eviction, one))}
            for one in evictions
            if not one["at"]
        ],
        "evidence": [
            {"uid": uid, "name": one["name"], "cases": [describe(case) for case in one["cases"]]}
            for uid, one in state.table("evidence").items()
        ],
        "recoveries": [
            {"height": int(height), "dropped": one["dropped"], "reason": one["reason"]}
            for height, one in state.table("recoveries").items()
        ],
    }
