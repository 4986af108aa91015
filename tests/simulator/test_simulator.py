"""Seeds of the simulated world, run with every change; and proof that it finds mistakes."""

from __future__ import annotations

import pytest

from swarm.ledger.consensus.core import Core
from tests.simulator import bugs
from tests.simulator.judge import Broken
from tests.simulator.ledgers import KvLedger, RealLedger
from tests.simulator.world import Profile, World

SEEDS = 20  # a batch


@pytest.mark.parametrize("batch", range(10))
def test_random_worlds_of_the_real_state_machine_keep_all_invariants(batch: int) -> None:
    for seed in range(batch * SEEDS, (batch + 1) * SEEDS):
        World(seed, ledger=RealLedger).run()


def test_random_worlds_of_the_double_keep_all_invariants() -> None:
    for seed in range(1000, 1000 + SEEDS):
        World(seed, ledger=KvLedger).run()


def test_the_same_seed_is_the_same_world() -> None:
    first, second = World(4), World(4)
    assert first.run() == second.run()
    assert [b.id for b in first.judge.decided.values()] == [
        b.id for b in second.judge.decided.values()
    ]


SHRINKING = Profile(
    observers=1, loss=0.05, delay=0.6, partitions=3, crashes=1, crash_in_step=0.01, lost_disks=1,
    joins=1, leaves=1, transactions=4,
)  # fmt: skip


@pytest.mark.parametrize("seed", [32, 35])
def test_a_lost_disk_while_the_validators_become_so_few_that_all_are_needed(seed: int) -> None:
    """Found in random worlds: the returned node had taken the round's steps in silence."""
    World(seed, SHRINKING).run()


# Which profile shows a mistake soonest was found by trying; all show in random profiles as well.
LOSSY = Profile(byzantine=True, loss=0.1, delay=0.15, transactions=30, partitions=3)
DEEP = Profile(byzantine=True, loss=0.2, delay=0.3, transactions=20, partitions=3)
STORMY = Profile(loss=0.3, delay=0.6, transactions=6, crashes=3)
LIAR = Profile(byzantine=True, loss=0.2, delay=0.3, transactions=8)


@pytest.mark.parametrize(
    ("bug", "profile", "first", "complaint"),
    [
        (bugs.QuorumMinusOne, None, 0, "is not certified|two blocks"),
        (bugs.Forgetful, None, 0, "signed two values"),
        (bugs.Talkative, None, 0, "not on its disk"),
        (bugs.SameSignerTwice, LIAR, 0, "is not certified"),
        (bugs.NoRepair, None, 0, "no progress"),
        (bugs.NeverAgain, STORMY, 8, "no progress"),
        (bugs.FirstVoteOnly, LIAR, 30, "no progress"),
        (bugs.Faithless, DEEP, 91, "is certified, but|two blocks"),
        (bugs.Impatient, Profile(delay=1.5, transactions=5), 26, "no progress"),
        (bugs.PrevotesAnything, LIAR, 0, "invalid block|different state"),
        (
            bugs.VotesWithEmptyStore,
            Profile(lost_disks=1, delay=0.3, partitions=2),
            0,
            "signed two values|two blocks",
        ),
    ],
)
def test_a_planted_bug_is_found(
    bug: type[Core], profile: Profile | None, first: int, complaint: str
) -> None:
    with pytest.raises(Broken, match=complaint):
        for seed in range(first, first + 40):
            World(seed, profile, core=bug).run()
