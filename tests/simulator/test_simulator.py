"""Seeds of the simulated world, run with every change."""

from __future__ import annotations

import pytest

from tests.simulator.world import World

BATCHES = 10
SEEDS = 24  # a batch


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_worlds_keep_all_invariants(batch: int) -> None:
    for seed in range(batch * SEEDS, (batch + 1) * SEEDS):
        World(seed).run()
