"""All error codes, in one table.

Ranges: SW10xx general, SW11xx and SW12xx identity, SW2xxx mesh, SW3xxx ledger, SW4xxx state machine
verdicts, SW5xxx API, SW6xxx learner and merging, SW7xxx operator, SW8xxx command interface,
SW9xxx launch scripts.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """What a code means, and what to do about it."""

    meaning: str
    remedy: str


CATALOGUE: dict[str, Entry] = {
    "SW1001": Entry("unexpected internal state", "please report it with the log of this node"),
}
