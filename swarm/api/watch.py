"""Follow records of the state through an SN's event stream.

A watch is a thread that keeps one stream open: a snapshot of the records first, then each change.
When the stream ends or falls silent (the SN sends a comment each 5 s), it goes to the next SN and
asks that one for a snapshot at least as new as what it has seen, so `height` never goes back.

A ledger may be lost for ever, and founded anew by SNs at the same addresses: its heights begin
again, and its records have nothing to do with those before. An SN of another chain is therefore
passed over, and said to be one. A watch with `start_over` goes to that chain when for a while no SN
of its own has been found; `chain` then tells its owner.
"""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from swarm.api.models import Record
from swarm.api.transport import EventStream, Transport
from swarm.errors import RemoteError

log = logging.getLogger("swarm.api")

MAX_EVENT = 16 << 20  # bytes
SILENCE = 15.0  # seconds without a byte after which the SN counts as gone
PAUSE_FIRST, PAUSE_MOST = 0.1, 2.0  # seconds between two rounds through all SNs
ANSWERED = "SW5004"  # an answer that is no stream
START_OVER = 8.0  # seconds without an SN of our chain, after which another one's is followed


class Watch:
    """Latest records for some keys ("table/id"); None where there is no such record.

    `connected` tells whether a stream is open now, `error` why not (one sentence, "" when it is).
    """

    def __init__(
        self,
        transports: Callable[[], Iterable[Transport]],
        keys: Sequence[str],
        uid: str,
        *,
        start_over: bool = False,
    ) -> None:
        self.records: dict[str, Record | None] = dict.fromkeys(keys)
        self.height = 0
        self.chain = ""  # of the ledger that is followed, in hexadecimal
        self.connected = False
        self.error = "not connected yet"
        self._transports = transports
        self._keys = tuple(keys)
        self._uid = uid
        self._start_over = start_over
        self._strange_since: float | None = None  # only SNs of another chain were found, since then
        self._take_any = False
        self._changed = threading.Condition()
        self._callbacks: list[Callable[[Watch], None]] = []
        self._stream: EventStream | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Start following; `ApiClient.watch` has done it."""
        self._thread.start()

    def on_change(self, callback: Callable[[Watch], None]) -> None:
        """Call `callback` in the watch's thread after each change of records or connection."""
        self._callbacks.append(callback)

    def wait(self, predicate: Callable[[Watch], bool], timeout: float | None) -> bool:
        """Wait until `predicate(self)` holds; False after `timeout` seconds or on close."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not predicate(self):
                left = None if end is None else end - time.monotonic()
                if self._closed.is_set() or (left is not None and left <= 0):
                    return False
                self._changed.wait(left)
            return True

    @property
    def alive(self) -> bool:
        """Whether it is still following."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop following; returns when the thread has ended."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.abort()
        with self._changed:
            self.connected, self.error = False, "closed"
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    # ----------------------------------------------------------- in the thread

    def _run(self) -> None:
        pause = PAUSE_FIRST
        while not self._closed.is_set():
            for transport in self._transports():
                if self._follow(transport):
                    pause = PAUSE_FIRST
                    self._strange_since = None
                if self._closed.is_set():
                    return
            self._take_any = self._lost_for_ever()
            self._closed.wait(pause)
            pause = min(2 * pause, PAUSE_MOST)

    def _follow(self, transport: Transport) -> bool:
        """Follow one SN until its stream ends; tells whether it gave anything."""
        query: list[tuple[str, str]] = [("watch", key) for key in self._keys]
        query.append(("min_height", str(self.height)))
        if self.chain:
            query.append(("chain", self.chain))
        if self._uid:
            query.append(("uid", self._uid))
        useful = False
        try:
            stream = transport.stream("/v1/events?" + urlencode(query), SILENCE)
        except RemoteError as fault:
            if fault.code == ANSWERED:  # it lives, and may well be one of our chain
                self._strange_since = None
            self._lost(fault.cause)
            return False
        self._stream = stream
        try:
            if self._closed.is_set():
                return useful
            for event in _events(stream):
                if not self._is_ours(event):
                    self._meet_stranger(transport, str(event["chain"]))
                    return useful
                self._apply(event)
                useful = True
            self._lost(f"{transport.endpoint} ended the event stream")
        except TimeoutError:
            self._lost(f"{transport.endpoint} has been silent for {SILENCE:.0f} s")
        except (OSError, http.client.HTTPException) as fault:
            self._lost(f"{transport.endpoint} is gone: {fault}")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as fault:
            self._lost(f"{transport.endpoint} sent a malformed event: {fault!r:.200}")
        finally:
            self._stream = None
            stream.close()
        return useful

    def _lost_for_ever(self) -> bool:
        """After a round through all SNs: shall the next one be followed whatever its chain is?"""
        since = self._strange_since
        return self._start_over and since is not None and time.monotonic() - since >= START_OVER

    def _is_ours(self, event: Any) -> bool:
        chain = event["chain"] if "chain" in dict(event) else self.chain
        if not isinstance(chain, str):
            raise TypeError("a chain is no text")
        return not self.chain or chain == self.chain or self._take_any

    def _meet_stranger(self, transport: Transport, chain: str) -> None:
        if self._strange_since is None:
            self._strange_since = time.monotonic()
        what = f"another ledger ({chain[:16]}) than the one followed so far ({self.chain[:16]})"
        self._lost(f"{transport.endpoint} serves {what}")

    def _apply(self, event: Any) -> None:
        height, records = int(event["height"]), dict(event["records"])
        if any(not isinstance(record, dict | None) for record in records.values()):
            raise TypeError("a record is no object")
        chain = event.get("chain", self.chain)
        with self._changed:
            if chain != self.chain:
                self.chain, self.height, self._take_any = chain, 0, False
                self.records = dict.fromkeys(self._keys)
            if height < self.height or self._closed.is_set():
                return
            self.height = height
            for key in self._keys:
                if key in records:
                    self.records[key] = records[key]
            self.connected, self.error = True, ""
            self._changed.notify_all()
        self._tell()

    def _lost(self, why: str) -> None:
        if self._closed.is_set():
            return
        with self._changed:
            news = self.connected or self.error != why
            self.connected, self.error = False, why
            self._changed.notify_all()
        if news:
            log.info("event stream: %s", why)
            self._tell()

    def _tell(self) -> None:
        for callback in tuple(self._callbacks):
            try:
                callback(self)
            except Exception:
                log.exception("a callback of a watch failed")


def _events(stream: EventStream) -> Iterator[Any]:
    """Parse server-sent events (WHATWG HTML 9.2): the JSON value of each `data` field."""
    data: list[bytes] = []
    size = 0
    while line := stream.readline():
        size += len(line)
        if size > MAX_EVENT:
            raise ValueError(f"more than {MAX_EVENT} bytes without an end")
        line = line.rstrip(b"\r\n")
        if line.startswith(b"data:"):
            data.append(line[5:].lstrip(b" "))
        elif not line:
            size = 0
            if data:
                yield json.loads(b"\n".join(data))
            data = []
