"""The run-* commands as containers: what they ask of the engine."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
from pathlib import Path

import pytest

from swarm.launch import cli, components
from swarm.launch.plan import default_image
from tests.launch.conftest import FakeDocker

SN = ["--host-ip=1.1.1.1", "--sentinel"]


def test_the_first_network_node_of_the_guide(
    docker: FakeDocker, files: Path, identity: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.run_sn(
        [
            *("-d", "--rm", "--name=sn1", "--network=host-1-net", "--host-ip=172.1.1.1"),
            *("--sentinel", "--sn-p2p-port=30303", "--sn-api-port=30304"),
            *(*identity, "--apls-ip=172.1.1.1"),
        ]
    )
    assert status == 0
    said = capsys.readouterr()
    assert said.out == "container-1\n"
    assert said.err == (
        "run-sn: notice: licence server options are ignored, no licence is needed\n"
    )
    words = docker.created()
    assert words[-4:] == [default_image(), "python3", "-m", "sentinel"]
    assert set(words[:-4]) == {
        "--label=swarm.component=sn",
        "--interactive=true",
        "--init=true",
        "--hostname=sn1",
        "--name=sn1",
        "--network=host-1-net",
        "--rm",
        "--env=SWARM_NODE_NAME=sn1",
        "--env=THIS_NODE_IP=172.1.1.1",
        "--env=SN_I_AM_SENTINEL=1",
        "--env=SN_API_SERVER_PORT=30304",
        "--env=SN_ETH_PORT_EXT=30303",
        f"--user={os.getuid()}:{os.getgid()}",
        f"--env=SWARM_ID_KEY={files}/key.pem",
        f"--env=SWARM_ID_CERT={files}/cert.pem",
        f"--env=SWARM_ID_CAPATH={files}/capath",
        f"--volume={files}/key.pem:{files}/key.pem:ro",
        f"--volume={files}/cert.pem:{files}/cert.pem:ro",
        f"--volume={files}/capath:{files}/capath:ro",
        "--publish=30304:30304",
        "--publish=30303:30303",
    }
    assert docker.info() == ["container-1", default_image(), "sha256:1234"]
    assert docker.calls("container", "start") == [["container", "start", "container-1"]]


def test_api_port_is_the_same_inside_and_p2p_port_is_not(docker: FakeDocker, files: Path) -> None:
    cli.run_sn([*SN, "-d", "--sn-p2p-port=1303", "--sn-api-port=1304"])
    assert {"--publish=1304:1304", "--publish=1303:30303"} <= set(docker.created())


def test_services_behind_a_proxy(docker: FakeDocker) -> None:
    words = ["-d", "--sn-api-service=api.sn:444", "--sn-p2p-service=p2p.sn"]
    assert cli.run_sn([*words, "--sentinel-api-service=api.first"]) == 0
    assert {
        "--env=SN_API_SERVICE=api.sn:444",
        "--env=SN_ETH_P2P_SERVICE=p2p.sn",
        "--env=SENTINEL_API_SERVICE=api.first",
        "--publish=444:30304",
        "--publish=30303:30303",
    } <= set(docker.created())


def test_in_the_foreground_it_is_attached_and_its_status_is_ours(docker: FakeDocker) -> None:
    docker.answer("container", "start", "--attach", status=7)
    assert cli.run_sn([*SN, "--hostname=box", "--name=a"]) == 7
    assert "--hostname=box" in docker.created()
    assert "--hostname=a" not in docker.created()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--sentinel"], "mandatory parameter --host-ip not specified"),
        (["--host-ip=x"], "either --sentinel or --sentinel-ip must be specified"),
        ([*SN, "--sentinel-ip=y"], "conflicting options: --sentinel and --sentinel-ip"),
        ([*SN, "--sidecar=log"], "mandatory parameter --log-image not specified"),
        (
            [*SN, "--sidecar=log", "--log-image=i", "--log-v", "./no:/x"],
            "--log-volume: ./no: bad mount",
        ),
        ([*SN, "--key=nokey"], "--key: nokey: bad file"),
        ([*SN, "--capath=key.pem"], "--capath: key.pem: bad directory"),
        ([*SN, "--sn-api-port=http"], "--sn-api-port: http: bad port"),
        ([*SN, "-v", "./nothing:/x"], "--volume: ./nothing: bad mount"),
        ([*SN, "-d", "--attach=stdout"], "conflicting options: --detach and --attach"),
        ([*SN, "--name"], "--name: missing argument"),
        ([*SN, "--ml-image=x"], "Error: --ml-image is an unsupported option."),
        ([*SN, "--cmd", "'open"], "No closing quotation"),
    ],
)
def test_complaints(
    docker: FakeDocker,
    files: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    complaint: str,
) -> None:
    assert cli.run_sn(words) == 1
    assert capsys.readouterr().err == f"run-sn: {complaint}\n"
    assert docker.calls("container", "create") == []


def test_volumes_images_and_arguments(docker: FakeDocker, files: Path) -> None:
    words = ["-v", "usr:/y", "-v", "./usr:/x", "--image=mine", "--cmd", "a 'b c'", "--", "-e", "z"]
    cli.run_sn([*SN, "-d", *words])
    created = docker.created()
    assert "--volume=usr:/y" in created  # a named volume stays one
    assert f"--volume={files}/usr:/x" in created
    assert created[-8:] == ["mine", "python3", "-m", "sentinel", "a", "b c", "-e", "z"]


def test_options_that_only_a_newer_engine_knows_pass_through(docker: FakeDocker) -> None:
    docker.help("      --brand-new string               Something\n")
    cli.run_sn([*SN, "-d", "--brand-new", "value"])
    assert "--brand-new=value" in docker.created()


def test_an_unknown_option_is_mentioned_and_handed_on(
    docker: FakeDocker, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run_sn([*SN, "-d", "--hots-ip=9"])
    assert docker.created()[-1] == "--hots-ip=9"
    assert "--hots-ip=9 is an option neither of run-sn nor of docker" in capsys.readouterr().err


def test_a_runtime_of_dockers_is_handed_on(docker: FakeDocker) -> None:
    cli.run_sn([*SN, "-d", "--runtime=nvidia"])
    assert "--runtime=nvidia" in docker.created()


def test_what_the_engine_complains_about_is_shown(
    docker: FakeDocker, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.answer("container", "create", stderr="No such image: x", status=125)
    assert cli.run_sn([*SN, "-d"]) == 1
    assert "run-sn: SW9003: docker container create: No such image: x; " in capsys.readouterr().err


def test_a_container_that_cannot_be_started_is_removed(docker: FakeDocker) -> None:
    docker.answer("container", "start", stderr="port is taken", status=1)
    assert cli.run_sn([*SN, "-d"]) == 1
    assert docker.calls("container", "rm") == [["container", "rm", "--force", "container-1"]]


def test_without_docker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.run_sn([*SN, "-d"]) == 1
    assert "SW9002" in capsys.readouterr().err


@pytest.fixture
def engine(files: Path) -> list[str]:
    path = files / "d.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("d.sock" if Path.cwd() == files else str(path))
    return [f"--docker-socket-file={path}"]


def test_operator(docker: FakeDocker, files: Path, engine: list[str]) -> None:
    words = ["-d", "--usr-dir=usr", "--profile-file-name=profile.yaml", "--sn-ip=1.1.1.1"]
    assert cli.run_swop([*words, "--sn-api-port=30304", "-e", "http_proxy=", *engine]) == 0
    assert {
        f"--volume={files}/usr:/platform/swarm/usr",
        f"--volume={files}/d.sock:/var/run/docker.sock",
        "--env=USR_DIR=/platform/swarm/usr",
        "--env=SWOP_PROFILE=profile.yaml",
        "--env=SN_NODE_IP=1.1.1.1",
        "--env=SN_API_SERVER_PORT=30304",
        f"--env=SWOP_UID={os.getuid()}",
        f"--env=SWOP_GID={os.getgid()}",
        "--env=http_proxy=",
    } <= set(docker.created())
    assert docker.created()[-1] == "swop"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "mandatory parameter --usr-dir not specified"),
        (["--usr-dir=none"], "--usr-dir: none: bad path"),
        (["--usr-dir=usr"], "mandatory parameter --profile-file-name not specified"),
        (
            ["--usr-dir=usr", "--profile-file-name=../key.pem"],
            "--profile-file-name: ../key.pem: bad profile file",
        ),
        (
            ["--usr-dir=usr", "--profile-file-name=profile.yaml", "--swop-uid=me"],
            "--swop-uid: me: bad user id",
        ),
        (
            ["--usr-dir=usr", "--profile-file-name=profile.yaml", "--docker-socket-file=key.pem"],
            "--docker-socket-file: key.pem: bad docker socket file",
        ),
    ],
)
def test_complaints_of_run_swop(
    docker: FakeDocker,
    files: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    complaint: str,
) -> None:
    assert cli.run_swop(words) == 1
    assert capsys.readouterr().err == f"run-swop: {complaint}\n"


def test_command_interface_is_removed_unless_told_otherwise(
    docker: FakeDocker, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_swci(["--usr-dir=usr", "--init-script-name=swci-init"]) == 0
    assert {"--rm=true", "--env=SWCI_STARTUP_SCRIPT=swci-init"} <= set(docker.created())
    assert cli.run_swci(["--rm=false"]) == 0
    assert "--rm=true" not in docker.calls("container", "create")[1]
    assert cli.run_swci(["--usr-dir=usr", "--init-script-name=none"]) == 1
    assert capsys.readouterr().err == "run-swci: --init-script-name: none: bad file\n"
    assert cli.run_swci(["--output=json"]) == 0
    assert "--env=SWCI_OUTPUT=json" in docker.calls("container", "create")[-1]
    assert cli.run_swci(["--output=xml"]) == 1
    assert capsys.readouterr().err == "run-swci: --output: xml: text or json\n"


def test_command_interface_in_web_mode(
    docker: FakeDocker, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inside it listens where it always does; both ways to ask for it publish that port."""
    assert cli.run_swci(["--web-port=40306"]) == 0
    words = docker.created()
    assert {"--env=SWCI_MODE=WEB", "--publish=40306:30306"} <= set(words)
    assert not any("SWCI_WEB_PORT" in word for word in words)
    assert cli.run_swci(["-e", "SWCI_MODE=WEB", "-p", "40306:30306"]) == 0
    words = docker.calls("container", "create")[-1]
    assert {"--env=SWCI_MODE=WEB", "--publish=40306:30306"} <= set(words)
    assert cli.run_swci(["--web-port=many"]) == 1
    assert capsys.readouterr().err.endswith("run-swci: --web-port: many: bad port\n")


