"""What may happen in a simulated world: faults by name, random mixtures, and directed profiles.

A random profile never asks for more than the fault model tolerates; a profile made by hand may.
Times are virtual seconds, chances are per message or per step.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

LIES = {
    "twins": "a liar runs two processes with one key on two disks (Twins, arXiv:2004.10617)",
    "equivocate": "a liar votes for and proposes different values to different nodes",
    "old-votes": "a liar votes for rounds gone by, and revives blocks of old rounds",
    "withhold": "a liar keeps its proposals to itself",
    "partial": "a liar's messages reach some nodes only",
    "forge": "a liar makes up certificates, signs in others' names and repeats signatures",
    "wrong-state": "a liar proposes blocks that name another state or other verdicts",
    "wrong-next": "a liar proposes blocks that name other validators for the next height",
    "replay": "a liar proposes transactions again, or twice in a block",
    "stale": "a liar sends messages of past and future heights and rounds",
}
FAULTS = {
    "loss": "messages are lost",
    "duplicate": "messages come twice",
    "reorder": "messages overtake each other on their way between two nodes",
    "delay": "messages take longer than the time-outs, some far longer",
    "partition": "the network splits in two for a while",
    "asymmetric": "for a while A hears B, and B does not hear A",
    "deaf": "a node misses all votes of a step, so that few see a quorum",
    "skew": "clocks differ: the monotonic one by hours, the wall clock by days, and that one jumps",
    "drift": "clocks run at different speeds",
    "crash": "processes end at any time and between any two effects of a step",
    "torn": "processes end while a step is written: it is on disk whole or not at all",
    "fsync": "a disk loses its newest steps although it had confirmed them",
    "disk": "a disk is lost altogether",
    "join": "nodes become validators",
    "leave": "validators leave",
    "evict": "validators are voted out",
    **LIES,
}


@dataclass(frozen=True)
class Profile:
    """How much of each fault. The plan is drawn from it with the world's random numbers."""

    validators: int = 4
    model: str = "byzantine"
    observers: int = 0
    transactions: int = 4
    heal: float = 5.0  # until then there is trouble; afterwards delays only
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: bool = True
    delay: float = 0.05  # the longest in ordinary traffic; it stays after healing
    tail: float = 0.0  # chance of a delay up to 4 s, beyond the first dozen of time-outs
    partitions: int = 0
    one_way: int = 0
    deaf: float = 0.0  # chance for a node, a step and a kind of message
    skew: bool = False
    drift: float = 0.0  # clocks run at 1 - drift to 1 + drift
    crashes: int = 0
    crash_in_step: float = 0.0
    crash_at: int | None = None  # the number of the crash point at which a process ends
    torn: bool = False  # a crash while writing may leave the step on disk
    forgetful: int = 0  # nodes whose disks lose confirmed steps: `fsync`
    lost_disks: int = 0
    joins: int = 0
    leaves: int = 0
    evictions: int = 0
    liars: int = 0
    lies: frozenset[str] = frozenset()
    acts: int = 0  # lies told at random times, beside those that answer what others do

    def describe(self) -> str:
        """Only what differs from the defaults."""
        plain = Profile()
        changed = [
            f"{f.name}={_show(getattr(self, f.name))}"
            for f in fields(self)
            if getattr(self, f.name) != getattr(plain, f.name)
        ]
        return ", ".join(changed) or "all defaults"

    def without(self, faults: Collection[str]) -> Profile:
        """The same with some faults left out."""
        off: dict[str, object] = {}
        for fault in faults:
            off.update(_OFF.get(fault, {}))
        lies = self.lies - frozenset(faults)
        if not lies:
            off.update(liars=0, acts=0)
        return replace(self, lies=lies, **off)  # type: ignore[arg-type]


_OFF: dict[str, dict[str, object]] = {
    "loss": {"loss": 0.0},
    "duplicate": {"duplicate": 0.0},
    "reorder": {"reorder": False},
    "delay": {"delay": 0.05, "tail": 0.0},
    "partition": {"partitions": 0},
    "asymmetric": {"one_way": 0},
    "deaf": {"deaf": 0.0},
    "skew": {"skew": False},
    "drift": {"drift": 0.0},
    "crash": {"crashes": 0, "crash_in_step": 0.0},
    "torn": {"torn": False},
    "fsync": {"forgetful": 0},
    "disk": {"lost_disks": 0},
    "join": {"joins": 0},
    "leave": {"leaves": 0},
    "evict": {"evictions": 0},
}


