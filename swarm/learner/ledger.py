"""The learner's acts on the ledger: two threads that submit, and the contract's watch.

What decides a round is submitted by one thread in the order in which the driver asked for it;
reports go through the other, so that they delay nobody. Both try for as long as it takes, and say
why it takes long; only a verdict ends a submit.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from swarm.api.models import Verdict, VerdictError
from swarm.api.transport import Refused
from swarm.errors import RemoteError
from swarm.learner.messages import (
    Answered,
    Broken,
    Enroll,
    Enrolled,
    Event,
    LedgerChanged,
    Record,
    Submit,
)

log = logging.getLogger("swarm.learner")

PATIENCE = 15.0  # seconds that the client tries before we hear why it takes long
PAUSE = 1.0  # seconds between two tries
BARRED = "SW4015"
# Seconds for leaving in order: a stopped node must be gone within 5.
REPORTS = 1.0  # for what its program said last
LEAVE = 3.0


class WatchPort(Protocol):
    """What is used of `swarm.api.watch.Watch`."""

    records: dict[str, Record | None]
    height: int
    connected: bool
    error: str

    def on_change(self, callback: Callable[[Any], None]) -> None: ...

    def close(self) -> None: ...


class ClientPort(Protocol):
    """What is used of `swarm.api.client.ApiClient`."""

    def status(self) -> Mapping[str, Any]: ...

    def record(self, table: str, key: str, *, min_height: int = 0) -> Record | None: ...

    def submit(self, op: str, args: Mapping[str, Any], *, patience: float = ...) -> Verdict: ...

    def watch(self, keys: list[str], *, uid: str = "") -> Any: ...

    def close(self) -> None: ...


class Place:
    """Where this learner is, as it announces itself."""

    def __init__(
        self, uid: str, name: str, host: str, port: int, version: str, holder: str
    ) -> None:
        self.uid = uid
        self.bar = f"evictions/{holder}"  # the record that bars our key, should there be one
        self.name = name
        self.host = host
        self.port = port
        self.version = version

    def node(self, contract: str, parent: str) -> dict[str, Any]:
        """Arguments of node.enroll."""
        return {
            "uid_name": self.name,
            "type": "SL",
            "host": self.host,
            "port": self.port,
            "p2p": [],
            "peer_id": "",
            "parent": parent,
            "validator": False,
            "runner": "",
            "pairs": 0,
            "contract": contract,
            "version": self.version,
        }


class Ledger:
    """Submits and watches for one learner; events go to `post`."""

    def __init__(self, client: ClientPort, place: Place, post: Callable[[Event], None]) -> None:
        self._client = client
        self._place = place
        self._post = post
        self._parent = ""
        self._contract = ""
        self._watch: WatchPort | None = None
        self._was_connected = True
        self._closed = threading.Event()
        self._main: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._side: queue.Queue[Callable[[], None] | None] = queue.Queue()
        for name, jobs in (("submit", self._main), ("report", self._side)):
            threading.Thread(target=self._work, args=(jobs,), name=name, daemon=True).start()

    # ---------------------------------------------------------------- effects

    def enroll(self, effect: Enroll) -> None:
        """Enroll node and membership, and follow the contract from then on."""
        self._main.put(lambda: self._enroll(effect))

    def submit(self, effect: Submit) -> None:
        """Submit; the verdict comes as an event."""
        jobs = self._side if effect.side else self._main
        jobs.put(lambda: self._submit(effect))

    def leave(self, why: str = "") -> None:
        """Leave contract and network, if that can be done in `LEAVE` seconds; in this thread.

        Reports that are on their way go first: who has left cannot report.

        `why` is what was wrong, for the contract's record.
        """
        if not self._contract:
            return
        uid = self._place.uid
        reported = threading.Event()
        self._side.put(reported.set)
        reported.wait(REPORTS)
        try:
            args = {"contract": self._contract, "uid": uid}
            if why:
                args["why"] = why[:500]
            self._client.submit("contract.leave", args, patience=LEAVE / 2)
            self._client.submit("node.leave", {"uid": uid}, patience=LEAVE / 2)
        except RemoteError as fault:
            log.info("could not leave in order: %s", fault)

    def close(self) -> None:
        """Stop threads and watch."""
        self._closed.set()
        self._main.put(None)
        self._side.put(None)
        if self._watch is not None:
            self._watch.close()
        self._client.close()

    # ---------------------------------------------------------------- threads

    def _work(self, jobs: queue.Queue[Callable[[], None] | None]) -> None:
        while (job := jobs.get()) is not None and not self._closed.is_set():
            job()

    def _try(self, what: str, act: Callable[[], Any]) -> Any:
        """Repeat `act` until it gives a value or a verdict; None when closed meanwhile."""
        said = ""
        while not self._closed.is_set():
            try:
                return act()
            except (VerdictError, Refused):
                raise
            except RemoteError as fault:
                if str(fault) != said:
                    said = str(fault)
                    log.warning("%s: %s; trying again", what, fault)
                    self._post(LedgerChanged(None, 0, fault.cause))
            self._closed.wait(PAUSE)
        return None

    def _submit(self, effect: Submit) -> None:
        try:
            verdict = self._try(
                effect.op, lambda: self._client.submit(effect.op, effect.args, patience=PATIENCE)
            )
        except VerdictError as error:
            verdict = error.verdict
        except Refused as fault:
            self._post(Broken(fault.code, fault.cause))
            return
        if verdict is not None:
            self._post(Answered(effect.tag, verdict.ok, verdict.code, verdict.text, verdict.height))

    def _enroll(self, effect: Enroll) -> None:
        place = self._place
        try:
            self._enroll_node(effect.contract)
            args = {
                "contract": effect.contract,
                "uid": place.uid,
                "name": place.name,
                "host": place.host,
                "port": place.port,
                "rules": dict(effect.rules),
                "mode": effect.mode,
            }
            verdict = self._try(
                "contract.enroll",
                lambda: self._client.submit("contract.enroll", args, patience=PATIENCE),
            )
            if verdict is None:
                return
            record = self._try(
                "contract",
                lambda: self._client.record(
                    "contracts", effect.contract, min_height=verdict.height
                ),
            )
        except (VerdictError, Refused) as fault:
            self._post(Broken(fault.code, fault.cause))
            return
        if record is None:
            return
        log.info("enrolled in %s as %s", effect.contract, place.uid)
        self._contract = effect.contract
        self._post(Enrolled(record, verdict.height))
        if self._watch is None:
            keys = [f"contracts/{effect.contract}", place.bar]
            self._watch = self._client.watch(keys, uid=place.uid)
            self._watch.on_change(self._changed)
            self._changed(self._watch)

    def _enroll_node(self, contract: str) -> None:
        status = self._try("status", self._client.status)
        if status is None:
            return
        self._parent = str(status.get("uid", ""))
        args = self._place.node(contract, self._parent)
        self._try(
            "node.enroll", lambda: self._client.submit("node.enroll", args, patience=PATIENCE)
        )

    def _changed(self, watch: WatchPort) -> None:
        """In the watch's thread: there is news, or the stream broke or came back."""
        connected, was = watch.connected, self._was_connected
        self._was_connected = connected
        key = f"contracts/{self._contract}"
        eviction = watch.records.get(self._place.bar)
        if eviction and eviction["at"]:
            self._post(Broken(BARRED, str(eviction["reason"])))
        self._post(LedgerChanged(watch.records.get(key), watch.height, watch.error))
        if connected and not was:
            self._main.put(self._look_for_parent)

    def _look_for_parent(self) -> None:
        """After a fail-over another network node watches over us; the ledger must know which."""
        try:
            status = self._client.status()
            if status.get("uid") != self._parent:
                self._enroll_node(self._contract)
        except RemoteError as fault:
            log.info("could not announce the new network node: %s", fault)
