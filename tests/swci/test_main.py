"""`python -m swci` as a program: start-up script, standard input, exit status."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.identity import Role
from swci import __main__ as program
from swci.commands import language
from swci.output import LinesOutput
from swci.session import Session
from tests import pki
from tests.swci.network import FakeNetwork


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    before = signal.getsignal(signal.SIGTERM)
    ca = pki.authority(tmp_path / "cert")
    usr = tmp_path / "usr"
    usr.mkdir()
    yield {**pki.environment(tmp_path / "cert", Role.SWCI, ca), "USR_DIR": str(usr)}
    signal.signal(signal.SIGTERM, before)


def script(env: dict[str, str], text: str, name: str = "swci-init") -> None:
    (Path(env["USR_DIR"]) / name).write_text(text)


def test_script_to_the_end(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    script(env, "# first\nPWD\nGET CONTEXT INFO x\nEXIT\nPWD\n")
    assert program.main(env) == 0, "failures count only under EXIT ON FAILURE"
    assert capsys.readouterr().out == (
        "SWARM LEARNING SWCI NODE\n"
        "SWCI:0 > # first\n"
        "SWCI:0 > PWD\n"
        "    /platform/swarm/usr\n"
        "SWCI:1 > GET CONTEXT INFO x\n"
        "    ERROR : there is no context x\n"
        "SWCI:2 > EXIT\n"
    )


def test_failing_script(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    script(env, "EXIT ON FAILURE\nSWITCH CONTEXT c\nPWD\n", "mine")
    assert program.main({**env, "SWCI_STARTUP_SCRIPT": "mine"}) == 1
    assert capsys.readouterr().out.endswith("    ERROR : there is no context c\n")


def test_documents_for_programs(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else is printed; what ends the session ends it as for people."""
    script(env, "# first\nPWD\nEXIT ON FAILURE\nSWITCH CONTEXT c\nPWD\n")
    assert program.main(env, ["--output", "json"]) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["number"], one["command"], one["ok"]) for one in told] == [
        (0, "PWD", True), (1, "EXIT ON FAILURE", True), (2, "SWITCH CONTEXT c", False),
    ]  # fmt: skip
    assert told[0]["result"] == {"directory": "/platform/swarm/usr"}
    assert told[2]["error"]["code"] == "SW8022"
    assert program.main({**env, "SWCI_OUTPUT": "json", "SWCI_STARTUP_SCRIPT": "absent"}) == 1
    (told,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (told["number"], told["error"]["code"]) == (None, "SW8001")


@pytest.mark.parametrize(
    ("given", "run", "generic"),
    [
        ({}, "120", "120"),
        ({"SWCI_TASK_MAX_WAIT_TIME": "7"}, "7", "7"),
        ({"SWCI_TASK_MAX_WAIT_TIME": "7", "SWCI_RUN_TASK_MAX_WAIT_TIME": "0.5"}, "0.5", "7"),
    ],
)
def test_limits_of_waits_come_from_the_environment(
    tmp_path: Path, given: dict[str, str], run: str, generic: str
) -> None:
    session = Session(language(), FakeNetwork().connect, user_directory=tmp_path, env=given)
    out = LinesOutput()
    session.execute("CREATE CONTEXT c WITH IP sn1", out)
    session.execute("LIST CONTEXT ENV c", out)
    assert out.lines[2:] == [
        f"SWCI_GENERIC_TASK_MAX_WAIT_TIME={generic}", f"SWCI_RUN_TASK_MAX_WAIT_TIME={run}",
    ]  # fmt: skip


def test_where_the_lines_of_a_prompt_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container has nothing else that outlives it than the user directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    inside = Path("/platform/swarm/usr")
    assert program._history({"SWARM_HOME": "/h"}, inside) == Path("/h/swci_history")
    assert program._history({}, inside) == inside / ".swci_history"
    assert program._history({}, tmp_path / "usr") == tmp_path / ".swarm" / "swci_history"


def test_unknown_arguments(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        program.main(env, ["--output", "xml"])
    assert caught.value.code == 2
    assert "invalid choice: 'xml'" in capsys.readouterr().err


def test_no_network_node(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listens on port 1; the real client says so."""
    script(env, "EXIT ON FAILURE\nCREATE CONTEXT c WITH IP 127.0.0.1 1\n")
    assert program.main(env) == 1
    assert (
        "ERROR : API Server is DOWN! 127.0.0.1:1: nothing listens there" in capsys.readouterr().out
    )


def test_commands_from_standard_input(
    env: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script(env, "PWD\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("LS\nEXIT ON FAILURE\nSLEEP 0\nNONSENSE\nPWD\n"))
    assert program.main(env) == 1
    assert capsys.readouterr().out.splitlines()[3:] == [
        "SWCI:1 > LS",
        "    swci-init",
        "SWCI:2 > EXIT ON FAILURE IS TURNED ON",
        "SWCI:3 > SLEEP 0",
        "SWCI:4 > NONSENSE",
        "    ERROR : 'NONSENSE' is no command; HELP lists them",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SWCI_STARTUP_SCRIPT": "absent"}, "SW8001: cannot read"),
        ({"SWARM_ID_CERT": ""}, "SW1201: No identity specified"),
        ({"SWCI_MODE": "GUI"}, "SW8002: SWCI_MODE=GUI: CLI or WEB expected"),
        ({"SWCI_MODE": "WEB", "SWCI_WEB_PORT": "x"}, "SW8002: SWCI_WEB_PORT=x: a port expected"),
        ({"SWCI_LOG_LEVEL": "LOUD"}, "SW9001"),
        ({"SWCI_OUTPUT": "xml"}, "SW8002: SWCI_OUTPUT is 'xml'"),
    ],
)
def test_cannot_begin(
    env: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    assert program.main({**env, **change}) == 1
    assert f"ERROR : {message}" in capsys.readouterr().err


def test_wrong_role(
    env: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = pki.environment(tmp_path / "cert", Role.SL, pki.authority(tmp_path / "cert"))
    assert program.main({**env, **other}) == 1
    assert "certificate SL-1 is one of SL, but SWCI is needed here" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_script(env: dict[str, str], number: signal.Signals, status: int) -> None:
    script(env, "PWD\nSLEEP 600\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "swci"],
        env={**os.environ, **env}, cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE, text=True,
        # Where the tests run in the background of a shell, it would be ignored from birth.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "SLEEP" in line:
                break
        process.send_signal(number)
        assert process.wait(timeout=30) == status
    finally:
        process.kill()
        process.wait()


def test_a_defect_ends_the_command_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = FakeNetwork()
    session = Session(
        language(), network.connect, user_directory=tmp_path, env={}, clock=network.clock
    )
    out = LinesOutput()
    session.execute("CREATE CONTEXT c WITH IP sn1", out)
    session.execute("SWITCH CONTEXT c", out)
    monkeypatch.setattr(network.clients[0], "table", lambda *_, **__: {"x": {}})
    assert not session.execute("LIST NODES", out).ok
    assert out.lines[-1].startswith("ERROR : SW1001: unexpected KeyError")
    session.close()
    assert all(client.closed for client in network.clients)


def test_ls_of_nothing(tmp_path: Path) -> None:
    network = FakeNetwork()
    session = Session(language(), network.connect, user_directory=tmp_path, env={})
    out = LinesOutput()
    assert not session.execute("ls nothing", out).ok
    assert out.lines[0].startswith("ERROR : ls: ")
