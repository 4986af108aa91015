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
