"""A short pass over all parsers: kept inputs, small changes of them, and bombs.

The long search is `python -m tests.fuzz`.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from tests.fuzz import corpus
from tests.fuzz.bombs import BOMBS
from tests.fuzz.mutate import mutants
from tests.fuzz.targets import ALL

MUTANTS = 30  # of each target
SECONDS = 0.4  # of processor time for them, and for the kept inputs
MAX_GROWTH = 400_000  # KiB of memory that one bomb may take

names = pytest.mark.parametrize("name", list(ALL))


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@names
def test_what_we_make_ourselves_is_understood(name: str) -> None:
    target = ALL[name]
    for data in target.seeds():
        target.attempt(data)


@names
def test_kept_inputs_raise_nothing_else(name: str) -> None:
    target = ALL[name]
    end = time.process_time() + 5 * SECONDS
    for data in corpus.kept(name):
        target.attempt(data)
        if time.process_time() > end:
            break


@names
def test_changed_inputs_raise_nothing_else(name: str) -> None:
    target = ALL[name]
    inputs = mutants([*target.seeds(), *corpus.kept(name)], name)
    end = time.process_time() + SECONDS
    for data in islice(inputs, MUTANTS):
        target.attempt(data)
        if time.process_time() > end:
            break


@pytest.mark.parametrize("name", list(BOMBS))
def test_no_bomb_costs_more_than_it_says(name: str) -> None:
    target = ALL[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in BOMBS[name]:
        target.attempt(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH


def test_all_kept_inputs_belong_to_a_target_and_are_small() -> None:
    paths = list(corpus.FOLDER.glob("*"))
    assert {path.stem for path in paths} <= set(ALL)
    assert sum(path.stat().st_size for path in paths) < 300_000
