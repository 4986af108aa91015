"""Whatever happens, replicas take the steps that the table has, and all of those."""

from __future__ import annotations

from swarm.ledger.consensus.algorithm import STEPS
from swarm.ledger.consensus.core import Core
from swarm.ledger.consensus.steps import TRANSITIONS
from tests.simulator.world import World

ALLOWED = {(row.source, row.target) for row in TRANSITIONS.rows}
SEEDS = 40


def test_replicas_take_the_steps_of_the_table() -> None:
    taken: set[tuple[str, str]] = set()

    class Watched(Core):
        """The production core; each assignment of its step is written down."""

        def __setattr__(self, name: str, value: object) -> None:
            if name == "step" and "step" in self.__dict__:
                taken.add((STEPS[self.step], STEPS[value]))  # type: ignore[index]
            super().__setattr__(name, value)

    for seed in range(SEEDS):
        World(seed, core=Watched).run()
    assert taken == ALLOWED
