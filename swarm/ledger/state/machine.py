"""The state machine: a ledger's transactions in, membership, tasks and trainings out.

Theory of operation
-------------------
`State` is an immutable value: tables of plain records. `apply` makes the next one from a block. All
SNs apply the same blocks and must come to the same bytes, so everything below `apply` is a function
of the state, the block's header and its transactions: no clock, no randomness, no I/O, no floats,
no iteration in an order that depends on a process or on history.

An operation either succeeds as a whole or is refused as a whole. A refused transaction stays in its
block and uses up its id, and changes nothing else. No transaction, however malformed, can make
`apply` raise: a node that raises stops at that block, and all nodes would stop at the same one.

Anything a member can create is bounded by certificate or by organisation, not by swarm: a member
that fills its own share takes nothing from others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from swarm.identity import Peer
from swarm.ledger import codec
from swarm.ledger.genesis import Genesis
from swarm.ledger.state import args as a
from swarm.ledger.state import (
    authorities,
    contracts,
    evictions,
    evidence,
    membership,
    recoveries,
    rounds,
    svids,
    taskrunners,
    tasks,
    waiting,
)
from swarm.ledger.state import draft as drafts
from swarm.ledger.state.digest import state_digest
from swarm.ledger.state.draft import Context, Draft
from swarm.ledger.state.ids import IDS, IdBook
from swarm.ledger.state.operation import Operation
from swarm.ledger.state.proof import RecordProof, prove
from swarm.ledger.state.records import Authority, Node, Settings, Task
from swarm.ledger.state.table import Record, Table
from swarm.ledger.state.verdict import Header, Refused, Validator, Verdict
from swarm.ledger.transaction import Transaction

DEFAULT_CONTRACT = contracts.DEFAULT
DEFAULT_RUNNER = taskrunners.DEFAULT
TABLES = (
    "nodes", "cas", "evictions", "evidence", "recoveries",
    "tasks", "taskrunners", "contracts", "schemas", "meta",
)  # fmt: skip
MAX_AHEAD = 2000  # heights; an id is remembered until its transaction has expired
MAX_TEXT = 2000  # characters of a verdict
LATEST_MS = 1 << 53  # a proposer's clock may lie, but not break the encoding

MODULES = (
    membership, authorities, evictions, evidence, recoveries, tasks, taskrunners, contracts, rounds,
)  # fmt: skip
DISPATCH: Mapping[str, Operation] = MappingProxyType(
    {operation.name: operation for module in MODULES for operation in module.OPERATIONS}
)


class State:
    """One state of the ledger. Every record that it hands out is shared: read it, never change it.

    `height` is that of the last applied block, 0 for the genesis.
    """

    __slots__ = ("_barred", "_digest", "_ids", "_tables", "_validators", "chain", "height")

    def __init__(self, chain: bytes, height: int, tables: Mapping[str, Table], ids: IdBook) -> None:
        self.chain = chain
        self.height = height
        self._tables = tables
        self._ids = ids
        self._digest: bytes | None = None
        self._validators: tuple[Validator, ...] | None = None
        self._barred: Mapping[str, str] | None = None

    @classmethod
    def genesis(cls, genesis: Genesis) -> State:
        """The state before the first block."""
        founder = genesis.founder
        organisation = founder.organisation
        node = Node(
            uid=founder.uid,
            type="SENTINEL",
            name=founder.name,
            organisation=organisation,
            fingerprint=founder.fingerprint,
            public_key=founder.public_key,
            host=founder.host,
            port=founder.port,
            p2p=list(founder.p2p),
            peer_id=founder.peer_id,
            parent="",
            validator=True,
            active=True,
            runner="",
            pairs=0,
            contract="",
            joined=0,
            version=founder.version,
            evicted=0,
        )
        if founder.holder:
            node["holder"] = founder.holder
        root = Task(
            name=tasks.ROOT,
            type=tasks.ROOT_TYPE,
            author="HPE",
            prereq=tasks.ROOT,
            outcome=tasks.ROOT,
            body=[],
            finalized=True,
            created=0,
            creator=founder.fingerprint,
            organisation=organisation,
        )
        cas = {
            fingerprint: Authority(der=der, votes=[founder.uid], admitted=True)
            for fingerprint, der in genesis.cas.items()
        }
        settings = Settings(chain_name=genesis.chain_name, fault_model=genesis.fault_model)
        contract = contracts.fresh(DEFAULT_CONTRACT, 0, organisation)
        runner = taskrunners.idle(DEFAULT_RUNNER, 0, organisation)
        records: dict[str, dict[str, Any]] = {
            "nodes": {founder.uid: node},
            "cas": dict(cas),
            "tasks": {tasks.ROOT: root},
            "taskrunners": {DEFAULT_RUNNER: runner},
            "contracts": {DEFAULT_CONTRACT: contract},
            "meta": {"settings": settings},
        }
        tables = {name: Table().updated(records.get(name, {})) for name in TABLES}
        return cls(genesis.chain_id, 0, tables, IdBook())

    # Reading

    def get(self, table: str, key: str) -> Record | None:
        """A record, or None. Read only."""
        found = self._tables.get(table)
        return found.get(key) if found is not None else None

    def table(self, name: str) -> Mapping[str, Record]:
        """A table by name, ordered by record name. KeyError if there is no such table."""
        return self._tables[name]

    def created(self, table: str, organisation: str) -> int:
        """How many records of a table belong to an organisation; costs the same in large tables."""
        return self._tables[table].of_organisation(organisation)

    def keys(self, table: str) -> list[str]:
        """Names of a table's records, in order."""
        return list(self._tables[table])

    @property
    def fault_model(self) -> str:
        """ "byzantine" or "crash"; decides the quorum and never changes."""
        return str(self._tables["meta"]["settings"]["fault_model"])

    def validators(self) -> tuple[Validator, ...]:
        """Those that vote on the block after this state, ordered by uid; never empty."""
        if self._validators is None:
            self._validators = drafts.validators(self)
        return self._validators

    def bar(self, holder: str) -> str | None:
        """Why a key or SPIFFE id is barred, for ever; None for all others."""
        return evictions.bar(self, holder)

    def barred(self) -> Mapping[str, str]:
        """All that is barred, by fingerprint, with the reason; the same object until it changes."""
        if self._barred is None:
            reasons = ((key, self.bar(key)) for key in self._tables["evictions"])
            self._barred = MappingProxyType({key: why for key, why in reasons if why})
        return self._barred

    def cas(self) -> Mapping[str, bytes]:
        """Admitted CAs: fingerprint to DER."""
        table = self._tables["cas"]
        return {key: record["der"] for key, record in table.items() if record["admitted"]}

    def digest(self) -> bytes:
        """32 bytes that are equal for equal states only."""
        if self._digest is None:
            self._digest = state_digest(self.chain, self.height, self._parts())
        return self._digest

    def _parts(self) -> tuple[tuple[str, bytes], ...]:
        tables = [(name, self._tables[name].digest) for name in TABLES]
        return (*tables, (IDS, self._ids.used.digest))

    def prove(self, table: str, key: str) -> RecordProof:
        """A proof against `digest` that a record is what it is. KeyError when there is none."""
        return prove(self._tables[table], table, key, self._parts())

    # Changing

    def refusal(self, transaction: Transaction, sender: Peer) -> str | None:
        """Why `transaction` may not be in the next block, or None."""
        following = self.height + 1
        if transaction.chain != self.chain:
            return "it belongs to another swarm"
        if transaction.expires < following:
            return f"it expired at height {transaction.expires}, the next block is {following}"
        if transaction.expires > self.height + MAX_AHEAD:
            return f"it expires more than {MAX_AHEAD} heights ahead"
        return self._ids.refusal(sender.holder, transaction.id)

    def apply(
        self, header: Header, transactions: Sequence[tuple[Transaction, Peer]]
    ) -> tuple[State, tuple[Verdict, ...], frozenset[str]]:
        """Return the state after a block, a verdict for each transaction, and the names of the
        changed records, as "table/name".

        ValueError if the block is not the next one; nothing else is raised.
        """
        if header.height != self.height + 1:
            raise ValueError(f"block {header.height} cannot follow height {self.height}")
        header = header._replace(time_ms=min(max(0, header.time_ms), LATEST_MS))
        block = Draft(self)
        ids = self._ids.writer()
        verdicts = []
        for transaction, sender in transactions:
            reason = self.refusal(transaction, sender) or ids.refusal(sender.holder, transaction.id)
            if reason:
                verdicts.append(Verdict(False, "SW4001", reason))
                continue
            ids.use(sender.holder, transaction.id, transaction.expires)
            context = Context(header, sender, transaction.id, self.chain)
            verdicts.append(execute(block, context, transaction))
        tables, changed = self._with(block)
        after = State(self.chain, header.height, tables, ids.close(header.height))
        if tables["nodes"] is self._tables["nodes"]:
            after._validators = self._validators
        if tables["evictions"] is self._tables["evictions"]:
            after._barred = self._barred
        return after, tuple(verdicts), changed

    def _with(self, block: Draft) -> tuple[dict[str, Table], frozenset[str]]:
        """The tables after a block's changes. What was changed back to what it was is no change."""
        tables = dict(self._tables)
        changed: set[str] = set()
        for name, records in block.changes().items():
            table = tables[name]
            real = {key: record for key, record in records.items() if table.get(key) != record}
            tables[name] = table.updated(real)
            changed.update(f"{name}/{key}" for key in real)
        return tables, frozenset(changed)

    # Storing

    def rows(self, before: State | None) -> Iterator[tuple[str, str, Record | None]]:
        """Yield (table, key, record) for what differs from `before`, None for a deleted record; all
        records for None. The cost follows the size of the difference."""
        for name, table in (*self._tables.items(), (IDS, self._ids.used)):
            old = None
            if before is not None:
                old = before._ids.used if name == IDS else before._tables[name]
            for key, record in table.difference(old):
                yield name, key, record

    @classmethod
    def from_rows(cls, chain: bytes, height: int, rows: Iterable[tuple[str, str, Record]]) -> State:
        """The inverse of `rows(None)`. RemoteError SW3001 names an unknown table.

        Compare its `digest` with a certified one before trusting it.
        """
        found: dict[str, dict[str, Record | None]] = {name: {} for name in (*TABLES, IDS)}
        for name, key, record in rows:
            codec.require(name in found, f"stored state: unknown table {name!r}")
            found[name][key] = record
        ids = IdBook.of(Table().updated(found.pop(IDS)))
        return cls(chain, height, {n: Table().updated(found[n]) for n in TABLES}, ids)


