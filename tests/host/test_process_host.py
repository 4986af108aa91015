"""A whole host of plain processes, with the real network node and operator."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.host import record
from swarm.launch import cli, nodes, stop
from tests.processes import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "nodes"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    api, p2p, learner = free_port(), free_port(), free_port()
    line = ["init", "--yes", "--address=127.0.0.1", "--make-certificates"]
    ports = [f"--api-port={api}", f"--p2p-port={p2p}", f"--learner-port={learner}"]
    assert cli.swarm([*line, *ports]) == 0
    yield tmp_path
    stop.stop_processes(stop.ORDER, keep=False)


def pids() -> dict[str, int]:
    return {node.name: node.pid for node in nodes.known() if node.process() is not None}


def test_from_one_file_and_back(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.swarm(["up"]) == 0
    assert re.fullmatch(
        r"host-1-sn: starting\nhost-1-sn: ready after [\d.]+ s\n"
        r"host-1-swop: starting\nhost-1-swop: ready after [\d.]+ s\n",
        re.sub(r".*: waiting: .*\n", "", capsys.readouterr().out),
    )
    first = pids()
    assert set(first) == {"host-1-sn", "host-1-swop"}

    assert cli.swarm(["up"]) == 0
    assert pids() == first
    check_status(capsys)
    file = host / "swarm.yaml"
    file.write_text(file.read_text() + "      envvars: {NODE_INDEX: 1}\n")
    assert cli.swarm(["up"]) == 1
    assert "SW9032: host-1-swop: contents of the profile: changed" in capsys.readouterr().err
    assert cli.swarm(["up", "--restart"]) == 0
    assert pids()["host-1-sn"] == first["host-1-sn"]
    assert pids()["host-1-swop"] != first["host-1-swop"]

    assert cli.swarm(["down", "--name=host-1"]) == 0
    assert pids() == {}
    log = (nodes.directory("host-1-swop") / "log").read_text()
    assert "Stopped" in log and "the network did not hear" not in log  # it left while the SN ran
    chain = (nodes.directory("host-1-sn") / "data").exists()
    assert chain, "the ledger stays for the next time"
    assert cli.swarm(["down"]) == 0
    assert "nothing that `swarm up` started is left" in capsys.readouterr().out
    assert cli.swarm(["down", "--name=host-1"]) == 1
    assert "SW9035" in capsys.readouterr().err


def check_status(capsys: pytest.CaptureFixture[str]) -> None:
    """The screen of the running host: once, for programs, and refreshed on a terminal."""
    capsys.readouterr()
    assert cli.swarm(["status", "--once"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"SENTINEL +host-1-sn +here", shown)
    assert re.search(r"SWOP +host-1-swop +here .* 1 pair for default", shown)
    assert cli.swarm(["status", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [node["state"] for node in value["nodes"]] == ["here", "here"]
    assert (value["warnings"], value["problem"]) == ([], "")

    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "swarm"), "status", "--every=0.5"],
        env={**os.environ, "TERM": "xterm"},
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        start_new_session=True,
    )
    os.close(other_end)
    seen = b""
    while seen.count(b"host-1-swop") < 2:  # drawn again
        assert select.select([terminal], [], [], 60)[0], seen
        seen += os.read(terminal, 65536)
    process.send_signal(signal.SIGINT)  # as Ctrl-C does
    with contextlib.suppress(OSError):  # the terminal of a process that has ended
        while os.read(terminal, 65536):
            pass
    os.close(terminal)
    assert process.wait(30) == 0


def test_a_start_that_fails_says_why_and_leaves_nothing(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator that refuses its settings, after a network node that came up."""
    file = host / "swarm.yaml"
    whole = file.read_text()
    file.write_text(whole.replace("operator:\n", "operator:\n  envvars: {SWOP_UID: me}\n"))
    assert cli.swarm(["up"]) == 1
    said = capsys.readouterr()
    assert "host-1-sn: ready" in said.out
    assert "--- the last lines of host-1-swop ---\nswop: SW7004: SWOP_UID: expected a" in said.out
    assert "SW9005: host-1-swop ended" in said.err
    assert pids() == {}
    assert record.recorded() == []
    assert not nodes.known()


def test_mistakes_are_found_before_anything_starts(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (host / "cert/swop-1-cert.pem").write_bytes((host / "cert/sl-1-cert.pem").read_bytes())
    (host / "cert/swop-1-key.pem").write_bytes((host / "cert/sl-1-key.pem").read_bytes())
    assert cli.swarm(["up"]) == 1
    said = capsys.readouterr()
    assert "SW1207" in said.err and "but SWOP is needed here" in said.err
    assert "starting" not in said.out
    assert not nodes.known()


def test_the_commands_are_shown(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.swarm(["up", "--show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["run-sn", "run-swop"]
