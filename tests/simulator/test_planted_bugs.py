"""The simulator is tested, too: it finds each planted bug within the stated number of seeds.

Which profile shows a bug soonest was found by trying; `python -m tests.simulator` has more of them.
"""

from __future__ import annotations

from typing import Any

import pytest

from swarm.ledger.consensus.core import Core
from tests.simulator import bad_applications as bad
from tests.simulator import bugs
from tests.simulator.judge import Broken
from tests.simulator.ledgers import Double, KvLedger
from tests.simulator.profiles import BEYOND, DIRECTED
from tests.simulator.world import World

RANDOM = ""  # no directed profile


def first_failure(profile: str, seeds: range, core: type[Core] = Core, **options: Any) -> str:
    """What the first of the seeds that fails has to say, or ""."""
    for seed in seeds:
        try:
            World(seed, profile or None, core=core, **options).run()
        except Broken as error:
            return str(error)
    return ""


@pytest.mark.parametrize(
    ("bug", "profile", "seeds", "complaint"),
    [
        # Votes and locks.
        (bugs.QuorumMinusOne, "lossy", range(4), "not certified|without a quorum"),
        (bugs.NoLock, "ladder", range(4), "is locked since"),
        (bugs.WrongUnlock, "lossy", range(6, 16), "is locked since"),
        (bugs.NeverAgain, "storm", range(2), "no progress"),
        (bugs.DuplicatesCounted, "storm", range(4), "not certified|without a quorum"),
        (bugs.FirstVoteOnly, "twins", range(11, 15), "no progress"),
        (bugs.UnsignedVotes, "forger", range(4), "not certified|accused|without a quorum"),
        (bugs.PrevotesAnything, "forger", range(4), "invalid block|names|in two blocks"),
        (bugs.TrustsNextValidators, "forger", range(8), "names other validators"),
        # Memory.
        (bugs.NoWriteAheadLog, "storm", range(4), "two values|no progress"),
        (bugs.ForgetsLock, "crashes", range(31, 36), "is locked since"),
        (bugs.LogAfterSend, "crashes", range(4), "not on its disk"),
        (bugs.VotesWithEmptyStore, "amnesia", range(20), "signed two values|two blocks"),
        # Certificates.
        (bugs.SameSignerTwice, "forger", range(4), "not certified"),
        (bugs.CertificateOfAnotherHeight, "forger", range(4), "not certified|two blocks"),
        # Validators, time, repair.
        (bugs.ChangeTooEarly, "churn", range(4), "not certified|without a quorum"),
        (bugs.ChangeTooLate, "churn", range(4), "no validator|not certified"),
        (bugs.FlatTimeouts, "ladder", range(17, 21), "no progress"),
        (bugs.LocalTime, RANDOM, range(4), "different state|no progress"),
        (bugs.NoRepair, "storm", range(4), "no progress"),
        (bugs.AsksNobodyAhead, "churn", range(2), "no progress"),
    ],
)
def test_a_planted_bug_of_the_core_is_found(
    bug: type[Core], profile: str, seeds: range, complaint: str
) -> None:
    with pytest.raises(Broken, match=complaint):
        raise Broken(first_failure(profile, seeds, bug))


@pytest.mark.parametrize(
    ("bug", "profile", "seeds", "complaint"),
    [
        (bad.Undetermined, RANDOM, range(4), "different state|states differ|no progress"),
        (bad.AcceptsReplays, "forger", range(8), "in two blocks|in a block twice"),
        (bad.DependsOnOrder, "storm", range(8), "other validators|no progress|certified"),
    ],
)
def test_a_planted_bug_of_the_application_is_found(
    bug: type[Double], profile: str, seeds: range, complaint: str
) -> None:
    def ledger(count: int, model: str) -> KvLedger:
        return KvLedger(count, model, bug)

    with pytest.raises(Broken, match=complaint):
        raise Broken(first_failure(profile, seeds, ledger=ledger))


@pytest.mark.parametrize("profile", BEYOND)
def test_with_more_liars_than_the_model_tolerates_a_fork_is_found(profile: str) -> None:
    said = (first_failure(profile, range(seed, seed + 1)) for seed in range(30))
    assert any("two blocks at height" in text for text in said)


def test_every_directed_profile_says_what_it_aims_at() -> None:
    assert all(aim.endswith(".") and len(aim) > 30 for aim, _ in DIRECTED.values())


def test_at_least_sixteen_bugs_are_planted() -> None:
    planted = {
        name
        for module in (bugs, bad)
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    assert len(planted) >= 16
