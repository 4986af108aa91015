"""The model of voting and locking is searched whole, and finds the bugs that are planted in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from swarm.ledger.consensus.quorum import quorum
from swarm.ledger.genesis import BYZANTINE, CRASH
from tests.spin import tool


@pytest.fixture(scope="session", autouse=True)
def spin() -> None:
    reason = tool.ensure()
    if reason:
        pytest.skip(reason)


def errors(report: str) -> int:
    assert "Search not completed" in report or "errors: 0" in report
    found = re.search(r"errors: (\d+)", report)
    assert found, report
    return int(found[1])


def test_two_rounds_hold_no_state_with_two_decisions(tmp_path: Path) -> None:
    report = tool.check(tmp_path)
    assert errors(report) == 0
    assert "max search depth too small" not in report, "the search was cut off"
    states = re.search(r"([\d.e+]+) states, stored", report)
    assert states and float(states[1]) > 300_000, "the search is not empty"
    assert "unreached in proctype Validator\n\t(0 of" in report, "every rule was applied"


@pytest.mark.parametrize(
    "bug",
    [
        ("QUORUM=2",),
        ("NOLOCK",),
        ("TRUSTVR",),
        ("UNLOCK", "ROUNDS=3"),
        ("FORGETLOCK",),
        ("VOTETWICE",),
    ],
    ids=" ".join,
)
def test_a_planted_bug_is_found(bug: tuple[str, ...], tmp_path: Path) -> None:
    report = tool.check(tmp_path, *bug)
    assert errors(report) == 1
    assert "assertion violated (decided!=(1|2))" in report.replace(" !=", "!=")


def test_something_can_be_decided_at_all(tmp_path: Path) -> None:
    assert errors(tool.check(tmp_path, "REACH")) == 1


def test_the_model_names_every_rule_and_has_its_quorums() -> None:
    text = tool.MODEL.read_text()
    places = re.findall(r"(?i)lines?[_ ]([\d, and]+)", text)
    named = {int(number) for place in places for number in re.findall(r"\d+", place)}
    for name in ("algorithm.py", "core.py"):
        source = (tool.MODEL.parent / name).read_text()
        rules = {int(n) for n in re.findall(r"(?:def _line_|# line )(\d+)", source)}
        assert rules and rules <= named, f"{name}: {sorted(rules - named)}"
    assert f"#define QUORUM {quorum(4, BYZANTINE)} " in text
    assert quorum(3, CRASH) == quorum(4, BYZANTINE) - 1, "the same search, as the model says"
