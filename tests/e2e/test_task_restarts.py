"""Operator and network node are killed while a task runs: nothing is orphaned, nothing runs twice.

Real processes and a real network; a learner and a program that train.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.ledger.state import DEFAULT_RUNNER
from tests.processes import Processes
from tests.swop.programs import eventually
from tests.swop.test_swop_process import ENDS, TRAINS, Site, ended, pair_runs

pytestmark = pytest.mark.slow

# A round, then it waits to be told, another round, and the end.
PROGRAM = (
    "open('runs', 'a').write('x')\n"
    + TRAINS
    + "print('one round done', flush=True)\nimport time\n"
    + "while not os.path.exists('go'): time.sleep(0.02)\n"
    + "session.sync(weights, weightage=1, samples=1, epochs=2)\n"
    + ENDS
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Processes(tmp_path) as run:
        site = Site(run, tmp_path)
        yield site
        if site.swop.alive():
            site.swop.terminate()
        assert site.programs() == []


def pids(site: Site) -> set[int]:
    return {process.pid for process in site.programs()}


def test_operator_and_network_node_are_killed_while_a_pair_trains(site: Site) -> None:
    site.train(PROGRAM)
    site.swop.wait_for("one round done")
    before = pids(site)
    assert len(before) >= 2
    site.sn.kill()
    site.swop.kill()
    site.swop.start()  # before the network node: it waits, and says so
    site.swop.wait_for("Failed to connect to the API Server. Retrying 1 of 60")
    assert pids(site) == before, "the pair goes on by itself"
    site.run.restart(site.sn)
    site.swop.wait_for("API-Server is UP!")
    site.swop.wait_for("Found pair")
    assert pids(site) == before, "and is neither started again nor ended"
    record = site.wait(pair_runs)
    assert [peer["state"] for peer in record["peers"].values()] == ["RUNNING"]
    (site.user / "go").touch()
    assert ended(site) == ("COMPLETE", "training finished")
    assert (site.user / "runs").read_text() == "x"
    site.client.submit("runner.reset", {"runner": DEFAULT_RUNNER})
    site.swop.wait_for("Stopped and removed")
    assert site.programs() == []


def test_the_ledger_is_lost_for_ever_and_founded_anew(site: Site) -> None:
    """The task is gone with its ledger: the operator ends its pair, and works for the new one."""
    site.train(PROGRAM)
    site.swop.wait_for("one round done")
    site.sn.kill()
    shutil.rmtree(Path(site.sn.env["SWARM_DATA_DIR"]))
    site.run.restart(site.sn)
    site.swop.wait_for("serves another ledger")
    site.swop.wait_for("Starting over: its tasks are ended, and this operator enrolls again")
    site.swop.wait_for("Stopped and removed")
    eventually(lambda: site.programs() == [])
    (site.user / "runs").unlink()
    (site.user / "go").touch()
    site.train(PROGRAM)
    assert ended(site) == ("COMPLETE", "training finished")
    assert (site.user / "runs").read_text() == "x"
    nodes = site.client.table("nodes").values()
    assert [node["active"] for node in nodes if node["type"] == "SWOP"] == [True]
