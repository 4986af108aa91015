"""From a real training to its proof: two network nodes and two learners, each a process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.errors import LocalError
from swarm.identity import Role
from swarm.launch import look
from tests import pki
from tests.learner.processes import Network
from tests.learner.program import BOUND, CONTRACT
from tests.processes import free_port

pytestmark = pytest.mark.slow

Arrays = dict[str, NDArray[np.float32]]


def weights(seed: int) -> Arrays:
    """Two tensors whose sizes leave gaps in the vector, which are part of its digest."""
    rng = np.random.default_rng(seed)
    return {
        "0000/kernel": rng.normal(size=(301, 7)).astype(np.float32),
        "0001/bias": rng.normal(size=(7,)).astype(np.float32),
    }


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    made = Network(tmp_path)
    yield made
    made.close()


def add_node(network: Network, tmp: Path) -> None:
    """A second network node, which votes."""
    port = free_port()
    env = {
        **pki.environment(tmp / "sn-b", Role.SN, network.ca, name="b"),
        "THIS_NODE_IP": "127.0.0.1",
        "SWARM_LISTEN": "127.0.0.1",
        "SN_API_SERVER_PORT": str(port),
        "SN_P2P_PORT": str(free_port()),
        "SENTINEL_NODE_IP": "127.0.0.1",
        "SENTINEL_API_SERVER_PORT": str(network.api_port),
        "SWARM_DATA_DIR": str(tmp / "sn-b-data"),
        "SWARM_NODE_NAME": "sn-b",
    }
    network.run("sentinel", env, "sn-b")
    nodes = network.client.watch(["meta/settings"])
    for _ in range(int(BOUND)):
        if len(network.client.status()["validators"]) == 2:
            return
        nodes.wait(lambda watch: False, 1)
    raise AssertionError((tmp / "sn-b.log").read_text())


def test_a_training_is_proven_to_an_outsider(
    network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_node(network, tmp_path)
    sls = [network.learner(number) for number in range(2)]
    args = {"transferDtype": "bfloat16"}
    for sl in sls:
        sl.program.send_open(min_peers=2, mergeMethod="coordmedian", mergeArgs=args)
    for sl in sls:
        sl.program.receive("opened")
    merged: Arrays = {}
    for round_ in range(2):
        for number, sl in enumerate(sls):
            sl.program.send_sync(weights(10 * round_ + number))
        for sl in sls:
            message, merged = sl.program.merged()
            sl.program.report(message["round"])
    for sl in sls:  # both reports of the last round are on the ledger
        network.watch.wait(lambda w: _reported(network, sl.uid) == 1, BOUND)  # noqa: B023

    member = pki.files(tmp_path / "auditor", "SWCI-auditor", network.ca)
    door = [
        "--sn", f"127.0.0.1:{network.api_port}", "--cert", str(member.cert),
        "--key", str(member.key), "--capath", str(network.ca.capath),
    ]  # fmt: skip
    trust = ["--capath", str(network.ca.capath)]
    ledger, record = tmp_path / "ledger", tmp_path / "record.json"
    model, other = tmp_path / "model.npz", tmp_path / "other.npz"
    np.savez(model, *merged.values())  # as float32, in which the program has them
    np.savez(other, *weights(0).values())

    assert look.main(["ledger", "export", str(ledger), *door]) == 0
    assert look.main(["ledger", "verify", str(ledger), *trust]) == 0
    told = capsys.readouterr().out
    assert "NOT PROVEN" not in told and "members      4: " in told
    source = [*door, "--contract", CONTRACT, "--out", str(record)]
    assert look.main(["record", "export", *source]) == 0
    assert look.main(["record", "verify", str(record), *trust, "--weights", str(model)]) == 0
    told = capsys.readouterr().out
    assert "is the recorded result, bit for bit" in told
    assert "mergeMethod coordmedian {'transferDtype': 'bfloat16'}" in told
    rounds = json.loads(record.read_text())["summary"]["rounds"]
    assert [len(one["reports"]) for one in rounds] == [2, 2]
    with pytest.raises(LocalError, match="SW3204"):
        look.main(["record", "verify", str(record), *trust, "--weights", str(other)])


def _reported(network: Network, uid: str) -> object:
    members = network.contract()["members"]
    assert isinstance(members, dict)
    return members[uid]["reported_round"]
