"""Four network nodes on hosts of their own, cut off from each other and joined again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from swarm.api.client import ApiClient
from swarm.errors import RemoteError
from swarm.identity import Role
from tests import pki
from tests.e2e import netns
from tests.processes import Daemon, Processes, until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

P2P, API = 30303, 30304


class Net:
    """A network of four, each node on its own host."""

    def __init__(self, run: Processes, ca: pki.Authority, hosts: Sequence[netns.Namespace]) -> None:
        self.hosts = list(hosts)
        self.nodes = [self._node(run, ca, k) for k in range(len(hosts))]
        for sn in self.nodes:
            sn.wait_for("Starting SWARM-API-SERVER", 120)
        identity = run.identity(ca, Role.SWCI, "operator")
        self.clients = [
            run.close_later(ApiClient(identity, [(host.managed, API)], learn=False, timeout=5.0))
            for host in hosts
        ]
        self.number = 0
        until(lambda: len(self.status(0)["validators"]) == 4, 60, "four validators")
        until(lambda: all(len(self.status(k)["peers"]) == 3 for k in range(4)), 60, "all connected")

    def _node(self, run: Processes, ca: pki.Authority, k: int) -> Daemon:
        name, host = f"sn{k + 1}", self.hosts[k]
        settings = {
            **pki.environment(run.directory / "cert" / name, Role.SN, ca, name=name),
            "THIS_NODE_IP": host.address,
            "SWARM_NODE_NAME": name,
            "SN_API_SERVER_PORT": str(API),
            "SN_P2P_PORT": str(P2P),
            "SWARM_DATA_DIR": str(run.directory / "data" / name),
        }
        if k:
            settings["SENTINEL_NODE_IP"] = self.hosts[0].address
        else:
            settings["SN_I_AM_SENTINEL"] = "1"
        return run.start(name, "sentinel", settings, prefix=host.prefix)

    def status(self, k: int) -> dict[str, object]:
        return self.clients[k].status()

    def write(self, k: int, patience: float = 60.0) -> str:
        """A new task through node `k`; its name."""
        self.number += 1
        name = f"t{self.number}"
        task = {"name": name, "type": "RUN_SWARM", "author": "A", "prereq": "ROOTTASK"}
        self.clients[k].submit("task.create", {**task, "outcome": "o"}, patience=patience)
        return name

    def split(self, *sides: Sequence[int]) -> None:
        """Hosts of different sides hear nothing of each other."""
        for side in sides:
            others = [self.hosts[k] for other in sides if other is not side for k in other]
            for k in side:
                self.hosts[k].cut(*others)

    def heal(self) -> None:
        for host in self.hosts:
            host.heal()

    def agree(self, tasks: Sequence[str]) -> None:
        """All come to the same height and state, and have these tasks."""

        def same() -> bool:
            found = [self.status(k) for k in range(4)]
            return len({(s["height"], s["digest"]) for s in found}) == 1

        until(same, 60, "equal heights and digests")
        for client in self.clients:
            assert set(tasks) <= set(client.table("tasks"))
        for sn in self.nodes:
            assert "voted twice" not in sn.log and "Traceback" not in sn.log


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with netns.several_hosts(4) as hosts, Processes(tmp_path) as run:
        yield Net(run, pki.authority(tmp_path), hosts)


def explained(net: Net, k: int, *names: str) -> None:
    """Node `k` says in its status and its log for whom it waits."""
    until(lambda: all(n in str(net.status(k)["waiting"]) for n in names), 60, f"sn{k + 1} explains")
    sentence = str(net.status(k)["waiting"])
    assert sentence.startswith("waiting for ") and "\n" not in sentence
    net.nodes[k].wait_for(f"ledger: waiting for .*{names[0]}", 30)


def test_who_is_cut_off_stops_and_says_why_and_the_others_go_on(net: Net) -> None:
    tasks = [net.write(0)]
    net.split([0, 1, 2], [3])
    explained(net, 3, "sn1", "sn2", "sn3")
    with pytest.raises(RemoteError) as caught:
        net.write(3, patience=2)
    assert caught.value.code == "SW5005" and "sn1" in caught.value.cause
    height = net.status(3)["height"]
    tasks += [net.write(k) for k in (0, 1, 2)]
    assert net.status(3)["height"] == height
    net.heal()
    until(lambda: net.status(3)["height"] == net.status(0)["height"], 60, "sn4 catches up")
    until(lambda: net.status(3)["waiting"] == "", 60, "sn4 waits no more")
    tasks.append(net.write(3))
    net.agree(tasks)


def test_two_against_two_decide_nothing_and_go_on_together(net: Net) -> None:
    tasks = [net.write(0)]
    net.agree(tasks)
    heights = [net.status(k)["height"] for k in range(4)]
    net.split([0, 1], [2, 3])
    explained(net, 0, "sn3", "sn4")
    explained(net, 2, "sn1", "sn2")
    for k in (1, 3):
        with pytest.raises(RemoteError) as caught:
            net.write(k, patience=2)
        assert caught.value.code == "SW5005"
    assert [net.status(k)["height"] for k in range(4)] == heights
    net.heal()
    until(lambda: len(net.status(0)["peers"]) == 3, 60, "they are connected again")
    tasks += [net.write(k) for k in range(4)]
    net.agree(tasks)
