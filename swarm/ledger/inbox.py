"""Messages of other nodes that wait for the core: who sends much, waits longer.

Each neighbour has a queue of its own, bounded in messages and in bytes, and the core takes from all
in turn. A neighbour may send at a rate far above what an honest one needs under full load; what is
beyond is dropped. Somebody whose messages are wrong (a signature that does not fit) is not listened
to for a while: an honest node sends no such thing, so this costs no honest vote.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence

from swarm.bucket import Bucket

MAX_MESSAGES = 2000  # that wait, of one neighbour
MAX_BYTES = 16 << 20
# A node sends some 10 messages for a block, and one for the transactions of each of its steps: a
# few hundred a second under full load.
RATE, BURST = 2000.0, 4000.0
FAULT_RATE, FAULT_BURST = 2.0, 20.0  # wrong messages that are forgiven


class _Queue:
    def __init__(self, now: float) -> None:
        self.messages: deque[bytes] = deque()
        self.size = 0
        self.bucket = Bucket(RATE, BURST, now)
        self.faults = Bucket(FAULT_RATE, FAULT_BURST, now)
        self.muted_until = 0.0


class Inbox:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()  # messages, by neighbour
        self._queues: OrderedDict[str, _Queue] = OrderedDict()  # next turn first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, source: str, messages: Sequence[bytes], now: float) -> str:
        """Queue messages; returns why some were dropped, "" when none was."""
        queue = self._queues.get(source)
        if queue is None:
            queue = self._queues[source] = _Queue(now)
        for number, raw in enumerate(messages):
            why = self._refusal(queue, raw, now)
            if why:
                self.dropped[source] += len(messages) - number
                return why
            queue.messages.append(raw)
            queue.size += len(raw)
            self._count += 1
        return ""

    def _refusal(self, queue: _Queue, raw: bytes, now: float) -> str:
        if now < queue.muted_until:
            return "it sent too much that was wrong; it is not listened to for a while"
        if len(queue.messages) >= MAX_MESSAGES or queue.size + len(raw) > MAX_BYTES:
            return "more messages of it wait than are taken"
        if not queue.bucket.take(1, now):
            return f"it sends more than {RATE:g} messages a second"
        return ""

    def take(self) -> tuple[str, bytes] | None:
        """The next message, one of each neighbour in turn; None when there is none."""
        if not self._count:
            return None
        while True:
            source, queue = next(iter(self._queues.items()))
            self._queues.move_to_end(source)
            if queue.messages:
                raw = queue.messages.popleft()
                queue.size -= len(raw)
                self._count -= 1
                return source, raw

    def fault(self, source: str, now: float) -> None:
        """A message of it was wrong."""
        queue = self._queues.get(source)
        if queue is None:
            return
        owed = queue.faults.spend(1, now)
        if owed:
            queue.muted_until = now + owed
            self._count -= len(queue.messages)
            self.dropped[source] += len(queue.messages)
            queue.messages.clear()
            queue.size = 0

    def forget(self, source: str, now: float) -> None:
        """It is gone. What it owes is kept, so that coming back does not clear it."""
        queue = self._queues.get(source)
        if queue is not None and not queue.messages and queue.faults.full(now):
            del self._queues[source]
