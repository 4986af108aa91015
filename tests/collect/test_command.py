"""The whole archive: what is in it, and that no planted secret is, wherever it was planted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.collect import command
from swarm.collect.archive import Archive
from swarm.identity import Role
from swarm.launch import cli, nodes
from tests import pki
from tests.launch.conftest import FakeDocker, docker  # noqa: F401 - a fixture
from tests.swop.test_profile import PROFILE

SLEEPER = "import sys, time; print('up', flush=True); time.sleep(120)"
SECRET = "gEhE1m"  # part of all planted secrets
TASK = f"""
Name: pull  # {SECRET}-comment
TaskType: PULL_IMAGE
Body:
    Auth: {{UserName: me, Password: {SECRET}-auth}}
    OrgAndReg: hpe
"""


@pytest.fixture
def home(tmp_path: Path, docker: FakeDocker) -> Path:  # noqa: F811
    docker.answer("container", "ls", "--all", "label=swarm.component", stdout="c1")
    docker.answer("container", "ls", "--all", "ancestor=user-image", stdout="c2")
    docker.answer("container", "ls")
    docker.answer("container", "inspect", "c1", stdout=json.dumps([container("sn1", "sn")]))
    docker.answer("container", "inspect", "c2", stdout=json.dumps([container("trainer", "")]))
    docker.answer(
        "container", "logs", stdout=f"going on\nlogin with {SECRET}-env\npassword={SECRET}-said"
    )
    docker.answer("info", stdout=json.dumps({"NCPU": 2, "HttpProxy": f"http://u:{SECRET}-p@x"}))
    return tmp_path / "nodes"


def container(name: str, component: str) -> dict[str, object]:
    labels = {"swarm.component": component} if component else {}
    return {
        "Name": f"/{name}",
        "State": {"Status": "running", "ExitCode": 0, "Error": f"{SECRET}-error"},
        "Config": {
            "Image": "swarm-node:9.9",
            "Labels": {**labels, "owner": f"{SECRET}-label"},
            "Env": [f"REGISTRY_PASSWORD={SECRET}-env", "SN_API_SERVER_PORT=30304"],
            "Cmd": ["python3", "-m", "sentinel", f"--token={SECRET}-argument"],
        },
        "Mounts": [],
    }


@pytest.fixture
def operator(home: Path, tmp_path: Path) -> Iterator[None]:
    """A local process, registered as an operator, with secrets all around it."""
    ca = pki.authority(tmp_path, 1)
    files = pki.environment(tmp_path / "cert", Role.SWOP, ca, name="swop1")
    both = Path(files["SWARM_ID_CERT"])  # some keep the key beside the certificate, in one file
    both.write_text(both.read_text() + Path(files["SWARM_ID_KEY"]).read_text())
    (tmp_path / "usr").mkdir()
    profile = PROFILE.replace("VERSION: 1.10", f"VERSION: {SECRET}-profile")
    (tmp_path / "usr" / "p.yaml").write_text(profile)
    environment = {
        **os.environ,
        **files,
        "SWOP_PROFILE": "p.yaml",
        "USR_DIR": str(tmp_path / "usr"),
        "SWARM_ETH_RPC": f"https://x/{SECRET}-rpc",
        "AWS_SECRET": f"{SECRET}-shell",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    place = nodes.directory("swop1")
    place.mkdir(parents=True)
    nodes.register("swop1", "swop", process.pid, remove=False)
    key = Path(files["SWARM_ID_KEY"]).read_text()
    (place / "log").write_text(f"it works\n{key}\ngot {SECRET}-profile and {SECRET}-rpc\n")
    (place / "key.pem").write_text(key)
    (place / "data").mkdir()
    (place / "data" / "passwords").write_text(f"{SECRET}-file")
    yield
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "w" / "swci" / "taskdefs").mkdir(parents=True)
    (tmp_path / "w" / "swop").mkdir()
    (tmp_path / "w" / "swci" / "taskdefs" / "pull.yaml").write_text(TASK)
    (tmp_path / "w" / "swci" / "taskdefs" / "bad.yaml").write_text(f"a: [{SECRET}-broken")
    (tmp_path / "w" / "swop" / "key.yaml").symlink_to(tmp_path / "cert" / "swop1-key.pem")
    return tmp_path / "w"


def unpacked(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        assert all(member.isfile() for member in members)
        root = archive.name.removesuffix(".tar.gz")
        return {
            member.name.removeprefix(f"{root}/"): tar.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in members
        }


def test_everything_that_helps_and_no_secret(
    operator: None, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--workspace={workspace}", "--ml-image=user-image", "--output=out"]
    assert cli.swarm(["collect", *words]) == 0
    archive = Path(capsys.readouterr().out.strip())
    assert re.fullmatch(r"swarm_logs_[\w.-]+_\d{14}\.tar\.gz", archive.name)
    assert archive.stat().st_mode & 0o077 == 0
    files = unpacked(archive)
    assert set(files) == {
        "out.log",
        "versions.json",
        "certificates.txt",
        "tasks/pull.yaml",
        "tasks/bad.yaml",
        "profiles/key.yaml",
        "profiles/p.yaml",
        "swop_process_1.log",
        "swop_inspect_process_1.log",
        "sn_9.9_1.log",
        "sn_inspect_9.9_1.log",
        "user_1.log",
        "ml_inspect_1.log",
    }
    everything = "\n".join(files.values()) + "\n".join(files)
    assert SECRET not in everything
    assert "PRIVATE KEY" not in everything
    assert "swop_process_1.log, swop1, swop, running" in files["out.log"]
    assert '"NCPU": 2' in files["out.log"]
    assert "it works" in files["swop_process_1.log"]
    assert "going on" in files["sn_9.9_1.log"]
    assert json.loads(files["sn_inspect_9.9_1.log"])["Config"]["Env"] == {
        "REGISTRY_PASSWORD": "***",
        "SN_API_SERVER_PORT": "30304",
    }
    assert json.loads(files["versions.json"])["packages"]["pydantic"]
    assert "CN=SWOP-swop1" in files["certificates.txt"] and "CN=CA-1" in files["certificates.txt"]
    assert "groupname: demo" in files["profiles/p.yaml"]


def test_the_other_name_of_the_command(
    home: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.swarm_log_collector(["hub.example", f"workspace={workspace}"]) == 0
    archive = Path(capsys.readouterr().out.strip())
    assert archive.parent == Path("logs")
    assert "tasks/pull.yaml" in unpacked(archive)
    for words in ([], ["hub"], ["hub", "workspace="], ["hub", "other=x"], ["h", "workspace=no"]):
        assert command.swarm_log_collector(words) == 1
    assert "swarmLogCollector: other=x: " in capsys.readouterr().err


def test_without_user_programs_and_without_an_engine(
    home: Path,
    docker: FakeDocker,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.swarm(["collect", "--ml-image=user-image", "--no-programs"]) == 0
    files = unpacked(Path(capsys.readouterr().out.strip()))
    assert "ml_inspect_1.log" in files and "user_1.log" not in files
    (docker.home / "bin" / "docker").unlink()
    assert cli.swarm(["collect", "--output=elsewhere"]) == 0
    assert "out.log" in unpacked(Path(capsys.readouterr().out.strip()))


def test_an_archive_is_bounded_and_says_what_it_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    with Archive(path, file_limit=100, total_limit=250) as archive:
        for name in "abcd":
            archive.add(name, "begin" + "x" * 200 + "end")
    assert archive.cut == ["a", "b", "c", "d"]
    files = unpacked(path)
    assert all(len(text) < 150 for text in files.values())
    assert files["a"].startswith("[the beginning is left out: 108 bytes]\n")
    assert files["b"].endswith("end") and sum(map(len, files.values())) < 250 + 4 * 50
    with pytest.raises(RuntimeError), Archive(path, file_limit=1, total_limit=1):
        raise RuntimeError
    assert [file.name for file in tmp_path.iterdir()] == ["x.tar.gz"], "no draft is left"
    (tmp_path / ".y.tar.gz.draft").symlink_to(tmp_path / "x.tar.gz")  # somebody else's trap
    with pytest.raises(FileExistsError):
        Archive(tmp_path / "y.tar.gz", file_limit=1, total_limit=1)


def test_a_place_that_cannot_be_written_to(
    home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert cli.swarm(["collect", f"--output={tmp_path}/file"]) == 1
    assert "SW9013" in capsys.readouterr().err
    assert cli.swarm(["collect", "--log-mb=0"]) == 1
