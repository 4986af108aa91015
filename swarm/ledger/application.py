"""What consensus orders for: a value that says what may be included and what follows from it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from swarm.errors import RemoteError
from swarm.identity import Peer, verify_chain
from swarm.ledger import codec, merkle
from swarm.ledger.block import Effect, validators_hash, verdict_leaf
from swarm.ledger.genesis import Genesis
from swarm.ledger.state import Header, State, Validator, Verdict
from swarm.ledger.state.evictions import BARRED
from swarm.ledger.state.recoveries import NOT_HERE
from swarm.ledger.state.recoveries import OPERATION as RECOVER
from swarm.ledger.state.table import encoded
from swarm.ledger.transaction import SignedTransaction

MAX_RECORD = 16 << 20  # bytes of a stored record; our own data, so a bound against damage only
_PARSED = 4096  # what passes through in ten seconds and more at full speed
_PARSED_BYTES = 16 << 20
_SENDERS = 2048


class Ticket(NamedTuple):
    """What the ledger needs to know of a transaction without understanding it."""

    id: bytes  # a second transaction with the same id is the same one
    sender: str  # whose share of the mempool it takes
    organisation: str = ""  # of the sender; they take turns


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

        Raises RemoteError when it could not: as `identify`, SW3006 when replayed or expired, SW4017
        for what belongs into a block of its own.
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


class _Known:
    """A parsed transaction, and what was found out about it so far."""

    __slots__ = ("peer", "signed", "ticket")

    def __init__(self, signed: SignedTransaction) -> None:
        self.signed = signed
        self.peer: Peer | None = None  # whom `ticket` was made for: its signature fits
        self.ticket: Ticket | None = None

    def ticket_of(self, peer: Peer) -> Ticket:
        """The ticket, once the signature is known to be this peer's. Raises RemoteError SW3002."""
        if self.ticket is None or self.peer != peer:
            self.signed.check_signature(peer)
            self.ticket, self.peer = _ticket(self.signed, peer), peer
        return self.ticket


class _Parsed:
    """Transactions by their bytes: each is looked at several times on its way through a block."""

    def __init__(self) -> None:
        self._items: OrderedDict[bytes, _Known] = OrderedDict()
        self._size = 0

    def get(self, tx: bytes) -> _Known:
        found = self._items.get(tx)
        if found is None:
            found = self._items[tx] = _Known(SignedTransaction.decode(tx))
            self._size += len(tx)
            while self._size > _PARSED_BYTES or len(self._items) > _PARSED:
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

    def of(self, known: _Known) -> Peer:
        """Whom the transaction belongs to.

        Raises RemoteError: of the identity range when its chain leads to no authority, SW3002 when
        its signature does not fit.
        """
        chain = known.signed.chain_der
        peer = self._known.get(chain)
        if peer is None:
            peer = self._known[chain] = verify_chain(chain, self._cas)
            if len(self._known) > _SENDERS:
                self._known.popitem(last=False)
        known.ticket_of(peer)
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
        try:
            return cls(State.from_rows(chain, height, decoded))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # Their digest is not known to be right yet, so there may be anything in them.
            raise RemoteError("SW3001", f"unreadable records ({error!r:.200})") from error

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
        known = _parsed.get(tx)
        return known.ticket_of(self._sender(known))

    def _sender(self, known: _Known) -> Peer:
        """Whose transaction it is. Raises RemoteError, SW4015 when that was evicted."""
        sender = self._senders.of(known)
        barred = self.state.bar(sender.holder)
        if barred is not None:
            raise RemoteError(BARRED, barred)
        return sender

    def check(self, tx: bytes) -> Ticket:
        known = _parsed.get(tx)
        sender = self._sender(known)
        transaction = known.signed.transaction
        if transaction.op == RECOVER:
            raise RemoteError(NOT_HERE, "a recovery is no ordinary transaction")
        reason = self.state.refusal(transaction, sender)
        if reason is not None:
            raise RemoteError("SW3006", f"{transaction.op}: {reason}")
        return known.ticket_of(sender)

    def apply(self, header: Header, txs: tuple[bytes, ...]) -> tuple[LedgerApplication, Outcome]:
        parsed = [_parsed.get(tx) for tx in txs]
        pairs = [(known.signed.transaction, self._senders.of(known)) for known in parsed]
        state, verdicts, changed = self.state.apply(header, pairs)
        return LedgerApplication(state, self), Outcome(verdicts, changed)

    def rows(self, before: Application | None) -> Iterator[Row]:
        old = before.state if isinstance(before, LedgerApplication) else None
        for table, key, record in self.state.rows(old):
            yield Row(table, key, None if record is None else encoded(record))


def _ticket(signed: SignedTransaction, sender: Peer) -> Ticket:
    # Of sender and body, not of the encoded whole: an ECDSA signature can be altered into another
    # one that fits as well, and that must not make a second transaction.
    name = hashlib.sha256(sender.fingerprint.encode() + signed.body).digest()
    return Ticket(name, sender.holder, sender.organisation)
