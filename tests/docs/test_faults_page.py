"""The page about faults says the numbers that are true."""

from __future__ import annotations

from pathlib import Path

from sentinel.lost import CLOSED
from swarm.learner import knowledge
from swarm.ledger.state import faults
from swarm.merge import plan, progress, server

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "faults.md"


def test_the_numbers_are_those_of_the_code() -> None:
    text = PAGE.read_text()
    stall, unreachable = progress.Limits().stall, progress.Limits().unreachable
    slowest = f"{progress.SLOWEST >> 10} KiB/s"
    for line in (
        f"who sends to it is refused | {CLOSED:g} s |",
        f"the others take sides | {stall:g} s + {knowledge.BYSTAND:g} s |",
        f"the others take its side | {knowledge.BYSTAND:g} s |",
        f"no bytes come from it | {stall:g} s |",
        f"for long | {knowledge.WORD:g} s + twice the time",
        f"it gets {server.STRANGERS} places",
        f"the last {faults.MOST} cases",
        f"| {stall:g} s; three times the longest pause",
        f"up to {progress.LARGEST_STALL:g} s |",
        f"up to {plan.CHUNK >> 10} KiB",
        f"| {progress.PATIENCE * stall:g} s; three times the longest that a part",
        f"would need at {slowest} |",
        f"less than {slowest} |",
        f"No connection can be made | {unreachable:g} s |",
        f"| {knowledge.WORD:g} s, and twice as long",
    ):
        assert line in text, line
    assert progress.PAUSES == 3 and knowledge.AGAIN == 2