def execute(block: Draft, context: Context, transaction: Transaction) -> Verdict:
    """Run one operation on a draft of its own, and put it on `block` only if all went well."""
    draft = Draft(block)
    try:
        result = _dispatch(draft, context, transaction)
        _explain(draft)
    except Refused as refused:
        return Verdict(False, refused.code, refused.text[:MAX_TEXT], refused.result)
    except Exception as error:
        # A defect of ours, the same on every node. One refused transaction is better than a swarm
        # that stops at this block.
        where = type(error).__name__
        return Verdict(False, "SW1001", f"{transaction.op} failed inside with {where}")
    draft.commit(block)
    return Verdict(True, result=drafts.copied(result))


def _dispatch(draft: Draft, context: Context, transaction: Transaction) -> dict[str, Any]:
    barred = evictions.bar(draft, context.sender.holder)
    if barred is not None:  # by this very block: earlier ones keep its transactions out of blocks
        raise Refused(evictions.BARRED, barred)
    svids.check(draft, context.sender)
    operation = DISPATCH.get(transaction.op)
    if operation is None:
        raise Refused("SW4003", f"there is no operation {transaction.op[:48]}")
    role = context.sender.role
    if role not in operation.roles:
        allowed = ", ".join(sorted(operation.roles))
        raise Refused("SW4004", f"{operation.name} is for {allowed}, not for {role}")
    a.check(operation.fields, transaction.args, f"{operation.name}: ")
    # The arguments are another's values: what is kept of them must not be shared with it.
    return operation.handler(draft, context, drafts.copied(transaction.args))


def _explain(draft: Draft) -> None:
    """Bring the `waiting` sentences of all touched records up to date."""
    for name in draft.changed("contracts"):
        contract = draft.edit_contract(name)
        if contract is not None:
            contract["waiting"] = waiting.of_contract(contract)
    runners = set(draft.changed("taskrunners"))
    if draft.changed("nodes"):  # a SWOP may have come or gone
        runners.update(draft.keys("taskrunners"))
    for name in sorted(runners):
        found = draft.runner(name)
        if found is None:
            continue
        # Looking through all nodes is left for when it matters: some hold many taskrunners.
        present = taskrunners.listening(draft, name) if found["state"] == "ASSIGNED" else {}
        sentence = waiting.of_runner(found, present)
        if sentence != found["waiting"]:
            runner = draft.edit_runner(name)
            assert runner is not None, "found above"
            runner["waiting"] = sentence
