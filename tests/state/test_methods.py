"""The ledger's table of merge methods says what the methods themselves say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import LocalError
from swarm.ledger.state import methods as ledger
from swarm.merge import methods as merging

WORDS = ["0.5", "1e99", "many", "nan", "inf", "float16"]
NUMBERS = st.one_of(st.integers(-2, 300), st.sampled_from(WORDS))
KEYS = ["f", "m", "tau", "iterations", "transferDtype", "x"]


def test_both_know_the_same_methods_and_arguments() -> None:
    assert set(ledger.LAWS) == set(merging.BUILT_IN)
    for name, law in ledger.LAWS.items():
        theirs = merging.BUILT_IN[name].ARGS
        assert {key: (arg.kind is int, *arg[1:]) for key, arg in theirs.items()} == {
            key: tuple(argument) for key, argument in law.arguments.items()
        }
    assert {key: set(allowed) for key, allowed in ledger.COMMON.items()} == {
        key: set(allowed) for key, allowed in merging.COMMON.items()
    }


@given(
    name=st.sampled_from(sorted(ledger.LAWS)),
    args=st.dictionaries(st.sampled_from(KEYS), NUMBERS, max_size=3),
    least=st.integers(1, 256),
)
@settings(max_examples=300, deadline=None)
def test_both_refuse_the_same(name: str, args: dict[str, Any], least: int) -> None:
    rules = {"merge_method": name, "merge_args": args, "min_peers": least}
    try:
        refused = merging.check(name, args, least)
    except LocalError as fault:
        refused = fault.cause
    assert bool(ledger.problem(rules)) == bool(refused), (refused, ledger.problem(rules))


@pytest.mark.parametrize("count", range(8))
def test_both_name_a_shortage_in_the_same_words(count: int) -> None:
    contract: Any = {
        "rules": {"merge_method": "krum", "merge_args": {"f": 1}},
        "checkins": {str(i): {"weight": 10} for i in range(count)} | {"idle": {"weight": 0}},
    }
    text = ledger.shortage(contract, contract["checkins"])
    if count == 0:
        assert text == ""  # there is nothing to merge
    else:
        assert text == merging.check("krum", {"f": 1}, count)
