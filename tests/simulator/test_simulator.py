"""Seeds of the simulated world, run with every change: 4,000 and more.

3,800 of them order for the key-value double, 200 for the product's state machine; the consensus
core is the product's in all. What a seed found once is in `test_found.py`; what the simulator is
able to find, in `test_planted_bugs.py`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from swarm.ledger.consensus import messages as msg
from tests.simulator.judge import Broken
from tests.simulator.ledgers import KvLedger, real_ledger
from tests.simulator.profiles import BEYOND, DIRECTED, FAULTS, LIES, Profile
from tests.simulator.world import World

DOUBLE_SEEDS = 200  # a batch
REAL_SEEDS = 40


@pytest.fixture(autouse=True)
def collect_once_a_test() -> Iterator[None]:
    """Looking for garbage all the time takes a seventh of the processor's."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest.mark.parametrize("batch", range(19))
def test_random_worlds_of_the_double_keep_all_invariants(batch: int) -> None:
    for seed in range(batch * DOUBLE_SEEDS, (batch + 1) * DOUBLE_SEEDS):
        World(seed, ledger=KvLedger).run()


@pytest.mark.parametrize("batch", range(5))
def test_random_worlds_of_the_real_state_machine_keep_all_invariants(batch: int) -> None:
    for seed in range(batch * REAL_SEEDS, (batch + 1) * REAL_SEEDS):
        World(seed, ledger=real_ledger).run()


@pytest.mark.parametrize("name", [name for name in DIRECTED if name not in BEYOND])
def test_worlds_of_each_directed_profile_keep_all_invariants(name: str) -> None:
    for seed in range(6):
        World(seed, name).run()


@pytest.mark.parametrize(
    ("validators", "model"), [(1, "byzantine"), (2, "byzantine"), (3, "crash"), (4, "byzantine")]
)
def test_a_process_may_end_at_every_point_of_a_short_run(validators: int, model: str) -> None:
    """Before, between and after all effects of all steps of all nodes, each in a world of its own.

    The first point of a step is before it is durable, the second after: with one transaction a
    step, as the store has it, there is nothing between.
    """
    profile = replace(DIRECTED["crash-points"][1], validators=validators, model=model)
    whole = World(0, profile)
    whole.run()
    assert whole.points > 10 * validators
    ended = 0
    for point in range(whole.points):
        world = World(0, replace(profile, crash_at=point))
        ended += world.run()["crashes"]
    assert ended == whole.points
    assert whole.stats["crashes"] == 0


def test_the_same_seed_is_the_same_world() -> None:
    first, second = World(4), World(4)
    assert first.run() == second.run()
    assert [b.id for b in first.judge.decided.values()] == [
        b.id for b in second.judge.decided.values()
    ]


def test_every_fault_happens_and_can_be_left_out() -> None:
    """Each name changes what random worlds contain."""
    some = [World(seed).profile for seed in range(60)]
    for fault in FAULTS:
        assert any(profile.without({fault}) != profile for profile in some), fault
    bare = [profile.without(FAULTS) for profile in some]
    calm = Profile(reorder=False)
    for profile in bare:
        kept = replace(
            calm, validators=profile.validators, model=profile.model, heal=profile.heal,
            observers=profile.observers, transactions=profile.transactions, delay=profile.delay,
        )  # fmt: skip
        assert profile == kept
    assert set(LIES) < set(FAULTS)


def test_links_that_keep_the_order_do() -> None:
    world = World(7, Profile(reorder=False, delay=0.5, loss=0.2, duplicate=0.2))
    seen: dict[tuple[str, str], float] = {}
    ask = msg.Ask(0, 0, False)
    for now in range(200):
        for when in world.network.arrivals("a", "b", ask, now * 0.01):
            assert when > seen.get(("a", "b"), 0.0)
            seen["a", "b"] = when


def test_a_failure_tells_how_to_see_it_again() -> None:
    with pytest.raises(Broken, match=r"^seed 2: two blocks at height .*liars=2"):
        World(2, "too-many-liars").run()
