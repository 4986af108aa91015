"""What a network node looks after, second by second."""

from __future__ import annotations

import logging

import trio

from sentinel.late_mesh import LateMesh
from sentinel.lost import Loss, LostRule
from sentinel.ports import Ledger
from sentinel.presence import Presence
from sentinel.waiting import WaitLog
from sentinel.writer import Writer
from swarm.errors import RemoteError
from swarm.identity import Identity

log = logging.getLogger("swarm.node")

TICK = 1.0  # seconds
MAX_BUSY = 64  # own transactions under way


class Housekeeper:
    """Reports lost learners, votes for new CAs, tells of waits."""

    def __init__(
        self,
        identity: Identity,
        uid: str,
        ledger: Ledger,
        writer: Writer,
        presence: Presence,
        mesh: LateMesh,
    ) -> None:
        self._identity = identity
        self._uid = uid
        self._ledger = ledger
        self._writer = writer
        self._presence = presence
        self._mesh = mesh
        self._busy: set[object] = set()  # what is being written to the ledger now

    async def run(self) -> None:
        """Run until cancelled."""
        rule = LostRule(self._uid, trio.current_time)
        waits = WaitLog(trio.current_time)
        async with trio.open_nursery() as nursery:
            while True:
                self._look_for_losses(rule, nursery)
                self._tell_waits(waits)
                self._vote_for_cas(nursery)
                await trio.sleep(TICK)

    def _look_for_losses(self, rule: LostRule, nursery: trio.Nursery) -> None:
        state = self._ledger.state
        for loss in rule.overdue(
            state.table("contracts"),
            state.table("nodes"),
            self._presence.ages(),
            self._mesh.last_seen,
        ):
            key = (loss.contract, loss.uid)
            if key not in self._busy and len(self._busy) < MAX_BUSY:
                self._busy.add(key)
                nursery.start_soon(self._report, loss, key)

    async def _report(self, loss: Loss, key: tuple[str, str]) -> None:
        try:
            node = self._ledger.state.get("nodes", loss.uid)
            name = node["name"] if node else loss.uid
            log.info("%s: reporting %s lost: %s", loss.contract, name, loss.reason)
            verdict = await self._writer.submit("round.lost", loss._asdict())
            if not verdict.ok:
                log.info("%s: report of %s: %s", loss.contract, loss.uid, verdict.text)
        except RemoteError as fault:
            log.warning("%s: %s cannot be reported: %s", loss.contract, loss.uid, fault)
        finally:
            self._busy.discard(key)

    def _vote_for_cas(self, nursery: trio.Nursery) -> None:
        """Vote for every CA that this node trusts and the ledger has not admitted."""
        state = self._ledger.state
        me = state.get("nodes", self._uid)
        if me is None or not me["validator"]:
            return
        known = state.table("cas")
        for fingerprint, der in self._identity.trust.ca_ders.items():
            record = known.get(fingerprint)
            if record is not None and (record["admitted"] or self._uid in record["votes"]):
                continue
            if fingerprint not in self._busy:
                self._busy.add(fingerprint)
                nursery.start_soon(self._vote, fingerprint, der)

    async def _vote(self, fingerprint: str, der: bytes) -> None:
        try:
            verdict = await self._writer.submit("ca.admit", {"der": der})
            if verdict.ok:
                done = "is admitted" if verdict.result.get("admitted") else "has our vote"
                log.info("CA %s %s", fingerprint[:16], done)
            else:
                log.warning("CA %s: %s", fingerprint[:16], verdict.text)
        except RemoteError as fault:
            log.warning("CA %s: %s", fingerprint[:16], fault)
        finally:
            self._busy.discard(fingerprint)

    def _tell_waits(self, waits: WaitLog) -> None:
        state = self._ledger.state
        reasons = {"ledger": self._ledger.waiting()}
        for table in ("contracts", "taskrunners"):
            for name, record in state.table(table).items():
                reasons[name] = record["waiting"]
        waits.look(reasons)
