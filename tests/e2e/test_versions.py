"""Who is of another version is told so, by name and number, and waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from swarm.identity import Role
from swarmlearning import link
from swarmlearning.swci import answers
from tests import pki
from tests.e2e.operators import PROGRAM, Swarm
from tests.e2e.other_version import OTHER
from tests.processes import Daemon, Processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    directory = tmp_path_factory.mktemp("versions")
    with Processes(directory) as run:
        swarm = Swarm(run, directory, network_nodes=1)
        yield swarm
        swarm.close()


def other(swarm: Swarm, name: str, module: str, env: Mapping[str, str], *what: str) -> Daemon:
    return swarm.run.start(name, "tests.e2e.other_version", env, args=[module, *what])


def test_a_program_with_another_library(swarm: Swarm) -> None:
    """A task with it fails at once, and the reason is in the status."""
    swarm.build_task("build")
    swarm.say("CREATE TASKRUNNER old")
    operator = swarm.operator("old1", "old", 1.0)
    (operator.pairs[0] / "program.py").write_text(
        "from swarmlearning import link\nlink.PROTOCOL = 1\n" + PROGRAM
    )
    swarm.say("ASSIGN TASK build TO old WITH 1 PEERS")
    assert swarm.ended("old") == "COMPLETE"
    swarm.say("RESET TASKRUNNER old")
    swarm.run_task("train", "build", MIN_PEERS=1)
    swarm.say("ASSIGN TASK train TO old WITH 1 PEERS")
    assert swarm.ended("old") == "ERROR"
    status = answers.peer_status(swarm.say("GET TASKRUNNER PEER STATUS old 0"))
    text = status.pairs[0].text
    assert "the ML program exited with code 1" in text
    assert f"SW6005: the program speaks protocol 1, this learner {link.PROTOCOL}" in text


def test_a_network_node_that_cannot_ask_to_join(swarm: Swarm) -> None:
    env = joining(swarm, "sn8")
    node = other(swarm, "sn8", "sentinel", env, "api")
    assert node.process.wait(60) == 1
    node.wait_end()
    sentinel = swarm.sns[0]
    expected = f"SW2012: {sentinel.host}:{sentinel.port} speaks protocol 1, and this node {OTHER}; "
    assert expected + "run the same version on all nodes" in node.log


def joining(swarm: Swarm, name: str) -> dict[str, str]:
    """Settings of a further network node, which is started and ended to have them."""
    node = swarm.run.sn(name, swarm.ca, sentinel=swarm.sns[0], wait=None)
    node.kill()
    return node.env


def test_a_network_node_whose_mesh_is_another(swarm: Swarm) -> None:
    """Both sides say so, as often as it matters, and the others go on."""
    node = other(swarm, "sn9", "sentinel", joining(swarm, "sn9-settings"), "mesh")
    node.wait_for(f"it speaks protocol 1, and this node {OTHER}", 60, plain=True)
    sentinel = swarm.sns[0]
    sentinel.wait_for(f"it speaks protocol {OTHER}, and this node 1", 60, plain=True)
    swarm.say("CREATE CONTRACT goes-on")
    node.terminate(20)


def test_operators_and_commands_of_another_version(swarm: Swarm) -> None:
    operator = swarm.operator("mine", "defaulttaskbb.taskdb.sml.hpe", 1.0)
    node = other(swarm, "mine-other", "swop", operator.daemon.env, "api")
    assert node.process.wait(60) == 1
    node.wait_end()
    assert f"speaks protocol 1, and this node {OTHER}; run the same version" in node.log
    sn = swarm.sns[0]
    usr = swarm.directory / "usr"
    usr.mkdir()
    (usr / "swci-init").write_text(f"EXIT ON FAILURE\nWAIT FOR IP {sn.host} {sn.port}\nEXIT\n")
    env = pki.environment(swarm.directory / "cert" / "swci9", Role.SWCI, swarm.ca, name="swci9")
    commands = other(swarm, "swci9", "swci", {**env, "USR_DIR": str(usr)}, "api")
    assert commands.process.wait(60) == 1, "it does not wait for what never comes"
    commands.wait_end()
    said = f"ERROR : SW2012: {sn.host}:{sn.port} speaks protocol 1, and this node {OTHER}; "
    assert said in commands.log
