"""Client of the network nodes' API: synchronous, thread-safe, fails over between SNs.

An `ApiClient` starts with the SNs it is given and learns the others from the ledger's nodes table.
Each request goes to the SN that answered last; when that one is gone, the next is asked. Reads are
therefore answered while any SN lives.

A transaction is signed once and its bytes never change, so sending it again, to the same or to
another SN, can commit it only once: its id is used up by the first time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from swarm.api.models import (
    EXPIRES_AFTER,
    Endpoint,
    Record,
    Verdict,
    VerdictError,
    known_code,
    verdict_of,
)
from swarm.api.transport import Answer, Refused, Transport, Unreachable, code_of
from swarm.api.watch import Watch
from swarm.errors import RemoteError
from swarm.identity import Identity
from swarm.ledger.transaction import SignedTransaction, Transaction

log = logging.getLogger("swarm.api")

LEARN_EVERY = 30.0  # seconds between two looks for further SNs
MAX_ENDPOINTS = 32
SUBMIT_PATIENCE = 60.0  # seconds in which `submit` tries again by itself
PAUSE_FIRST, PAUSE_MOST = 0.1, 2.0  # seconds between two rounds through all SNs
TELL_EVERY = 5.0  # seconds between two reports that a request waits
TOO_MANY = 429  # we ask for more than our share of that SN
_BUSY = (503, TOO_MANY)
NOT_INCLUDABLE = "SW3006"  # expired, of another network, or its id is used up


class ApiClient:
    """One member's view of the network; see the module's text.

    `endpoints` are (host, port) of SNs, `timeout` is in seconds for one exchange. Every method may
    raise RemoteError: SW5001 no SN answers, SW5002 our certificate is refused, SW5003 the server
    is not an SN that we trust, SW5004 a strange answer, SW5006 the request itself is refused,
    SW2012 the SN is of a version that speaks another protocol.

    When all SNs say that we ask for more than our share (status 429), requests wait for as long as
    they were told and are sent again; `on_wait` then hears why, each `TELL_EVERY` seconds at most.
    """

    def __init__(
        self,
        identity: Identity,
        endpoints: Sequence[tuple[str, int]],
        *,
        timeout: float = 10.0,
        learn: bool = True,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        if not endpoints:
            raise ValueError("an ApiClient needs at least one endpoint")
        self._identity = identity
        self._timeout = timeout
        self._learn = learn
        self._lock = threading.Lock()
        self._transports: dict[Endpoint, Transport] = {}
        self._first: Endpoint = Endpoint(*endpoints[0])
        self._learn_at = 0.0
        self._chain = b""
        self._height = 0
        self._watches: list[Watch] = []
        self._closed = threading.Event()
        self._on_wait = on_wait
        self._told_at = float("-inf")
        for endpoint in endpoints:
            self._add(Endpoint(*endpoint))

    # ------------------------------------------------------------------ reads

    def is_up(self) -> bool:
        """Tell whether some SN answers; raises only when it does not talk to us at all."""
        try:
            return self._get("/is_up").status == 200
        except Refused:
            raise
        except RemoteError as fault:
            log.debug("is_up: %s", fault)
            return False

    def wait_up(
        self,
        timeout: float | None = None,
        on_wait: Callable[[str], None] | None = None,
        every: float = 5.0,
    ) -> bool:
        """Wait until an SN answers; `on_wait` hears the reason at once and each `every` seconds.

        Returns False after `timeout` seconds (None: never) or when the client is closed. Raises
        when it does not talk to us at all: for our certificate, or its version.
        """
        end = None if timeout is None else time.monotonic() + timeout
        tell_at = 0.0
        while not self._closed.is_set():
            try:
                self._get("/is_up")
                return True
            except Refused:
                raise
            except RemoteError as fault:
                now = time.monotonic()
                if on_wait and now >= tell_at:
                    on_wait(fault.cause)
                    tell_at = now + every
                if end is not None and now >= end:
                    return False
            self._closed.wait(0.5)
        return False

    def version(self) -> Record:
        """Return {version, protocol} of the SN."""
        return self._object("/v1/version")

    def status(self) -> Record:
        """Return the SN's status: height, digest, validators, peers, what it waits for."""
        status = self._object("/v1/status")
        try:
            chain, height = bytes.fromhex(status["chain"]), int(status["height"])
        except (KeyError, TypeError, ValueError, OverflowError) as fault:
            raise RemoteError("SW5004", f"status without chain or height: {fault!r}") from fault
        self._height = max(self._height, height) if chain == self._chain else height
        self._chain = chain
        return status

    def presence(self) -> dict[str, float]:
        """Return uid -> seconds since the network last heard of that node."""
        path = "/v1/presence"
        try:
            return {uid: float(age) for uid, age in self._object(path).items()}
        except (TypeError, ValueError, OverflowError) as fault:
            raise RemoteError("SW5004", f"{path}: an age is no number: {fault!r}") from fault

    def table(self, name: str, *, min_height: int = 0) -> dict[str, Record]:
        """Return all records of a table of the state."""
        path = f"/v1/state/{quote(name, safe='')}" + _query(min_height)
        answer = self._object(path)
        records = answer.get("records")
        if not isinstance(records, dict):
            raise RemoteError("SW5004", f"{path}: no records in the answer")
        return records

    def record(self, table: str, key: str, *, min_height: int = 0) -> Record | None:
        """Return one record, None when there is none.

        With `min_height`, the answering SN has applied at least that height.
        """
        path = f"/v1/state/{quote(table, safe='')}/{quote(key, safe='')}" + _query(min_height)
        answer = self._get(path, accept=(200, 404))
        if answer.status == 404:
            return None
        record = answer.value.get("record") if isinstance(answer.value, dict) else None
        if not isinstance(record, dict):
            raise RemoteError("SW5004", f"{path}: no record in the answer")
        return record

    # ----------------------------------------------------------------- writes

    def submit(
        self, op: str, args: Mapping[str, Any], *, patience: float = SUBMIT_PATIENCE
    ) -> Verdict:
        """Sign and submit one operation, and return its verdict once it is committed.

        The same bytes are sent again, to each SN in turn, for `patience` seconds. Raises
        VerdictError when the state machine refuses the operation; RemoteError SW5005 when the SNs
        have no quorum for so long; SW5001 when none answers.
        """
        end = time.monotonic() + patience
        answer = self._post(self._signed(op, args), end)
        if answer.status == 400 and code_of(answer) == NOT_INCLUDABLE:
            # Our idea of the height, or of the network, was stale. When nothing had been sent
            # before, a new transaction cannot do the work twice; nor on another ledger, where
            # nothing of this one counts.
            chain = self._chain
            self.status()
            if not answer.repeated or self._chain != chain:
                answer = self._post(self._signed(op, args), end)
        if answer.status == 200:
            return self._verdict(op, answer)
        raise RemoteError(known_code(code_of(answer), "SW5006"), f"{op}: {answer.text}")

    def _signed(self, op: str, args: Mapping[str, Any]) -> bytes:
        if not self._chain:
            self.status()
        transaction = Transaction.new(self._chain, self._height + EXPIRES_AFTER, op, args)
        return SignedTransaction.sign(self._identity, transaction).encode()

    def _post(self, body: bytes, end: float) -> Answer:
        """Post the same bytes until an SN has judged them or `end` has passed."""
        pause = PAUSE_FIRST
        repeated = False
        while True:
            wait = max(1.0, min(self._timeout - 2.0, end - time.monotonic()))
            try:
                answer = self._request(
                    "POST",
                    f"/v1/transactions?wait={wait:.1f}",
                    body=body,
                    headers={"Content-Type": "application/cbor"},
                    timeout=wait + 2.0,
                )
            except Refused:
                raise
            except Unreachable:
                if time.monotonic() + pause >= end:
                    raise
            else:
                if answer.status not in _BUSY:
                    return answer._replace(repeated=repeated or answer.repeated)
                pause = max(pause, answer.retry_after)
                if time.monotonic() + pause >= end:
                    crowded = answer.status == TOO_MANY
                    raise RemoteError("SW5009" if crowded else "SW5005", answer.text)
                if answer.status == TOO_MANY:
                    self._tell(answer.text)
            repeated = True
            if self._closed.wait(pause):
                raise RemoteError("SW5001", "the client was closed meanwhile")
            pause = min(2 * pause, PAUSE_MOST)

    def _verdict(self, op: str, answer: Answer) -> Verdict:
        try:
            verdict = verdict_of(answer.value)
        except (KeyError, TypeError, ValueError) as fault:
            raise RemoteError("SW5004", f"{op}: malformed verdict ({fault!r})") from fault
        self._height = max(self._height, verdict.height)
        if not verdict.ok:
            raise VerdictError(op, verdict)
        return verdict

    # ----------------------------------------------------------------- events

    def watch(self, keys: Sequence[str], *, uid: str = "", start_over: bool = False) -> Watch:
        """Follow records ("contracts/x", …) in a background thread.

        With `uid`, the open stream is also this node's sign of life. With `start_over` it goes on
        with another ledger when this one is lost for ever.
        """
        watch = Watch(self._streams, keys, uid, start_over=start_over)
        self._watches = [*(w for w in self._watches if w.alive), watch]
        watch.start()
        return watch

    def audit(self) -> None:
        """End the connections to SNs whose certificates are no longer good."""
        for transport in self._all():
            transport.audit()

    def close(self) -> None:
        """Close all watches and connections."""
        self._closed.set()
        for watch in self._watches:
            watch.close()
        for transport in self._all():
            transport.close()

    # -------------------------------------------------------------- fail-over

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The SNs known so far, the preferred one first."""
        return tuple(transport.endpoint for transport in self._all())

    def _streams(self) -> Iterator[Transport]:
        """Give the SNs in the order in which a watch shall try them."""
        self._maybe_learn()
        yield from self._all()

    def _add(self, endpoint: Endpoint) -> None:
        with self._lock:
            if endpoint not in self._transports and len(self._transports) < MAX_ENDPOINTS:
                self._transports[endpoint] = Transport(self._identity, endpoint, self._timeout)

    def _all(self) -> list[Transport]:
        with self._lock:
            first = self._transports[self._first]
            return [first, *(t for t in self._transports.values() if t is not first)]

    def _tell(self, why: str) -> None:
        """Say why a request waits, now and then."""
        now = time.monotonic()
        if now - self._told_at < TELL_EVERY:
            return
        self._told_at = now
        log.info("the network nodes ask for patience: %s", why)
        if self._on_wait is not None:
            self._on_wait(why)

    def _get(self, path: str, accept: tuple[int, ...] = (200,)) -> Answer:
        answer = self._request("GET", path)
        end = time.monotonic() + SUBMIT_PATIENCE
        while answer.status == TOO_MANY and time.monotonic() + answer.retry_after < end:
            self._tell(answer.text)
            if self._closed.wait(max(PAUSE_FIRST, answer.retry_after)):
                raise RemoteError("SW5001", "the client was closed meanwhile")
            answer = self._request("GET", path)
        if answer.status in accept:
            return answer
        raise RemoteError(known_code(code_of(answer), "SW5006"), f"{path}: {answer.text}")

    def _object(self, path: str) -> Record:
        answer = self._get(path)
        if not isinstance(answer.value, dict):
            raise RemoteError("SW5004", f"{path}: the answer is not a JSON object")
        return answer.value

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Ask one SN after the other; "busy" counts as an answer only when nobody has a better one.

        When all fail, the most telling failure is raised: a refused certificate first.
        """
        faults: list[RemoteError] = []
        busy: Answer | None = None
        for transport in self._all():
            try:
                answer = transport.exchange(
                    method, path, body=body, headers=headers, timeout=timeout
                )
            except RemoteError as fault:
                faults.append(fault)
                continue
            if answer.status in _BUSY:
                busy = busy or answer
                continue
            self._first = transport.endpoint
            if path != _NODES:
                self._maybe_learn()
            return answer._replace(repeated=True) if faults or busy else answer
        if busy is not None:
            return busy
        raise _most_telling(faults)

    def _maybe_learn(self) -> None:
        """Look into the nodes table for further SNs, now and then."""
        now = time.monotonic()
        with self._lock:
            if not self._learn or now < self._learn_at:
                return
            self._learn_at = now + LEARN_EVERY
        try:
            records = self._object(_NODES).get("records", {})
            for record in records.values():
                if record["type"] in ("SN", "SENTINEL") and record["active"] and record["host"]:
                    self._add(Endpoint(str(record["host"]), int(record["port"])))
        except (
            RemoteError, AttributeError, KeyError, TypeError, ValueError, OverflowError,
        ) as fault:  # fmt: skip
            log.debug("no further SNs learnt: %s", fault)


_NODES = "/v1/state/nodes"


def _query(min_height: int) -> str:
    return "?" + urlencode({"min_height": min_height}) if min_height else ""


def _most_telling(faults: Sequence[RemoteError]) -> RemoteError:
    for fault in faults:
        if isinstance(fault, Refused):
            return fault
    if len(faults) == 1:
        return faults[0]
    for fault in faults:
        if not isinstance(fault, Unreachable):
            return fault
    return Unreachable("SW5001", "no network node answers: " + "; ".join(f.cause for f in faults))