def test_learner_with_its_program(docker: FakeDocker, files: Path) -> None:
    words = ["-d", "--name=sl1", "--host-ip=1.1.1.1", "--sn-ip=2.2.2.2", "--sl-fs-port=16000"]
    program = [
        "--ml-image=tf",
        "--ml-name=ml1",
        "--ml-entrypoint=python3 -u",
        "--ml-cmd=p.py 'a b'",
    ]
    more = ["--ml-v", "./usr:/data", "--ml-w=/data", "--ml-e", "MAX_EPOCHS=1", "--ml-user=7:8"]
    docker.answer("container", "inspect", "container-1", stdout="vol-7")
    assert cli.run_sl([*words, *program, *more]) == 0
    learner, ml = docker.calls("container", "create")
    assert {"--publish=16000:30305", "--env=SL_FS_PORT=16000", "--volume=/tmp/hpe-swarm"} <= set(
        learner
    )
    assert learner[-1] == "swarm.learner"
    assert ml[-5:] == ["--entrypoint=python3", "tf", "-u", "p.py", "a b"]
    assert {
        "--volume=vol-7:/tmp/hpe-swarm",
        "--env=SWARM_LINK=/tmp/hpe-swarm",
        "--name=ml1",
        "--hostname=ml1",
        "--user=7:8",
        "--env=MAX_EPOCHS=1",
        "--workdir=/data",
        f"--volume={files}/usr:/data",
    } <= set(ml)
    assert not any("volumes-from" in word for word in ml), "the learner's key is in its mounts"
    assert [call[-1] for call in docker.calls("container", "start")] == [
        "container-2",
        "container-1",
    ]


