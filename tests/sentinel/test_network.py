"""Network nodes as real processes: start, join, leave, die and return."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.authority import issue_leaf
from swarm.api.client import ApiClient
from swarm.errors import RemoteError
from swarm.identity import Role, node_uid
from tests import pki
from tests.processes import Daemon, Processes, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

START_LIMIT = 3.0  # seconds to the ready line
LEAVE_LIMIT = 5.0  # seconds from SIGTERM to the end


@pytest.fixture
def ca(tmp_path: Path) -> pki.Authority:
    return pki.authority(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        yield processes


def create(client: ApiClient, name: str, **options):
    args = {"name": name, "type": "RUN_SWARM", "author": "me", "prereq": "ROOTTASK", "outcome": "x"}
    return client.submit("task.create", args, **options)


def digests(clients: list[ApiClient]) -> set[tuple[int, str]]:
    return {(s["height"], s["digest"]) for s in (c.status() for c in clients)}


def agree(clients: list[ApiClient], timeout: float = 20) -> None:
    """All nodes come to the same height and the same state."""
    until(lambda: len(digests(clients)) == 1, timeout, "equal heights and digests")


def direct(run: Processes, ca: pki.Authority, sn: Daemon) -> ApiClient:
    """A client that talks to this node alone."""
    identity = run.identity(ca, Role.SWCI, f"direct-{sn.name}")
    client = ApiClient(identity, [(sn.host, sn.port)], learn=False)
    run._clients.append(client)
    return client


def network(run: Processes, ca: pki.Authority, count: int, **options) -> list[Daemon]:
    first = run.sn("sn1", ca, **options)
    rest = [run.sn(f"sn{n}", ca, sentinel=first, wait=None) for n in range(2, count + 1)]
    for sn in rest:
        run.ready(sn, 60)
    return [first, *rest]


def test_a_node_is_ready_within_three_seconds(run: Processes, ca: pki.Authority) -> None:
    started = time.monotonic()
    sn = run.sn("sn1", ca)
    # A start computes and waits for nothing. On a machine that is busy with other things, its own
    # time says how long it takes.
    took = min(time.monotonic() - started, sn.cpu_seconds())
    client = direct(run, ca, sn)
    assert client.is_up()
    assert create(client, "t1").ok
    assert "This is the sentinel network node sn1" in sn.log
    assert took < START_LIMIT


def test_the_last_one_leaves_quickly_and_returns_with_its_ledger(
    run: Processes, ca: pki.Authority
) -> None:
    sn = run.sn("sn1", ca)
    client = direct(run, ca, sn)
    create(client, "t1")
    before = client.status()
    started = time.monotonic()
    assert sn.terminate() == 0
    assert time.monotonic() - started < LEAVE_LIMIT
    run.restart(sn)
    after = client.status()
    assert after["chain"] == before["chain"] and after["height"] >= before["height"]
    assert client.record("tasks", "t1") is not None
    assert create(client, "t2").ok


def test_a_second_node_joins_and_the_first_one_leaves(run: Processes, ca: pki.Authority) -> None:
    sn1, sn2 = network(run, ca, 2)
    one, two = direct(run, ca, sn1), direct(run, ca, sn2)
    assert {v["name"] for v in two.status()["validators"]} == {"sn1", "sn2"}
    create(one, "t1")
    agree([one, two])
    presence = two.presence()
    assert all(presence[v["uid"]] < 20 for v in two.status()["validators"])
    started = time.monotonic()
    assert sn1.terminate() == 0
    assert time.monotonic() - started < LEAVE_LIMIT
    assert create(two, "t2").ok  # alone
    assert [v["name"] for v in two.status()["validators"]] == ["sn2"]
    run.restart(sn1)  # without a sentinel: its directory tells it where the others are
    until(lambda: len(two.status()["validators"]) == 2, 20, "sn1 votes again")
    assert create(one, "t3").ok
    agree([one, two])


def test_without_a_quorum_the_reason_is_told(run: Processes, ca: pki.Authority) -> None:
    sn1, sn2 = network(run, ca, 2)
    one = direct(run, ca, sn1)
    sn2.kill()
    with pytest.raises(RemoteError) as caught:
        create(one, "t1", patience=3)
    assert caught.value.code == "SW5005" and "sn2" in caught.value.cause, caught.value
    assert "sn2" in one.status()["waiting"]
    sn1.wait_for("ledger: .*sn2", 10)
    run.restart(sn2)
    assert create(one, "t2").ok
    assert one.record("tasks", "t1") is not None or create(one, "t1").ok  # it may be in by now


def test_a_killed_node_loses_nothing_that_was_acknowledged(
    run: Processes, ca: pki.Authority
) -> None:
    nodes = network(run, ca, 3, fault_model="crash")
    clients = [direct(run, ca, sn) for sn in nodes]
    acknowledged: list[str] = []
    stop, first = threading.Event(), threading.Event()

    failures: list[Exception] = []

    def load(worker: int, client: ApiClient) -> None:
        try:
            for number in itertools.count():
                if stop.is_set():
                    return
                name = f"t-{worker}-{number}"
                create(client, name)
                acknowledged.append(name)
                if len(acknowledged) >= 20:
                    first.set()
        except Exception as fault:
            failures.append(fault)

    loaders = [run.client(ca, nodes[w], nodes[(w + 1) % 3]) for w in range(3)]
    threads = [threading.Thread(target=load, args=pair) for pair in enumerate(loaders)]
    for thread in threads:
        thread.start()
    assert first.wait(60)
    nodes[1].kill()
    mark = len(acknowledged)
    until(lambda: len(acknowledged) > mark + 20, 60, "the others go on, and clients fail over")
    run.restart(nodes[1])
    mark = len(acknowledged)
    until(lambda: len(acknowledged) > mark + 10, 60, "all three go on")
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures
    agree(clients)
    for client in clients:
        assert set(acknowledged) <= set(client.table("tasks"))


def test_four_nodes_go_on_without_the_sentinel_and_a_fifth_joins(
    run: Processes, ca: pki.Authority
) -> None:
    nodes = network(run, ca, 4)
    client = run.client(ca, nodes[0])
    create(client, "t1")
    nodes[0].kill()
    assert create(client, "t2").ok  # through another node, learnt from the ledger
    fifth = run.sn("sn5", ca, sentinel=nodes[2])
    five = direct(run, ca, fifth)
    assert five.record("tasks", "t2") is not None
    assert create(five, "t3").ok
    agree([direct(run, ca, sn) for sn in (*nodes[1:], fifth)])


def test_a_learner_that_vanishes_is_reported_lost(run: Processes, ca: pki.Authority) -> None:
    sn = run.sn("sn1", ca)
    me = run.identity(ca, Role.SL, "1")
    client = ApiClient(me, [(sn.host, sn.port)])
    uid = node_uid(me.fingerprint, "sl1")
    client.submit(
        "node.enroll",
        {
            "uid_name": "sl1",
            "type": "SL",
            "host": "127.0.0.1",
            "port": 30305,
            "p2p": [],
            "peer_id": "",
            "parent": client.status()["uid"],
            "validator": False,
            "runner": "",
            "pairs": 0,
            "contract": "defaultbb.cqdb.sml.hpe",
            "version": "0",
        },
    )
    client.submit(
        "contract.enroll",
        {
            "contract": "defaultbb.cqdb.sml.hpe",
            "uid": uid,
            "name": "sl1",
            "host": "127.0.0.1",
            "port": 30305,
            "rules": {
                "min_peers": 2,
                "merge_method": "mean",
                "merge_args": {},
                "sync_frequency": 100,
                "adaptive": False,
            },
            "mode": "snapshot",
        },
    )
    client.watch([], uid=uid).wait(lambda w: w.connected, 5)
    assert client.presence()[uid] == 0.0
    client.close()
    other = run.client(ca, sn)
    watch = other.watch(["contracts/defaultbb.cqdb.sml.hpe"])

    def lost(_: object) -> bool:
        contract = watch.records["contracts/defaultbb.cqdb.sml.hpe"]
        return contract is not None and contract["members"][uid]["state"] == "lost"

    assert watch.wait(lost, 10)
    assert "reporting sl1 lost" in sn.log


def test_a_ca_that_the_nodes_trust_is_admitted(
    run: Processes, ca: pki.Authority, tmp_path: Path
) -> None:
    sn = run.sn("sn1", ca)
    before = direct(run, ca, sn)
    other = pki.authority(tmp_path / "other", 2)
    other.trust(ca)
    stranger = ApiClient(pki.identity(tmp_path / "other", Role.SWCI, other), [(sn.host, sn.port)])
    run._clients.append(stranger)
    with pytest.raises(RemoteError) as caught:
        create(stranger, "t1")
    assert caught.value.code == "SW5002"
    ca.trust(other)
    until(lambda: len(before.table("cas")) == 2, 20, "the new CA is on the ledger")
    assert create(stranger, "t1").ok


def test_a_joiner_says_what_it_waits_for_and_can_be_stopped(
    run: Processes, ca: pki.Authority
) -> None:
    sentinel = run.sn("sn1", ca)
    sentinel.kill()
    sn = run.sn("sn2", ca, sentinel=sentinel, wait=None)
    sn.wait_for("waiting for the sentinel's API at .*nothing listens there", 30)
    client = direct(run, ca, sn)
    with pytest.raises(RemoteError, match="waiting for the sentinel") as caught:
        client.status()
    assert caught.value.code == "SW5104"
    run.restart(sentinel)
    run.ready(sn)
    late = run.sn("sn3", ca, sentinel=sn, wait=None)
    late.wait_for("This is a network node sn3", 30)
    assert late.terminate() == 0  # wherever in its start it is
    assert "Traceback" not in late.log


def test_mistakes_end_with_one_line(run: Processes, ca: pki.Authority) -> None:
    sn = run.sn("sn1", ca, env={"THIS_NODE_IP": ""}, wait=None)
    assert sn.process.wait(20) == 1
    sn.wait_end()
    assert len(sn.lines) == 1 and "SW5101" in sn.lines[0] and "THIS_NODE_IP" in sn.lines[0]
    taken = run.sn("sn2", ca)
    second = run.sn("sn3", ca, env={"SN_API_SERVER_PORT": str(taken.port)}, wait=None)
    assert second.process.wait(20) == 1
    second.wait_end()
    assert "SW5102" in second.lines[-1] and "Traceback" not in second.log


def test_a_certificate_that_ends_soon_is_warned_of(
    run: Processes, ca: pki.Authority, tmp_path: Path
) -> None:
    issued = issue_leaf(ca.issued, "SN-9", days=10)
    (tmp_path / "c.pem").write_bytes(issued.certificate_pem)
    (tmp_path / "k.pem").write_bytes(issued.key_pem)
    (tmp_path / "k.pem").chmod(0o600)
    env = {
        "SWARM_ID_CERT": str(tmp_path / "c.pem"),
        "SWARM_ID_KEY": str(tmp_path / "k.pem"),
    }
    sn = run.sn("sn1", ca, env=env)
    assert "expires in 9 days" in sn.log or "expires in 10 days" in sn.log


def test_an_idle_node_hardly_uses_the_processor(run: Processes, ca: pki.Authority) -> None:
    sn1, sn2 = network(run, ca, 2)
    until(lambda: len(direct(run, ca, sn1).status()["peers"]) == 1, 20, "they are connected")
    quiet = threading.Event()
    before, started = sn2.cpu_seconds(), time.monotonic()
    quiet.wait(10)  # the measurement itself takes time
    used = (sn2.cpu_seconds() - before) / (time.monotonic() - started)
    assert used < 0.01