def _show(value: object) -> str:
    return "+".join(sorted(value)) if isinstance(value, frozenset) else str(value)


def tolerated(validators: int, model: str) -> int:
    """How many validators may be faulty; written anew here, so as not to trust the core's."""
    return (validators - 1) // 3 if model == "byzantine" else (validators - 1) // 2


SMALL = (1, 2, 2, 3, 3, 4, 4, 4, 4, 4, 4, 4)
SIZES = (1, 2, 3, 4, 4, 4, 5, 5, 6, 7)


class Extent(NamedTuple):
    """How large a random world is."""

    sizes: tuple[int, ...]
    transactions: tuple[int, int]
    heal: float
    acts: int


def _extent(rng: random.Random) -> Extent:
    """Most worlds are small, as then more of them fit a minute; a few are large."""
    dice = rng.random()
    if dice < 0.85:
        return Extent(SMALL, (1, 2), rng.choice((1.0, 1.5)), 4)
    if dice < 0.99:
        return Extent(SIZES, (1, 4), rng.choice((2.0, 4.0)), 8)
    return Extent(SIZES, (5, 20), 12.0, 12)


def random_profile(rng: random.Random, sizes: Sequence[int] = ()) -> Profile:
    """One of the many legal mixtures; `sizes` chooses among numbers of validators."""
    extent = _extent(rng)
    n = rng.choice(sizes or extent.sizes)
    model = rng.choice(("byzantine", "byzantine", "crash"))
    spare = tolerated(n, model)
    lying = model == "byzantine" and spare and rng.random() < 0.6
    liars = rng.randint(1, spare) if lying else 0
    spare -= liars
    forgetful = int(model == "byzantine" and spare > 0 and rng.random() < 0.3)
    spare -= forgetful
    lost = int(spare > 0 and rng.random() < 0.3)
    stable = not (liars or forgetful)  # taking honest ones away could leave too many others
    profile = Profile(
        validators=n,
        model=model,
        observers=rng.choice((0, 0, 0, 1)),
        transactions=rng.randint(*extent.transactions),
        heal=extent.heal,
        loss=rng.choice((0.0, 0.0, 0.05, 0.2)),
        duplicate=rng.choice((0.0, 0.02, 0.1)),
        reorder=rng.random() < 0.7,
        delay=rng.choice((0.01, 0.1, 0.1, 0.1, 0.6)),
        tail=rng.choice((0.0, 0.0, 0.02)),
        partitions=rng.choice((0, 0, 0, 1, 2)),
        one_way=rng.choice((0, 0, 0, 1, 2)),
        deaf=rng.choice((0.0, 0.0, 0.3)),
        skew=rng.random() < 0.3,
        drift=rng.choice((0.0, 0.0, 0.05, 0.3)),
        crashes=rng.choice((0, 0, 1, 2)),
        crash_in_step=rng.choice((0.0, 0.003, 0.02)),
        torn=rng.random() < 0.5,
        forgetful=forgetful,
        lost_disks=lost,
        joins=rng.choice((0, 0, 0, 0, 1, 2)),
        leaves=int(stable and rng.random() < 0.25),
        evictions=int((stable or bool(liars)) and rng.random() < 0.2),
        liars=liars,
        lies=_some(rng) if liars else frozenset(),
        acts=rng.randint(1, extent.acts) if liars else 0,
    )
    if n - profile.leaves - profile.evictions < 2:
        # The ledger of a single validator is gone with its disk.
        return replace(profile, lost_disks=0)
    return profile


def _some(rng: random.Random) -> frozenset[str]:
    names = list(LIES)
    return frozenset(rng.sample(names, rng.randint(1, len(names))))


ALL_LIES = frozenset(LIES)
VOTING_LIES = frozenset({"equivocate", "old-votes", "partial"})

