"""The files of the small examples fit what reads them, and their data are what they say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from swarm.api.taskdef import load_task
from swop.profile import read_profile
from tests.swarmlearning.test_mnist_example import filled, module

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NODES = {"sklearn": [[16000], [18000]], "fraud-detection": [[16000], [18000, 18001]]}


@pytest.mark.parametrize("example", NODES)
@pytest.mark.parametrize("host", [1, 2])
def test_profiles(tmp_path: Path, example: str, host: int) -> None:
    path = EXAMPLES / example / "swop" / f"swop{host}_profile.yaml"
    profile = read_profile(filled(path, tmp_path)).profile
    assert profile.groupname == example
    nodes = [node.slnodedef for node in profile.nodes]
    ports = [node.slport for node in nodes]
    assert ports == NODES[example][host - 1]
    for node in nodes:
        assert node.privatedata is not None
        assert (EXAMPLES / example / Path(node.privatedata.src).name).is_dir()


@pytest.mark.parametrize("example", NODES)
def test_tasks_and_script(tmp_path: Path, example: str) -> None:
    script = (EXAMPLES / example / "swci" / "swci-init").read_text()
    created = re.findall(r"^CREATE TASK FROM (\S+)", script, re.MULTILINE)
    assert len(created) == 2
    for name in created:
        task = load_task(filled(EXAMPLES / example / "swci" / name, tmp_path))
        assert f"FINALIZE TASK {task.Name}\n" in script
        assert f"ASSIGN TASK {task.Name} TO" in script
    program = re.search(r"Command: (\S+)", (EXAMPLES / example / "swci" / name).read_text())
    assert program is not None
    assert (EXAMPLES / example / program[1]).is_file()
    learners = sum(map(len, NODES[example]))
    assert f"MIN_PEERS: '{learners}'" in (EXAMPLES / example / "swci" / name).read_text()
    assert f"WITH {learners} PEERS" in script


def test_nodes_have_different_digits() -> None:
    data = module(EXAMPLES / "sklearn" / "data.py")
    first, second = data.part(0, 2), data.part(1, 2)
    assert set(first["y_train"]) == set(range(5))
    assert set(second["y_train"]) == set(range(5, 10))
    assert set(first["y_test"]) == set(range(10))
    np.testing.assert_array_equal(first["x_test"], second["x_test"])
    whole = len(first["y_train"]) + len(second["y_train"]) + len(first["y_test"])
    assert whole == 1797


def test_banks_are_unequal(tmp_path: Path) -> None:
    data = module(EXAMPLES / "fraud-detection" / "data.py")
    for node, (payments, frauds) in enumerate(data.BANKS, 1):
        data.write(tmp_path / str(node), node)
        train = np.loadtxt(tmp_path / str(node) / "train.csv", delimiter=",", skiprows=1)
        test = np.loadtxt(tmp_path / str(node) / "test.csv", delimiter=",", skiprows=1)
        assert train.shape == (payments, 31)
        assert train[:, -1].sum() == sum(frauds)
        assert (test.shape, test[:, -1].mean()) == ((330, 31), 0.5)
    again = tmp_path / "again"
    data.write(again, 1)
    assert (again / "test.csv").read_bytes() == (tmp_path / "1" / "test.csv").read_bytes()