def test_a_local_network_node_is_found(
    docker: FakeDocker, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.answer("container", "inspect", "sn9", stdout="172.18.0.2 ")
    assert cli.run_sl(["-d", "--host-ip=1.1.1.1", "--sn-docker-name=sn9"]) == 0
    assert "--env=SN_NODE_IP=172.18.0.2" in docker.created()
    docker.answer("container", "inspect", "gone", stderr="no such container", status=1)
    assert cli.run_sl(["-d", "--host-ip=1.1.1.1", "--sn-docker-name=gone"]) == 1
    assert cli.run_sl(["-d", "--host-ip=1.1.1.1"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "run-sl: cannot contact gone",
        "run-sl: cannot contact a local network node, and --sn-ip is missing",
    ]


def test_stop_swarm(docker: FakeDocker, capsys: pytest.CaptureFixture[str]) -> None:
    docker.answer("--all", "label=swarm.component=sn", stdout="c1\nc2")
    docker.answer("label=swarm.component=sn", stdout="c1")
    docker.answer("label=swarm.role=SL", stdout="c3")
    assert cli.stop_swarm([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "No running Swarm Command Interface containers found",
        "No running Swarm Operator containers found",
        "Stopping all running Swarm Learning containers",
        "Removing all Swarm Learning containers",
        "Stopping all running Swarm Network containers",
        "Removing all Swarm Network containers",
    ]
    assert docker.calls("container", "stop") == [
        ["container", "stop", "--time=30", "c3"],
        ["container", "stop", "--time=30", "c1"],
    ]
    assert docker.calls("container", "rm")[1] == ["container", "rm", "--volumes", "c1", "c2"]


def test_stop_swarm_only_some_and_keep(docker: FakeDocker) -> None:
    docker.answer("label=swarm.component=sn", stdout="c1")
    assert cli.stop_swarm(["--SN", "--keep"]) == 0
    assert docker.calls("container", "stop") == [["container", "stop", "--time=30", "c1"]]
    assert docker.calls("container", "rm") == []


def test_a_container_that_vanishes_meanwhile_is_no_error(docker: FakeDocker) -> None:
    docker.answer("label=swarm.component=sn", stdout="c1")
    docker.answer("container", "rm", stderr="Error: No such container: c1", status=1)
    assert cli.stop_swarm([]) == 0


def test_stop_swarm_complains(docker: FakeDocker, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.stop_swarm(["--everything"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Invalid flag: --everything\nUsage: stop-swarm")
    docker.answer("container", "ls", stderr="Cannot connect to the Docker daemon", status=1)
    assert cli.stop_swarm([]) == 0
    assert "Containers are left alone" in capsys.readouterr().err
    assert cli.stop_swarm(["--runtime=docker"]) == 1


def test_help_names_every_option(docker: FakeDocker, capsys: pytest.CaptureFixture[str]) -> None:
    for run in (cli.run_sn, cli.run_sl, cli.run_swop, cli.run_swci):
        assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for options in (*components.USED_BY.values(), components.COMMON, components.LICENCE):
        for option in options:
            assert all(f"-{name}" in text for name in option.names)
    assert max(map(len, text.splitlines())) <= 100
    assert docker.calls("container") == []


def test_examples_of_the_help_are_understood(
    docker: FakeDocker, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "CA").mkdir()
    for name in ("C.pem", "K.pem"):
        (files / name).write_text("x")
    tried = 0
    for name, run in (("sn", cli.run_sn), ("sl", cli.run_sl), ("swci", cli.run_swci)):
        run(["--help"])
        text = capsys.readouterr().out.replace(" \\\n", " ")
        for line in text.splitlines():
            words = shlex.split(line) if line.startswith(f"  run-{name} ") else []
            if words and "process" not in words:
                words = [w.replace("/data:", f"{files}:") for w in words if w != "swci"]
                words = [f"{w}=usr" if w == "--usr-dir" else w for w in words]
                assert run(words[1:]) == 0
                tried += 1
    assert tried == 5


def test_the_founder_chooses_the_fault_model(docker: FakeDocker) -> None:
    assert cli.run_sn(["-d", *SN, "--fault-model=crash"]) == 0
    assert "--env=SWARM_FAULT_MODEL=crash" in docker.created()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([*SN, "--fault-model=raft"], "--fault-model: byzantine or crash expected, not raft"),
        (
            ["--host-ip=1.1.1.1", "--sentinel-ip=2.2.2.2", "--fault-model=crash"],
            "--fault-model: only the founder of a network chooses it (--sentinel)",
        ),
    ],
)
def test_a_fault_model_that_cannot_be(
    docker: FakeDocker, flags: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_sn(["-d", *flags]) == 1
    assert complaint in capsys.readouterr().err


def test_sidecars_of_any_node(docker: FakeDocker) -> None:
    words = ["--sidecar=log", "--log-image=busybox", "--log-cmd=tail -f /x", "--log-name=watch"]
    more = ["--log-volumes-from-main", "--log-pid-main", "--log-e", "A=1"]
    assert cli.run_sn(["-d", *SN, *words, *more]) == 0
    _, sidecar = docker.calls("container", "create")
    assert sidecar[2:] == [
        "--label=swarm.component=sidecar",
        "--volumes-from=container-1",
        "--pid=container:container-1",
        "--name=watch",
        "--hostname=watch",
        "--env=A=1",
        *("busybox", "tail", "-f", "/x"),
    ]


@pytest.mark.parametrize(
    ("given", "user"),
    [
        ([], f"{os.getuid()}:{os.getgid()}"),
        (["--ml-user=7:8"], "7:8"),
        (["--ml-u", "0"], f"0:{pwd.getpwuid(0).pw_gid}"),
    ],
)
def test_the_user_of_a_program(docker: FakeDocker, given: list[str], user: str) -> None:
    """Its group is that user's own; what is given as uid:gid stays as it is."""
    words = ["-d", "--host-ip=1.1.1.1", "--sn-ip=2.2.2.2", "--ml-image=tf", *given]
    assert cli.run_sl(words) == 0
    _, ml = docker.calls("container", "create")
    assert [word for word in ml if word.startswith("--user")] == [f"--user={user}"]


def test_podman_serves_where_docker_is_not(
    docker: FakeDocker, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says where its socket is; of docker's everybody knows it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(files / "podman.sock"))
        (docker.home / "bin" / "docker").rename(docker.home / "bin" / "podman")
        monkeypatch.setenv("PATH", str(docker.home / "bin"))
        docker.answer("info", "--format", stdout=f"unix://{files}/podman.sock")
        words = ["-d", "--usr-dir=usr", "--profile-file-name=profile.yaml", "--sn-ip=1.1.1.1"]
        assert cli.run_swop(words) == 0
    assert f"--volume={files}/podman.sock:/var/run/docker.sock" in docker.created()


def test_a_node_runs_as_the_owner_of_its_key(
    docker: FakeDocker, files: Path, identity: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever calls the command: with sudo that is root, and the key is still the user's."""
    if os.getuid() == 0:
        os.chown(files / "key.pem", 1234, 5678)
    owner = (files / "key.pem").stat()
    assert cli.run_sn(["-d", *SN, *identity]) == 0
    assert f"--user={owner.st_uid}:{owner.st_gid}" in docker.created()


def test_a_user_that_is_given_counts(docker: FakeDocker, files: Path, identity: list[str]) -> None:
    assert cli.run_sn(["-d", *SN, *identity, "-u", "77"]) == 0
    assert [word for word in docker.created() if word.startswith("--user")] == ["--user=77"]