DIRECTED: dict[str, tuple[str, Profile]] = {
    "lossy": (
        "A liar and lost messages on long chains: locks, and certificates of several rounds.",
        Profile(
            liars=1, lies=ALL_LIES, acts=20, loss=0.1, delay=0.15, transactions=12, partitions=2,
            heal=8.0,
        ),
    ),
    "ladder": (
        "Few see each quorum of prevotes, so locks of many rounds stand beside each other: the "
        "rule about unlocking (lines 28 to 30).",
        Profile(
            liars=1, lies=VOTING_LIES, acts=60, deaf=0.5, loss=0.05, delay=0.1, transactions=2,
            heal=8.0,
        ),
    ),
    "storm": (
        "Every third message lost, delays beyond the time-outs, crashes: deep rounds.",
        Profile(loss=0.3, delay=0.6, crashes=3, transactions=3, heal=6.0, torn=True),
    ),
    "slow": (
        "Delays of five time-outs, for ever: only time-outs that grow can end a round.",
        Profile(delay=1.5, transactions=3, heal=2.0),
    ),
    "amnesia": (
        "A disk is lost amid partitions: nobody may vote who might have voted otherwise before.",
        Profile(lost_disks=1, delay=0.3, partitions=2, transactions=6, heal=8.0),
    ),
    "shrink": (
        "Validators join and leave while one has lost its disk and all others are needed.",
        Profile(
            observers=1, loss=0.05, delay=0.6, partitions=3, crashes=1, crash_in_step=0.01,
            lost_disks=1, joins=1, leaves=1, transactions=4, heal=12.0,
        ),
    ),
    "churn": (
        "Validators come, go and are voted out while blocks are decided: which set a height has.",
        Profile(
            validators=5, joins=3, leaves=1, evictions=1, observers=1, delay=0.2, loss=0.05,
            transactions=6, heal=6.0,
        ),
    ),
    "forger": (
        "A liar makes up certificates, proposals and votes all the time.",
        Profile(
            liars=1, lies=frozenset({"forge", "wrong-state", "wrong-next", "replay", "stale"}),
            acts=60, delay=0.2, loss=0.05, transactions=6,
        ),
    ),
    "twins": (
        "One key in two processes, each talking to some of the others (Twins, arXiv:2004.10617).",
        Profile(
            liars=1, lies=frozenset({"twins", "equivocate", "withhold"}), acts=20, loss=0.2,
            delay=0.3, transactions=4, heal=8.0,
        ),
    ),
    "clocks": (
        "Clocks that differ by days, jump, and run up to a third too fast or too slow.",
        Profile(skew=True, drift=0.33, delay=0.3, crashes=2, transactions=6, joins=1),
    ),
    "crashes": (
        "Processes end at every other moment, and while they write.",
        Profile(crashes=4, crash_in_step=0.03, torn=True, delay=0.1, transactions=6),
    ),
    "rollback": (
        "A disk that loses steps it had confirmed: its node counts as a liar and nothing breaks.",
        Profile(forgetful=1, crashes=3, crash_in_step=0.02, delay=0.3, loss=0.1, transactions=5),
    ),
    "one-way": (
        "Links that carry messages in one direction only.",
        Profile(validators=5, one_way=6, delay=0.2, transactions=5, heal=8.0),
    ),
    "crash-points": (
        "Two validators and one transaction: for running with every crash point in turn.",
        Profile(validators=2, transactions=1, delay=0.01, heal=1.0, torn=True),
    ),
    "too-many-liars": (
        "Two liars of four, one more than tolerated: safety is void, and a fork is found.",
        Profile(liars=2, lies=ALL_LIES, acts=40, loss=0.1, delay=0.2, transactions=6, heal=8.0),
    ),
    "liar-under-crash-rule": (
        "One liar among three under the rule for crashes only: a fork, or a node that stops.",
        Profile(
            validators=3, model="crash", liars=1, lies=frozenset({"twins", "equivocate"}), acts=30,
            partitions=2, delay=0.2, transactions=6,
        ),
    ),
}  # fmt: skip
BEYOND = ("too-many-liars", "liar-under-crash-rule")  # more than the model tolerates
