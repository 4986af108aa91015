"""Network nodes as real processes on real disks, killed at random moments under load.

The moments are counted in acknowledged transactions, so that a faster or slower machine is hit at
the same places; the seed chooses them and the victims. What clients were promised, and what every
node signed and stored, is compared at the end.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pki
from tests.e2e.forked import ForkedProcesses
from tests.e2e.ledger_load import Load, digests, judge
from tests.processes import Daemon, Processes, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CYCLES = 50
SEED = 3
SILENT = 3.0  # seconds without a sign of a stopped node: ten times the first time-out


@pytest.fixture
def ca(tmp_path: Path) -> pki.Authority:
    return pki.authority(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Processes]:
    with ForkedProcesses(tmp_path) as processes:
        yield processes


def network(run: Processes, ca: pki.Authority, count: int = 4) -> list[Daemon]:
    """So many network nodes that are all validators."""
    first = run.sn("sn1", ca)
    rest = [run.sn(f"sn{n}", ca, sentinel=first, wait=None) for n in range(2, count + 1)]
    for sn in rest:
        run.ready(sn, 120)
    status = run.direct(ca, first).status
    until(lambda: len(status()["validators"]) == count, 60, f"{count} validators")
    return [first, *rest]


def settle(run: Processes, ca: pki.Authority, nodes: list[Daemon]) -> None:
    """All come to the same height and state, and are ended there."""
    clients = [run.direct(ca, sn) for sn in nodes]
    for sn in nodes:
        run.ready(sn, 120)
    until(lambda: len(digests(clients)) == 1, 120, "equal heights and digests")
    for sn in nodes:
        assert "voted twice" not in sn.log and "Traceback" not in sn.log
        sn.kill()


def test_fifty_kills_lose_and_double_nothing(run: Processes, ca: pki.Authority) -> None:
    """SIGKILL of one or two of four, wherever in its work, or in its start, it is.

    While two are down nothing can be committed, and the test waits for the first to be back: it is
    started again at once.
    """
    rng = random.Random(SEED)
    nodes = network(run, ca)
    load = Load(run, ca, nodes)
    for cycle in range(CYCLES):
        assert load.more(rng.randint(1, 12)), f"no progress in cycle {cycle}"
        load.more(1, rng.uniform(0.0, 0.03))  # or as long: anywhere in the next one
        victims = rng.sample(nodes, 2 if rng.random() < 0.2 else 1)
        for sn in victims:
            sn.signal(signal.SIGKILL)
        for sn in victims:
            sn.kill()
            sn.start()
    assert load.more(20)
    load.stop()
    settle(run, ca, nodes)
    assert not load.failures
    chains = judge(nodes, load)
    assert len({chain.ids for chain in chains}) == 1
    assert len(load.acknowledged) > 4 * CYCLES


def test_a_node_that_was_stopped_for_longer_than_the_time_outs_catches_up(
    run: Processes, ca: pki.Authority
) -> None:
    nodes = network(run, ca)
    load = Load(run, ca, nodes)
    assert load.more(10)
    one, stopped = run.direct(ca, nodes[0]), nodes[2]
    uid = run.direct(ca, stopped).status()["uid"]
    stopped.signal(signal.SIGSTOP)

    def silent() -> bool:
        peers = {peer["uid"]: peer["age_s"] for peer in one.status()["peers"]}
        age = peers.get(uid)
        return age is None or age > SILENT

    until(silent, 60, "the stopped node is missed")
    assert load.more(10), "the others go on without it"
    stopped.signal(signal.SIGCONT)
    assert load.more(10)
    load.stop()
    settle(run, ca, nodes)
    assert not load.failures
    judge(nodes, load)


def test_the_others_go_on_when_the_proposer_is_killed(run: Processes, ca: pki.Authority) -> None:
    nodes = network(run, ca)
    load = Load(run, ca, nodes)
    assert load.more(10)
    # The proposer stays as long as it can; the founder, alone at first, is the first one.
    nodes[0].kill()
    assert load.more(20)
    run.restart(nodes[0], 120)
    assert load.more(20)
    load.stop()
    settle(run, ca, nodes)
    assert not load.failures
    judge(nodes, load)
