"""The prompt: completion, interruption, history."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from swarm.errors import RemoteError
from swci.commands import language
from swci.json_lines import run_json
from swci.prompt import Suggestions, run_prompt, run_typed
from swci.session import Session
from tests.swci.network import FakeNetwork

RUNNER = "defaulttaskbb.taskdb.sml.hpe"
USER_DIRECTORY = Path(__file__).parent / "usr"


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
def session(network: FakeNetwork) -> Session:
    session = Session(
        language(), network.connect, user_directory=USER_DIRECTORY, env={}, clock=network.clock
    )
    for line in ("CREATE CONTEXT c WITH IP sn1", "SWITCH CONTEXT c"):
        assert run_typed(session, line, io.StringIO()).ok
    return session


def test_completes_keywords(session: Session) -> None:
    after = Suggestions(session).after
    assert "LIST" in after("")
    assert after("list t") == ["TASKRUNNER", "TASKRUNNERS", "TASKS"]
    assert after("WAIT FOR ") == ["IP", "SERVICE", "TASKRUNNER"]
    assert after("EXIT ON FAILURE ") == ["OFF", "ON"]
    assert after("LIST NODES ") == []
    assert after("nonsense ") == []
    assert after("help delete ") == ["CONTRACT", "TASK", "TASKRUNNER"]
    assert after("HELP SW") == ["SWITCH"]


def test_completes_live_names(session: Session, network: FakeNetwork) -> None:
    network.world.task("build", "MAKE_USER_CONTAINER")
    after = Suggestions(session).after
    assert after("ASSIGN TASK ") == ["ROOTTASK", "build"]
    assert after("assign task build to def") == [RUNNER]
    assert after("PERFDATA ") == ["defaultbb.cqdb.sml.hpe"]
    assert after("SWITCH CONTEXT ") == ["c"]
    network.act("join swop-1 pairs=1")
    network.act("join sl-1")
    network.act("assign build 1")
    network.act("enroll swop-1")
    uid = network.world.uid("swop-1")
    assert after(f"ASSIGN TASK build TO {RUNNER} TARGET ") == [uid]
    assert after("EVICT NODE s") == ["sl-1", "sn-1", "swop-1"]
    fresh = Suggestions(session).after
    assert fresh(f"GET TASKRUNNER PEER STATUS {RUNNER} ") == ["0", uid]
    assert fresh("GET TASKRUNNER PEER STATUS nothing ") == []
    assert after("GET CONTEXT ENV ") == [
        "SWCI_GENERIC_TASK_MAX_WAIT_TIME",
        "SWCI_RUN_TASK_MAX_WAIT_TIME",
        "c",
    ]


def test_names_are_asked_for_again_after_a_while(session: Session, network: FakeNetwork) -> None:
    now = 0.0
    suggestions = Suggestions(session, lambda: now)
    assert suggestions.after("GET TASK INFO ") == ["ROOTTASK"]
    network.world.task("build", "MAKE_USER_CONTAINER")
    assert suggestions.after("GET TASK INFO ") == ["ROOTTASK"]
    now = 5.0
    assert suggestions.after("GET TASK INFO ") == ["ROOTTASK", "build"]


def test_completes_files(session: Session) -> None:
    after = Suggestions(session).after
    assert after("CREATE TASK FROM ") == ["taskdefs/"]
    assert "taskdefs/wrong.yaml" in after("CREATE TASK FROM taskdefs/")
    assert after("cd ta") == ["taskdefs/"]
    assert after("cd taskdefs/") == []
    assert after("CREATE TASK FROM nowhere/") == []


def test_no_names_while_the_network_is_away(session: Session) -> None:
    def table(name: str, **_: int) -> dict[str, dict[str, object]]:
        raise RemoteError("SW5001", "no network node answers")

    assert session.active is not None
    session.active.client.table = table  # type: ignore[method-assign]
    assert Suggestions(session).after("GET TASK INFO ") == []


def test_interrupt_ends_the_wait_and_not_the_session(
    session: Session, network: FakeNetwork
) -> None:
    network.act("join swop-1 pairs=1")
    network.world.task("run", "RUN_SWARM")
    stream = io.StringIO()
    run_typed(session, f"ASSIGN TASK run TO {RUNNER} WITH 1 PEERS", stream)
    network.clock.at(7, lambda: network.act("interrupt"))
    outcome = run_typed(session, f"WAIT FOR TASKRUNNER {RUNNER}", stream)
    assert not outcome.leave
    assert stream.getvalue().endswith("INTERRUPTED : what the network has begun goes on\n")
    assert all(watch.closed for client in network.clients for watch in client.watches)
    assert run_typed(session, "LIST TASKS", stream).ok


def test_an_interrupted_paste_is_over(session: Session, network: FakeNetwork) -> None:
    stream = io.StringIO()
    network.clock.at(7, lambda: network.act("interrupt"))
    outcome = run_typed(session, "SLEEP 5\nSLEEP 5\nLIST TASKS", stream)
    assert not outcome.leave
    assert stream.getvalue() == (
        "SWCI:2 > SLEEP 5\nSWCI:3 > SLEEP 5\n    INTERRUPTED : what the network has begun goes on\n"
    )


def test_an_interrupted_wait_in_json(session: Session, network: FakeNetwork) -> None:
    stream = io.StringIO()
    network.clock.at(7, lambda: network.act("interrupt"))
    assert not run_typed(session, "SLEEP 50", stream, run_json).leave
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["error"]["code"] == "SW8030"


@pytest.fixture
def keys() -> Iterator[object]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


def test_session_at_the_prompt(session: Session, keys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    keys.send_text("LIST TASKS\n")
    keys.send_text("half a line\x03")  # Ctrl-C: a new line, the session stays
    keys.send_text("EXIT\n")
    stream = io.StringIO()
    outcome = run_prompt(session, tmp_path / "home" / "history", stream)
    assert (outcome.ok, outcome.leave) == (True, True)
    assert stream.getvalue() == "    ROOTTASK\n"
    history = tmp_path / "home" / "history"
    assert "+LIST TASKS" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_lines_that_are_pasted_together(session: Session, keys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """As in a script: each counts, comments do not, a failure stops them if it shall."""
    pasted = "# all of it\nLIST TASKS\n\nEXIT ON FAILURE\nGET TASK INFO x\nLIST TASKS"
    keys.send_text(f"\x1b[200~{pasted}\x1b[201~\n")
    stream = io.StringIO()
    outcome = run_prompt(session, tmp_path / "history", stream)
    assert (outcome.ok, outcome.leave) == (False, True)
    assert stream.getvalue().splitlines() == [
        "SWCI:2 > # all of it",
        "SWCI:2 > LIST TASKS",
        "    ROOTTASK",
        "SWCI:3 >",
        "SWCI:3 > EXIT ON FAILURE IS TURNED ON",
        "SWCI:4 > GET TASK INFO x",
        "    ERROR : there is no task x",
    ]


def test_a_history_that_others_can_read_is_made_private(
    session: Session,
    keys,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    history = tmp_path / "history"
    history.write_text("")
    history.chmod(0o644)
    keys.send_text("EXIT\n")
    run_prompt(session, history, io.StringIO())
    assert history.stat().st_mode & 0o777 == 0o600


def test_end_of_input_and_history_that_cannot_be_kept(
    session: Session,
    keys,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    (tmp_path / "file").write_text("")
    keys.send_text("\x04")  # Ctrl-D
    outcome = run_prompt(session, tmp_path / "file" / "history", io.StringIO())
    assert (outcome.ok, outcome.leave) == (True, True)


def test_failure_under_exit_on_failure_ends_it(session: Session, keys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    keys.send_text("EXIT ON FAILURE\nGET TASK INFO nothing\n")
    outcome = run_prompt(session, tmp_path / "history", io.StringIO())
    assert (outcome.ok, outcome.leave) == (False, True)
