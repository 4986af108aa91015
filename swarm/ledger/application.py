"""What consensus orders for: a value that says what may be included and what follows from it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from swarm.errors import RemoteError
from swarm.identity import Peer
from swarm.ledger import codec, merkle
from swarm.ledger.block import Effect, validators_hash, verdict_leaf
from swarm.ledger.genesis import Genesis
from swarm.ledger.state import Header, State, Validator, Verdict
from swarm.ledger.transaction import SignedTransaction

MAX_RECORD = 16 << 20  # bytes of a stored record; our own data, so a bound against damage only
_PARSED_BYTES = 16 << 20
_SENDERS = 2048


class Ticket(NamedTuple):
    """What the ledger needs to know of a transaction without understanding it."""

    id: bytes  # a second transaction with the same id is the same one
    sender: str  # whose share of the mempool it takes


class Outcome(NamedTuple):
    """What a block did: a verdict for each transaction, and the keys that changed."""

    verdicts: tuple[Verdict, ...]
    changed: frozenset[str]


class Row(NamedTuple):
    """One record as it is stored; `value` is None for a deleted one."""

    table: str
    key: str
    value: bytes | None


class Application(Protocol):
    """An immutable state: `apply` returns a new one.

    Everything is a pure function of the blocks applied so far. All replicas therefore agree on what
    is includable next, on the validators, and on the digest.
    """

    @property
    def height(self) -> int:
        """Height of the last applied block; 0 for the genesis."""

    @property
    def fault_model(self) -> str:
        """`byzantine` or `crash`; never changes."""

    def digest(self) -> bytes:
        """32 bytes that are equal exactly for equal states."""

    def validators(self) -> tuple[Validator, ...]:
        """Who votes on block `height + 1`, in an order that all agree on."""

    def identify(self, tx: bytes) -> Ticket:
        """Return the ticket of a well-formed, rightly signed transaction; else RemoteError."""

    def check(self, tx: bytes) -> Ticket:
        """Return the ticket of a transaction that could be in the next block.

        Raises RemoteError when it could not: as `identify`, and SW3006 when replayed or expired.
        """

    def apply(self, header: Header, txs: tuple[bytes, ...]) -> tuple[Application, Outcome]:
        """Apply a block whose transactions all pass `check`."""

    def rows(self, before: Application | None) -> Iterable[Row]:
        """Records that differ from `before`; all of them for None."""


class Executed(NamedTuple):
    """A block's consequences: the state after it, the verdicts, and both as hashes."""

    application: Application
    outcome: Outcome
    effect: Effect


def execute(app: Application, header: Header, txs: tuple[bytes, ...]) -> Executed:
    """Apply a block to `app`, and hash what comes of it for the block's header."""
    after, outcome = app.apply(header, txs)
    results = merkle.root([verdict_leaf(verdict) for verdict in outcome.verdicts])
    effect = Effect(after.digest(), results, validators_hash(after.validators()))
    return Executed(after, outcome, effect)


class _Parsed:
    """Parsed transactions by their bytes: each is looked at several times on its way to a block."""

    def __init__(self) -> None:
        self._items: OrderedDict[bytes, SignedTransaction] = OrderedDict()
        self._size = 0

    def get(self, tx: bytes) -> SignedTransaction:
        found = self._items.get(tx)
        if found is None:
            found = SignedTransaction.decode(tx)
            self._items[tx] = found
            self._size += len(tx)
            while self._size > _PARSED_BYTES:
                self._size -= len(self._items.popitem(last=False)[0])
        return found


_parsed = _Parsed()


class _Senders:
    """Whom certificate chains belong to, under one set of authorities.

    Reading a chain costs as much as checking a signature, and members send many transactions.
    """

    def __init__(self, cas: Mapping[str, bytes]) -> None:
        self._cas = cas
        self._known: OrderedDict[tuple[bytes, ...], Peer] = OrderedDict()

    def of(self, signed: SignedTransaction) -> Peer:
        peer = self._known.get(signed.chain_der)
        if peer is not None:
            signed.check_signature(peer)
            return peer
        peer = self._known[signed.chain_der] = signed.sender(self._cas)
        if len(self._known) > _SENDERS:
            self._known.popitem(last=False)
        return peer


class LedgerApplication:
    """The swarm's state machine below signed transactions. Immutable, as `State` is."""

    def __init__(self, state: State, before: LedgerApplication | None = None) -> None:
        self.state = state
        if before is not None and before.state.table("cas") is state.table("cas"):
            self._senders: _Senders = before._senders
        else:
            self._senders = _Senders(state.cas())

    @classmethod
    def genesis(cls, genesis: Genesis) -> LedgerApplication:
        """The application before the first block."""
        return cls(State.genesis(genesis))

    @classmethod
    def restore(cls, chain: bytes, height: int, rows: Iterable[Row]) -> LedgerApplication:
        """Build it from stored rows. Raises RemoteError when they are none."""
        decoded = (
            (table, key, codec.decode(value, limit=MAX_RECORD, what=f"record {table}/{key}"))
            for table, key, value in rows
            if value is not None
        )
        return cls(State.from_rows(chain, height, decoded))

    @property
    def height(self) -> int:
        return self.state.height

    @property
    def fault_model(self) -> str:
        return self.state.fault_model

    def digest(self) -> bytes:
        return self.state.digest()

    def validators(self) -> tuple[Validator, ...]:
        return self.state.validators()

    def identify(self, tx: bytes) -> Ticket:
        signed = _parsed.get(tx)
        return _ticket(signed, self._senders.of(signed))

    def check(self, tx: bytes) -> Ticket:
        signed = _parsed.get(tx)
        sender = self._senders.of(signed)
        reason = self.state.refusal(signed.transaction, sender)
        if reason is not None:
            raise RemoteError("SW3006", f"{signed.transaction.op}: {reason}")
        return _ticket(signed, sender)

    def apply(self, header: Header, txs: tuple[bytes, ...]) -> tuple[LedgerApplication, Outcome]:
        parsed = [_parsed.get(tx) for tx in txs]
        pairs = [(signed.transaction, self._senders.of(signed)) for signed in parsed]
        state, verdicts, changed = self.state.apply(header, pairs)
        return LedgerApplication(state, self), Outcome(verdicts, changed)

    def rows(self, before: Application | None) -> Iterator[Row]:
        old = before.state if isinstance(before, LedgerApplication) else None
        for table, key, record in self.state.rows(old):
            yield Row(table, key, None if record is None else codec.encode(record))


def _ticket(signed: SignedTransaction, sender: Peer) -> Ticket:
    # Of sender and body, not of the encoded whole: an ECDSA signature can be altered into another
    # one that fits as well, and that must not make a second transaction.
    name = hashlib.sha256(sender.fingerprint.encode() + signed.body).digest()
    return Ticket(name, sender.fingerprint)
