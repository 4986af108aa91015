"""Worlds that found mistakes in the core, kept after they were mended."""

from __future__ import annotations

import pytest

from tests.simulator.profiles import Profile
from tests.simulator.world import World

SHRINKING = Profile(
    observers=1, loss=0.05, delay=0.6, partitions=3, crashes=1, crash_in_step=0.01, lost_disks=1,
    joins=1, leaves=1, transactions=4, heal=12.0,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_a_lost_disk_while_the_validators_become_so_few_that_all_are_needed(seed: int) -> None:
    """The returned node had taken the round's steps in silence (`Algorithm._resolve`)."""
    World(seed, SHRINKING).run()


EMPTY = Profile(
    observers=1, transactions=1, heal=1.0, loss=0.2, duplicate=0.02, reorder=False, delay=0.1,
    tail=0.02, partitions=1, drift=0.05, crashes=2, torn=True, joins=2, liars=1, acts=4,
    lies=frozenset(
        {"equivocate", "old-votes", "replay", "stale", "twins", "withhold", "wrong-next"}
    ),
)  # fmt: skip


@pytest.mark.parametrize("seed", [1592, *range(8)])
def test_a_liar_begins_a_height_for_which_nobody_has_work_while_nodes_join(seed: int) -> None:
    """Rounds went on for ever; whoever came later never voted (`test_empty_rounds.py`)."""
    World(seed, EMPTY).run()


def test_a_key_in_two_processes_does_not_count_twice() -> None:
    """A process decided alone with another one, as its own vote came back before it was cast."""
    World(177, "lossy").run()


def test_a_liar_of_many_values_does_not_keep_a_lock_closed() -> None:
    """It signed more values than a node counts, and the one that mattered was not among them."""
    World(76, "twins").run()
