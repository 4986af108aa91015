"""A light source of load: one process, kept connections, transactions signed beforehand.

The nodes share the machine's cores with whatever drives them, so this does as little as it can: one
selector loop over non-blocking TLS sockets, requests that are bytes already, and no look into the
answers beyond their status. `Source.cpu` is what it took itself.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from swarm.identity import Identity
from swarm.ledger.transaction import SignedTransaction, Transaction

AHEAD = 1200  # heights until a transaction expires: one sender may have 20,000 that have not
PATIENCE = 60.0  # seconds for the last answers
WAIT = 20  # seconds that a node keeps a request


def requests(
    identity: Identity, chain: bytes, height: int, op: str, arguments: Sequence[dict[str, Any]]
) -> list[bytes]:
    """HTTP requests that submit one transaction for each of `arguments`."""
    made = []
    for args in arguments:
        transaction = Transaction.new(chain, height + AHEAD, op, args)
        made.append(request(SignedTransaction.sign(identity, transaction).encode()))
    return made


def request(body: bytes) -> bytes:
    """The HTTP request that submits `body`."""
    head = (
        f"POST /v1/transactions?wait={WAIT} HTTP/1.1\r\nHost: sn\r\n"
        f"Content-Type: application/cbor\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Result:
    """What came of a run: milliseconds from a request's due time to its answer, and their times."""

    spent: list[float] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)  # seconds since the start
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    cpu: float = 0.0
    sample: bytes = b""  # an answer that was not 200

    @property
    def errors(self) -> int:
        """Requests that got another answer than 200, or none (status 0)."""
        return self.statuses.total() - self.statuses[200]


class Wire:
    """One kept connection; one request at a time."""

    def __init__(self, context: ssl.SSLContext, address: tuple[str, int]) -> None:
        raw = socket.create_connection(address, 10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(raw, server_hostname=address[0])
        self.socket.setblocking(False)
        self.address = address
        self.due = 0.0
        self._received = b""

    def send(self, data: bytes, due: float) -> None:
        """Send a request (small enough for the socket's buffer)."""
        self.due = due
        self._received = b""
        self.socket.send(data)

    def answer(self) -> tuple[int, bytes] | None:
        """Status and body once the answer is complete. Raises OSError when the node is gone."""
        while True:
            try:
                data = self.socket.recv(65536)
            except ssl.SSLWantReadError:
                break
            if not data:
                raise ConnectionResetError
            self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return None
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        return (int(head[9:12]), body) if len(body) >= int(length) else None


class Source:
    """Sends requests over `width` connections to each address, in turn.

    `again`: a connection that a node closes is opened again.
    """

    def __init__(
        self,
        identity: Identity,
        addresses: Sequence[tuple[str, int]],
        width: int = 8,
        *,
        again: bool = False,
    ) -> None:
        self._context = identity.client_context()
        self._again = again
        self._selector = selectors.DefaultSelector()
        self._free: deque[Wire] = deque()
        self._open: set[Wire] = set()
        for _ in range(width):
            for address in addresses:
                self._add(address)

    def _add(self, address: tuple[str, int]) -> None:
        wire = Wire(self._context, address)
        self._selector.register(wire.socket, selectors.EVENT_READ, wire)
        self._open.add(wire)
        self._free.append(wire)

    def close(self) -> None:
        """Close all connections."""
        for wire in self._open:
            wire.socket.close()
        self._selector.close()

    def run(
        self,
        requests: Sequence[bytes],
        rate: float | None,
        seconds: float = 1e9,
        *,
        repeat: bool = False,
    ) -> Result:
        """Send `requests` at `rate` a second, or (None) as fast as answers come, for `seconds`.

        A request whose time has come while all connections are taken waits, and its time counts
        from when it was due: a slow system cannot hide behind its own back pressure. `repeat`: when
        they are used up, from the start.
        """
        result = Result()
        began, cpu = time.perf_counter(), time.process_time()
        waiting = deque((n / rate if rate else 0.0, data) for n, data in enumerate(requests))
        busy: set[Wire] = set()
        while (waiting or busy) and (now := time.perf_counter() - began) < seconds + PATIENCE:
            if now > seconds:
                waiting.clear()
            while waiting and self._free and waiting[0][0] <= now:
                due, data = waiting.popleft()
                if repeat:
                    waiting.append((due, data))
                self._send(data, due if rate else now, busy, result)
            if not self._open:
                break
            pause = max(0.0, waiting[0][0] - now) if waiting and self._free else 0.5
            for key, _ in self._selector.select(min(pause, 0.5)):
                self._receive(key.data, busy, result, began)
        result.statuses[0] += len(busy) + (0 if self._open or repeat else len(waiting))
        result.seconds = time.perf_counter() - began
        result.cpu = time.process_time() - cpu
        return result

    def _send(self, data: bytes, due: float, busy: set[Wire], result: Result) -> None:
        wire = self._free.popleft()
        try:
            wire.send(data, due)
        except OSError:
            self._lose(wire, busy, result)
            return
        busy.add(wire)

    def _receive(self, wire: Wire, busy: set[Wire], result: Result, began: float) -> None:
        try:
            answer = wire.answer()
        except OSError:
            self._lose(wire, busy, result)
            return
        if answer is None or wire not in busy:
            return
        status, body = answer
        now = time.perf_counter() - began
        result.statuses[status] += 1
        if status == 200:
            result.spent.append((now - wire.due) * 1000)
            result.answered_at.append(now)
        elif not result.sample:
            result.sample = body[:300]
        busy.discard(wire)
        self._free.append(wire)

    def _lose(self, wire: Wire, busy: set[Wire], result: Result) -> None:
        """A node has closed a connection, or is gone."""
        if wire in busy:
            busy.discard(wire)
            result.statuses[0] += 1
        if wire in self._free:
            self._free.remove(wire)
        self._open.discard(wire)
        self._selector.unregister(wire.socket)
        wire.socket.close()
        if self._again:
            try:
                self._add(wire.address)
            except OSError:
                return  # it is gone for good
