"""The run-* commands as local processes, with a tiny program in the place of the node's."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from swarm.launch import cli, components, nodes, process_backend, stop
from swarm.launch.plan import SN, Component, Launch
from tests.processes import until

PROGRAM = """
import os, signal, sys
if os.environ.get("REFUSE"):
    print("0 : n : ERROR : SW1203: no")
    sys.exit(1)
for name in sorted(os.environ):
    if name.startswith(("SN_", "SWARM_", "THIS", "USR", "SL_", "SWOP")):
        print(name, os.environ[name])
print("ready", sys.argv[1:], flush=True)
if os.environ.get("ONCE"):
    sys.exit(int(os.environ["ONCE"]))
if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pause()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A SWARM_HOME of its own, and small programs instead of all nodes; none is left running."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "fake_node.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "nodes"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    for component in ("SN", "SL", "SWOP", "SWCI"):
        real: Component = getattr(components, component)
        fake = dataclasses.replace(real, module="fake_node")
        monkeypatch.setattr(components, component, fake)
        if component == "SL":
            monkeypatch.setattr(process_backend, "SL", fake)
    yield tmp_path / "nodes"
    stop.stop_processes(stop.ORDER, keep=False)


SN_LINE = ["-d", "--runtime=process", "--host-ip=127.0.0.1", "--sentinel", "--name=sn1"]


def log_of(name: str) -> str:
    return (nodes.directory(name) / "log").read_text()


def lines_of(name: str) -> dict[str, str]:
    """All that a small program says at its start."""
    until(lambda: "ready " in log_of(name), 30, f"{name} is ready")
    return dict(line.split(" ", 1) for line in log_of(name).splitlines())


def test_a_network_node(place: Path, identity: list[str], files: Path) -> None:
    more = ["--sn-p2p-port=1303", "--sn-api-port=1304", "-e", "SN_X=y", "--cmd=a b"]
    assert cli.run_sn([*SN_LINE, *identity, *more, "--network=n", "--rm"]) == 0
    assert lines_of("sn1") == {
        "SN_API_SERVER_PORT": "1304",
        "SN_ETH_PORT_EXT": "1303",
        "SN_P2P_PORT": "1303",
        "SN_I_AM_SENTINEL": "1",
        "SN_X": "y",
        "SWARM_DATA_DIR": str(place / "sn1" / "data"),
        "SWARM_HOME": str(place),
        "SWARM_ID_CAPATH": str(files / "capath"),
        "SWARM_ID_CERT": str(files / "cert.pem"),
        "SWARM_ID_KEY": str(files / "key.pem"),
        "SWARM_LISTEN": "127.0.0.1",
        "SWARM_NODE_NAME": "sn1",
        "THIS_NODE_IP": "127.0.0.1",
        "ready": "['a', 'b']",
    }


def test_a_node_that_others_shall_reach_listens_on_all_addresses() -> None:
    line = [word.replace("127.0.0.1", "198.18.1.1") for word in SN_LINE]
    assert cli.run_sn(line) == 0
    assert "SWARM_LISTEN" not in lines_of("sn1")


def test_a_name_is_used_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_sn(SN_LINE) == 0
    assert cli.run_sn(SN_LINE) == 1
    assert "run-sn: SW9004: sn1 runs already" in capsys.readouterr().err


def test_a_node_that_refuses_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_sn([*SN_LINE, "-e", "REFUSE=1"]) == 1
    said = capsys.readouterr()
    assert "ERROR : SW1203: no" in said.err
    assert "SW9005: sn1 ended with status 1" in said.err
    assert said.out == ""


def test_a_name_cannot_leave_the_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_sn([*SN_LINE, "--name=../x"]) == 1
    assert "run-sn: --name: ../x: use letters" in capsys.readouterr().err


