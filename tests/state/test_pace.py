"""Adaptive sync: the interval follows the median loss of the members, windowed over rounds."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.ledger.state import pace


def contract(frequency: int = 16, *, adaptive: bool = True) -> Any:
    made: Any = {
        "rules": {"sync_frequency": frequency, "adaptive": adaptive},
        "members": {},
        "last": None,
        "interval": 0,
        "losses": [],
    }
    pace.start(made)
    return made


def decide(contract: Any, *losses: str) -> int:
    """Another round is decided; before, members have reported about the one before it."""
    number = contract["last"]["round"] if contract["last"] else -1
    for uid, loss in enumerate(losses):
        contract["members"][uid] = {"loss": loss, "reported_round": number, "state": "active"}
    pace.adapt(contract)
    contract["last"] = {"round": number + 1}
    return int(contract["interval"])


def test_it_grows_while_the_loss_falls_and_shrinks_when_it_does_not() -> None:
    run = contract(16)
    decide(run)  # the first round: nothing was there to report about
    intervals = [decide(run, loss) for loss in ("2.0", "1.5", "1.0", "0.5", "0.5", "3", "3")]
    #        first loss: no trend yet
    assert intervals == [16, 20, 25, 31, 38, 29, 22]
    # The mean of 2, 1.5, 1, .5, .5 falls with the second .5; it rises with the 3.


def test_the_window_forgets() -> None:
    run = contract(100)
    decide(run)
    for _ in range(pace.WINDOW):
        decide(run, "1")
    assert run["losses"] == [pace.UNIT] * pace.WINDOW
    low = run["interval"]
    assert low < 100
    decide(run, "0.5")
    assert run["interval"] > low
    assert len(run["losses"]) == pace.WINDOW


def test_it_stays_within_its_span() -> None:
    falling, rising = contract(16), contract(16)
    decide(falling)
    decide(rising)
    for number in range(40):
        decide(falling, str(100 - number))
        decide(rising, str(100 + number))
    assert falling["interval"] == 16 * pace.SPAN
    assert rising["interval"] == 16 // pace.SPAN
    assert pace.following(1, False, 1) == 1


def test_what_does_not_count() -> None:
    run = contract(16)
    decide(run)
    decide(run, "2")
    assert decide(run, "nan") == decide(run, "") == decide(run, "1e30") == 16
    assert run["losses"] == [2 * pace.UNIT]
    # An old report, and one of a member that has gone.
    run["members"] = {
        0: {"loss": "1", "reported_round": 0, "state": "active"},
        1: {"loss": "1", "reported_round": run["last"]["round"], "state": "lost"},
    }
    assert decide(run) == 16
    fixed = contract(16, adaptive=False)
    decide(fixed)
    decide(fixed, "2")
    assert decide(fixed, "1") == 16


def test_a_minority_does_not_set_the_pace() -> None:
    honest, attacked = contract(16), contract(16)
    for run in (honest, attacked):
        decide(run)
    for loss in ("3", "2", "1"):
        decide(honest, loss, loss, loss)
        decide(attacked, loss, loss, "-999999999")
    assert honest["interval"] == attacked["interval"]
    even = contract(16)
    decide(even)
    decide(even, "1", "2")
    assert even["losses"] == [3 * pace.UNIT // 2]


@given(st.floats(-1e8, 1e8, allow_nan=False))
def test_losses_as_callbacks_write_them(loss: float) -> None:
    parsed = pace.parse(format(loss, ".9g"))
    assert parsed == int(Decimal(format(loss, ".9g")) * pace.UNIT)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("-0.0", 0), ("1e-9", 1), ("9.9e-10", 0), ("1e-999999", 0), ("5e8", 5 * 10**17),
        ("1e999999", None), ("inf", None), ("-inf", None), ("nan", None), ("", None),
        ("1000000000", 10**18), ("1000000001", None), ("0000000000000000000001", 10**9),
        ("0.00000000000000000000000000001e29", 10**9), ("00e99", 0),
    ],
)  # fmt: skip
def test_numbers_at_the_edges(text: str, value: int | None) -> None:
    assert pace.parse(text) == value
