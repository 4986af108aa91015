"""States as tables: which event leads from where to where.

Each module of the state machine owns its tables, and every change of a state goes through
`Transitions.step`, so the code cannot do what the table does not say. The reference page of the
state machine is written from the same tables.
"""

from __future__ import annotations

from typing import NamedTuple

ANY = "*"


class Transition(NamedTuple):
    """In state `source`, `event` leads to `target`; `when` explains it to people."""

    source: str
    event: str
    target: str
    when: str


class Transitions:
    """The table of one kind of record."""

    def __init__(self, title: str, initial: str, rows: tuple[Transition, ...]) -> None:
        self.title = title
        self.initial = initial
        self.rows = rows
        self._targets = {(row.source, row.event): row.target for row in rows}
        if len(self._targets) != len(rows):
            raise ValueError(f"{title}: two rows for one state and event")

    def allows(self, source: str, event: str) -> bool:
        """Whether `event` is possible in `source`."""
        return (source, event) in self._targets or (ANY, event) in self._targets

    def step(self, source: str, event: str) -> str:
        """Return the state after `event`. ValueError names an impossible step: a defect of ours."""
        target = self._targets.get((source, event), self._targets.get((ANY, event)))
        if target is None:
            raise ValueError(f"{self.title}: invalid transition [{source} -> {event}]")
        return target