def test_a_started_node_can_be_stopped_and_looked_at(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run_sn(SN_LINE)
    node = nodes.read("sn1")
    assert node is not None
    assert cli.swarm(["logs"]) == 0
    assert cli.swarm(["logs", "sn1"]) == 0
    said = capsys.readouterr().out
    assert "sn1                      sn     running" in said
    assert "ready []" in said
    assert cli.stop_swarm(["--runtime=process", "--keep"]) == 0
    assert node.process() is None
    assert log_of("sn1")
    assert cli.stop_swarm(["--runtime", "process"]) == 0
    assert not (place / "sn1").exists()


def test_a_process_of_the_same_number_is_not_ours() -> None:
    nodes.directory("old").mkdir(parents=True)
    nodes.register("old", "sn", os.getpid(), remove=False)
    record = nodes.read("old")
    assert record is not None
    assert record.process() is not None
    assert dataclasses.replace(record, started=record.started - 60).process() is None
    nodes.forget(record)


def test_a_node_that_does_not_end_is_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "GRACE", 0.1)
    cli.run_sn([*SN_LINE, "-e", "STUBBORN=1"])
    node = nodes.read("sn1")
    assert node is not None
    stop.stop_processes(stop.ORDER, keep=False)
    assert node.process() is None


@pytest.mark.parametrize("flags", [[], ["--rm"]])
def test_with_rm_a_new_start_is_from_nothing(place: Path, flags: list[str]) -> None:
    assert cli.run_sn([*SN_LINE, *flags]) == 0
    (place / "sn1" / "data").mkdir()
    stop.stop_processes([SN], keep=True)
    assert cli.run_sn(SN_LINE) == 0
    assert (place / "sn1" / "data").exists() is (not flags)


def test_an_operator_and_its_remains(place: Path) -> None:
    words = ["-d", "--runtime=process", "--name=swop1", "--usr-dir=usr", "--sn-ip=1.1.1.1"]
    assert cli.run_swop([*words, "--profile-file-name=profile.yaml"]) == 0
    found = lines_of("swop1")
    assert found["SWARM_RUNTIME"] == "PROCESS"
    assert found["USR_DIR"] == str(place.parent / "usr")
    # A program that the operator started, and that outlived it.
    script = place / "swop1" / "data" / "keeper.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text("print('up', flush=True)\nimport signal; signal.pause()")
    remains = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert remains.stdout is not None
    assert remains.stdout.readline() == b"up\n"
    stop.stop_processes(stop.ORDER, keep=False)
    remains.wait(10)


def test_a_learner_and_its_program(place: Path) -> None:
    words = ["-d", "--runtime=process", "--name=sl1", "--host-ip=127.0.0.1", "--sn-ip=127.0.0.1"]
    program = [f"--ml-entrypoint={sys.executable} -m", "--ml-cmd=fake_node x", "--ml-e", "SN_A=b"]
    assert cli.run_sl([*words, "--sl-fs-port=16000", *program]) == 0
    learner = lines_of("sl1")
    assert learner["SL_FS_PORT"] == learner["SL_LISTEN_PORT"] == "16000"
    assert learner["SWARM_LINK"] == str(place / "sl1" / "link")
    assert {node.name: node.component for node in nodes.known()} == {"sl1": "sl", "sl1-ml": "ml"}


SL_LINE = ["-d", "--runtime=process", "--name=sl1", "--host-ip=127.0.0.1", "--sn-ip=127.0.0.1"]
ML_LINE = [f"--ml-entrypoint={sys.executable}", "--ml-cmd=-m fake_node"]


def terminate(node: nodes.Node) -> None:
    process = node.process()
    assert process is not None
    stop.end(process)


def ended(name: str) -> str:
    """Wait for a node's end; how it ended."""
    node = nodes.read(name)
    assert node is not None
    until(lambda: node.process() is None and node.state() != "ended", 30, f"the end of {name}")
    return node.state()


@pytest.mark.parametrize("status", [0, 5])
def test_how_a_learner_and_its_program_ended(
    status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_sl([*SL_LINE, *ML_LINE, "--ml-e", f"ONCE={status}"]) == 0
    assert ended("sl1-ml") == f"ended with status {status}"
    learner = nodes.read("sl1")
    assert learner is not None and learner.state() == "running"
    terminate(learner)
    assert ended("sl1") == "ended with status 143"
    assert cli.swarm(["logs"]) == 0
    listed = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[1:]]
    assert ["sl1", "sl", "ended with status 143"] in listed
    # The same name again: what it was told before is forgotten.
    assert cli.run_sl(SL_LINE) == 0
    again = nodes.read("sl1")
    assert again is not None and again.state() == "running"


def test_a_learner_that_does_not_start_leaves_no_program_behind() -> None:
    """Its program would wait for it for ever."""
    assert cli.run_sl([*SL_LINE, *ML_LINE, "-e", "REFUSE=1"]) == 1
    assert ended("sl1-ml") == "ended with status 143"


