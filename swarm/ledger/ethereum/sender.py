"""Writing to the network from one account: nonces, fees, and what gets stuck. Pure.

Theory of operation
-------------------
Calls of the contract (`Job`) leave in order, each as a transaction with the account's next nonce
(`Flight`). Up to `MAX_FLIGHTS` may be under way. The network executes an account's transactions by
nonce without gaps, so a flight is kept, and repeated, until its nonce is used up:

- every `REPEAT` seconds a flight is sent again as it is: a node may have lost it, or be another;
- after `STUCK` seconds, or when a node says so, its fee is raised by an eighth, which nodes require
  of a replacement, and up to `DEAREST` times what the network asks;
- nonces below our first flight that somebody must have used before us, and that stay unused for
  `STUCK` seconds, are filled with a transfer of nothing to ourselves (`Job` FILL).

A used nonce does not say by whom. The receipt does: our call was executed, or refused (reverted),
or another process with the same account was faster. What a job carried is offered again in the last
two cases, and in the first one when the follower has read that block and the ids are not settled.
Doing something twice is harmless: the ledger takes each transaction once.

Nothing here is durable. After a restart the clients send what has no verdict again, and the nonce
is read from the network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_FLIGHTS = 16  # as many of one account as nodes promise to keep
MAX_JOBS = 1024
REPEAT = 5.0  # seconds
STUCK = 20.0
PAUSE = 3.0  # seconds after a refusal that will not pass by itself
DEAREST = 4
FILL_GAS = 21_000

KNOWN, LOW, UNDERPRICED, FUNDS, LOST, REFUSED = (
    "known", "low", "underpriced", "funds", "lost", "refused"
)  # fmt: skip


class Fee(NamedTuple):
    """Per gas, in the smallest unit. `tip` is None on networks without EIP-1559."""

    most: int
    tip: int | None

    def raised(self, quote: Fee) -> Fee:
        """A fee that may replace this one, or this one when it would be too dear."""
        most = max(quote.most, _eighth_more(self.most))
        if most > max(quote.most, 1) * DEAREST:
            return self
        if self.tip is None or quote.tip is None:
            return Fee(most, None if self.tip is None else min(most, _eighth_more(self.tip)))
        return Fee(most, min(most, max(quote.tip, _eighth_more(self.tip))))


def _eighth_more(amount: int) -> int:
    # Free stays free: an account without funds could not pay 1 either.
    return amount + -(-amount // 8) if amount else 0


@dataclass(frozen=True)
class Job:
    """One call. `ids` names the ledger transactions in it; `data` empty: nothing but the nonce."""

    ids: tuple[bytes, ...]
    data: bytes
    gas: int


@dataclass
class Flight:
    """A job with its nonce, and what was done for it."""

    nonce: int
    job: Job
    fee: Fee
    first: float
    sent: float
    priced: float
    hashes: list[str] = field(default_factory=list)
    used: float | None = None  # since when its nonce is known to be used
    block: int | None = None  # where the receipt says that it was executed


class Transmit(NamedTuple):
    """Sign this and give it to a node; report with `sent` or `failed`."""

    nonce: int
    job: Job
    fee: Fee


class Sender:
    """The state machine. `now` is in seconds of any steady clock."""

    def __init__(self) -> None:
        self.nonce: int | None = None  # the next free one; None: to be read from the network
        self.flights: dict[int, Flight] = {}
        self.problem = ""  # kind of the last refusal, "" while things go well
        self._jobs: deque[Job] = deque()
        self._carried: dict[bytes, int] = {}
        self._resume = 0.0  # nothing new is sent before
        self._gap_since: float | None = None

    # ------------------------------------------------------------------ jobs

    def add(self, job: Job) -> None:
        """Queue a call."""
        self._jobs.append(job)
        for one in job.ids:
            self._carried[one] = self._carried.get(one, 0) + 1

    def carries(self, tx_id: bytes) -> bool:
        """Whether a ledger transaction is queued or under way."""
        return tx_id in self._carried

    @property
    def room(self) -> int:
        """How many more jobs may be queued."""
        return MAX_FLIGHTS - len(self._open()) - len(self._jobs)

    @property
    def busy(self) -> bool:
        """Whether anything is to be sent, or under way."""
        return bool(self._jobs or self.flights)

    @property
    def oldest(self) -> float | None:
        """Since when the oldest flight waits for a block."""
        return min((flight.first for flight in self._open()), default=None)

    def settle(self, ids: Iterable[bytes]) -> None:
        """These are on the ledger; whoever brought them there. Jobs with nothing else are done."""
        gone = set(ids)
        keep = deque(job for job in self._jobs if not job.ids or not gone.issuperset(job.ids))
        for job in self._jobs:
            if job not in keep:
                self._release(job)
        self._jobs = keep
        for flight in self.flights.values():
            if gone.intersection(flight.job.ids):
                self._release(flight.job)
                left = tuple(one for one in flight.job.ids if one not in gone)
                flight.job = Job(left, flight.job.data, flight.job.gas)
                self._hold(flight.job)

    def _hold(self, job: Job) -> None:
        for one in job.ids:
            self._carried[one] = self._carried.get(one, 0) + 1

    def _release(self, job: Job) -> None:
        for one in job.ids:
            count = self._carried.get(one, 0) - 1
            if count > 0:
                self._carried[one] = count
            else:
                self._carried.pop(one, None)

    # ------------------------------------------------------------------ planning

    def plan(self, now: float, used: int, pending: int, quote: Fee) -> list[Transmit]:
        """What to send now, in order.

        `used`: how many nonces the newest block has used up; `pending`: the same with what waits in
        the node; `quote`: what the network asks at present.
        """
        if self.nonce is None:
            self.nonce = max([pending, *(nonce + 1 for nonce in self.flights)])
        for flight in self.flights.values():
            if flight.nonce < used and flight.used is None:
                flight.used = now
            elif flight.nonce >= used and flight.used is not None:
                # A reorganisation gave the nonce back. Nodes may have forgotten the transaction.
                flight.used = flight.block = None
                flight.sent = now - REPEAT
        out = [self._again(flight, now, quote) for flight in self._open() if self._due(flight, now)]
        out += self._fill(now, used, quote)
        while self._jobs and now >= self._resume and len(self._open()) < MAX_FLIGHTS:
            job = self._jobs.popleft()
            flight = Flight(self.nonce, job, quote, now, now, now)
            self.flights[flight.nonce] = flight
            self.nonce += 1
            out.append(Transmit(flight.nonce, job, quote))
        return out

    def _open(self) -> list[Flight]:
        """Flights whose nonce is free, lowest first."""
        return [self.flights[n] for n in sorted(self.flights) if self.flights[n].used is None]

    def _due(self, flight: Flight, now: float) -> bool:
        return now - flight.sent >= REPEAT

    def _again(self, flight: Flight, now: float, quote: Fee) -> Transmit:
        if now - flight.priced >= STUCK:
            fee = flight.fee.raised(quote)
            if fee != flight.fee:
                flight.fee, flight.priced = fee, now
        flight.sent = now
        return Transmit(flight.nonce, flight.job, flight.fee)

    def _fill(self, now: float, used: int, quote: Fee) -> list[Transmit]:
        """Close a gap below our first flight that somebody else leaves open."""
        unused = self._open()
        if not unused or unused[0].nonce <= used:
            self._gap_since = None
            return []
        if self._gap_since is None:
            self._gap_since = now
        if now - self._gap_since < STUCK:
            return []
        self._gap_since = None
        fee = Fee(quote.most, quote.tip).raised(quote)
        out = []
        for nonce in range(used, min(unused[0].nonce, used + MAX_FLIGHTS)):
            job = Job((), b"", FILL_GAS)
            self.flights[nonce] = Flight(nonce, job, fee, now, now, now)
            out.append(Transmit(nonce, job, fee))
        return out

    # ------------------------------------------------------------------ what came of it

    def sent(self, nonce: int, tx_hash: str) -> None:
        """A node took it."""
        flight = self.flights.get(nonce)
        if flight is not None and tx_hash not in flight.hashes:
            flight.hashes.append(tx_hash)
        self.problem = ""

    def failed(self, nonce: int, kind: str, now: float) -> bool:
        """A node did not take it. Returns whether the rest of the plan may still be sent."""
        flight = self.flights.get(nonce)
        if flight is None or kind == KNOWN:
            return True
        if kind == LOST:
            flight.sent = now - REPEAT + 1.0  # perhaps it arrived; soon again
            return False
        if kind == UNDERPRICED:
            flight.priced = flight.sent = now - STUCK
            return False
        if kind == LOW and flight.hashes:
            return True  # executed meanwhile, as the next look at the network will tell
        # Nobody has it: take it back, with everything after it, and read the nonce anew.
        self.problem = "" if kind == LOW else kind
        self._resume = now if kind == LOW else now + PAUSE
        for number in sorted((n for n in self.flights if n >= nonce), reverse=True):
            if number == nonce or not self.flights[number].hashes:
                job = self.flights.pop(number).job
                if job.data:
                    self._jobs.appendleft(job)
        self.nonce = None
        return False

    def executed(self, data: bytes) -> None:
        """The follower has read a call of ours: its flight is over."""
        for flight in list(self.flights.values()):
            if flight.job.data == data:
                self._forget(flight)
                return

    def unproven(self) -> list[Flight]:
        """Flights whose nonce is used and whose receipt is wanted."""
        return [f for f in self.flights.values() if f.used is not None and f.block is None]

    def receipt(self, nonce: int, block: int, ok: bool, now: float) -> None:
        """The network executed one of the flight's transactions in `block`."""
        flight = self.flights.get(nonce)
        if flight is None:
            return
        if ok:
            flight.block = block
            return
        self._forget(flight)
        # What somebody else has done meanwhile, such as registering a member, need not be done.
        if flight.job.ids:
            self.problem, self._resume = REFUSED, now + PAUSE

    def no_receipt(self, nonce: int, now: float) -> None:
        """None of the flight's transactions was executed, and its nonce is used."""
        flight = self.flights.get(nonce)
        if flight is not None and flight.used is not None and now - flight.used >= REPEAT:
            self._forget(flight)

    def followed(self, number: int) -> None:
        """The follower has read all blocks up to `number`: flights in them are over.

        What they carried and is not on the ledger by now was left out by its rules.
        """
        for flight in list(self.flights.values()):
            if flight.block is not None and flight.block <= number:
                self._forget(flight)

    def _forget(self, flight: Flight) -> None:
        del self.flights[flight.nonce]
        self._release(flight.job)
