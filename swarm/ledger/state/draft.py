"""Changes on top of a state, until it is known whether they count.

A block is applied on a draft over the state before it, each transaction on a draft over the
block's: a refused transaction is forgotten by dropping its draft.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, cast

from swarm.identity import Peer
from swarm.ledger.state.records import (
    Authority,
    Contract,
    Eviction,
    Evidence,
    Node,
    Schema,
    Task,
    Taskrunner,
)
from swarm.ledger.state.table import Record
from swarm.ledger.state.verdict import Header, Validator

MAX_VALIDATORS = 25  # each votes on every block; more SNs follow the log and serve the API


class Tables(Protocol):
    """Something that has records."""

    def get(self, table: str, key: str) -> Record | None:
        """The record as it is; not to be changed."""
        ...

    def keys(self, table: str) -> list[str]:
        """All names of a table, sorted."""
        ...


class Reader(Tables, Protocol):
    """What a draft is made upon: a state or another draft."""

    def created(self, table: str, organisation: str) -> int:
        """How many records of a table belong to an organisation."""
        ...


class Context(NamedTuple):
    """What an operation may know beside the tables: its block, its sender, its own id."""

    header: Header
    sender: Peer
    tx_id: bytes
    chain: bytes


def copied(value: Any) -> Any:
    """A deep copy of a record: plain maps and lists, all else is immutable."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    if type(value) is list:
        return [copied(item) for item in value]
    return value


class Draft:
    """Tables with changes. `edit` gives a copy to change; everything else is to be read only."""

    def __init__(self, base: Reader) -> None:
        self._base = base
        self._changes: dict[str, dict[str, Record | None]] = {}

    def get(self, table: str, key: str) -> Record | None:
        changes = self._changes.get(table, {})
        return changes[key] if key in changes else self._base.get(table, key)

    def keys(self, table: str) -> list[str]:
        changes = self._changes.get(table)
        if not changes:
            return self._base.keys(table)
        names = set(self._base.keys(table))
        names.update(changes)
        return sorted(name for name in names if changes.get(name, True) is not None)

    def created(self, table: str, organisation: str) -> int:
        count = self._base.created(table, organisation)
        for key, record in self._changes.get(table, {}).items():
            before = self._base.get(table, key)
            count -= before is not None and before["organisation"] == organisation
            count += record is not None and record["organisation"] == organisation
        return count

    def items(self, table: str) -> Iterator[tuple[str, Record]]:
        """Names and records in the order of names."""
        for key in self.keys(table):
            record = self.get(table, key)
            if record is not None:
                yield key, record

    def edit(self, table: str, key: str) -> Record | None:
        """Return the record for changing in place, or None."""
        changes = self._changes.setdefault(table, {})
        if key not in changes:
            record = self._base.get(table, key)
            if record is None:
                return None
            changes[key] = copied(record)
        return changes[key]

    def put(self, table: str, key: str, record: Mapping[str, Any]) -> None:
        """Create or replace a record."""
        self._changes.setdefault(table, {})[key] = cast(Record, record)

    def delete(self, table: str, key: str) -> None:
        """Remove a record."""
        self._changes.setdefault(table, {})[key] = None

    def changes(self) -> dict[str, dict[str, Record | None]]:
        """All changes by table and name; None marks a removal."""
        return self._changes

    def changed(self, table: str) -> list[str]:
        """Names that were touched in a table, sorted."""
        return sorted(self._changes.get(table, {}))

    def commit(self, into: Draft) -> None:
        """Hand all changes to the draft below."""
        for table, changes in self._changes.items():
            into._changes.setdefault(table, {}).update(changes)

    # Typed access; one cast a table instead of one a use.

    def node(self, uid: str) -> Node | None:
        return cast("Node | None", self.get("nodes", uid))

    def authority(self, fingerprint: str) -> Authority | None:
        return cast("Authority | None", self.get("cas", fingerprint))

    def eviction(self, fingerprint: str) -> Eviction | None:
        return cast("Eviction | None", self.get("evictions", fingerprint))

    def evidence(self, uid: str) -> Evidence | None:
        return cast("Evidence | None", self.get("evidence", uid))

    def task(self, name: str) -> Task | None:
        return cast("Task | None", self.get("tasks", name))

    def runner(self, name: str) -> Taskrunner | None:
        return cast("Taskrunner | None", self.get("taskrunners", name))

    def contract(self, name: str) -> Contract | None:
        return cast("Contract | None", self.get("contracts", name))

    def schema(self, name: str) -> Schema | None:
        return cast("Schema | None", self.get("schemas", name))

    def edit_node(self, uid: str) -> Node | None:
        return cast("Node | None", self.edit("nodes", uid))

    def edit_task(self, name: str) -> Task | None:
        return cast("Task | None", self.edit("tasks", name))

    def edit_runner(self, name: str) -> Taskrunner | None:
        return cast("Taskrunner | None", self.edit("taskrunners", name))

    def edit_contract(self, name: str) -> Contract | None:
        return cast("Contract | None", self.edit("contracts", name))


def validators(reader: Tables) -> tuple[Validator, ...]:
    """Those that vote on the next block, in the order of their uids."""
    found = []
    for uid in reader.keys("nodes"):
        node = reader.get("nodes", uid)
        if node is not None and node["validator"]:
            found.append(Validator(uid, node["public_key"]))
    return tuple(found)