def test_a_program_that_cannot_be_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_sl([*SL_LINE, "--ml-entrypoint=./nothing"]) == 1
    assert "run-sl: SW9010: ./nothing: No such file or directory" in capsys.readouterr().err
    assert not nodes.directory("sl1").exists() and not nodes.directory("sl1-ml").exists()


def test_a_keeper_leaves_alone_what_another_process_has_by_now(place: Path) -> None:
    """The same name, started again in the moment after the end of its predecessor."""
    assert cli.run_sn([*SN_LINE, "--rm"]) == 0
    node = nodes.read("sn1")
    assert node is not None
    (keeper,) = [p for p in psutil.Process(node.pid).parents()[:1] if p.pid != os.getpid()]
    (place / "sn1" / "data").mkdir()
    with (place / "sn1" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        terminate(node)
        nodes.register("sn1", "sn", os.getpid(), remove=False)
    psutil.wait_procs([keeper], timeout=30)
    assert (place / "sn1" / "data").exists() and not (place / "sn1" / "exit.json").exists()
    nodes.register("sn1", "sn", 2**22 + 1, remove=False)  # nobody's; not this process


def test_a_program_is_stopped_before_its_learner(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_sl([*SL_LINE, *ML_LINE]) == 0
    capsys.readouterr()
    assert cli.stop_swarm(["--sl", "--runtime=process"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["sl1-ml", "sl1"]
    assert nodes.known() == []


def test_a_sidecar_of_a_network_node(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar = [
        "--sidecar=watch",
        f"--watch-entrypoint={sys.executable}",
        "--watch-cmd=-m fake_node",
    ]
    assert cli.run_sn([*SN_LINE, *sidecar, "--watch-v", f"{place.parent}:/x"]) == 0
    assert "without effect on a local process: --watch-volume" in capsys.readouterr().err
    assert cli.stop_swarm(["--swop", "--runtime=process"]) == 0
    assert {node.name for node in nodes.known()} == {"sn1", "sn1-watch"}
    assert cli.stop_swarm(["--sn", "--runtime=process"]) == 0
    assert nodes.known() == []


def test_with_rm_the_data_go_when_the_node_ends(place: Path) -> None:
    assert cli.run_sn([*SN_LINE, "--rm"]) == 0
    (place / "sn1" / "data").mkdir()
    node = nodes.read("sn1")
    assert node is not None
    terminate(node)
    assert ended("sn1") == "ended with status 143"
    until(lambda: not (place / "sn1" / "data").exists(), 10, "the data are removed")
    assert "ready" in log_of("sn1"), "its log tells why it ended"


def test_in_the_foreground_the_node_takes_the_place_of_the_command() -> None:
    """Its exit status and its process id are the command's."""
    program = (
        "import sys, dataclasses\n"
        "from swarm.launch import cli, components\n"
        "components.SWCI = dataclasses.replace(components.SWCI, module='fake_node')\n"
        "sys.exit(cli.run_swci(['--runtime=process', '--name=swci1', '-e', 'ONCE=5']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{Path.cwd()}"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 5
    assert "ready []" in output
    node = nodes.read("swci1")
    assert node is not None
    assert node.pid == process.pid


def test_options_that_mean_nothing_here_are_mentioned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run_sn([*SN_LINE, "-v", "vol:/x", "--image=i", "--hostname=h"]) == 0
    assert "run-sn: without effect on a local process: --image, --volume" in capsys.readouterr().err


def test_env_files(tmp_path: Path) -> None:
    (tmp_path / "vars").write_text("# comment\nA=1\n\nB=x=y\nC\n")
    options = (("env-file", str(tmp_path / "vars")), ("env", "A=2"), ("env", "HOME"))
    assert process_backend.given_environment(options) == {"A": "2", "B": "x=y"}


def test_unknown_nodes_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.swarm(["logs", "nobody"]) == 1
    assert "swarm: SW9006: there is no log of nobody" in capsys.readouterr().err
    assert cli.swarm(["fly"]) == 1
    assert cli.swarm(["version"]) == 0


def test_a_launch_knows_no_backend() -> None:
    launch = Launch(SN, "x", {})
    assert launch.sidecars == ()
    assert launch.mounts == ()
