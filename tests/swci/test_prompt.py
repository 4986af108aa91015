"""The prompt: completion, interruption, history."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from swarm.errors import RemoteError
from swci.commands import language
from swci.prompt import Suggestions, run_interruptible, run_prompt
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
        assert run_interruptible(session, line, io.StringIO()).ok
    return session


def test_completes_keywords(session: Session) -> None:
    after = Suggestions(session).after
    assert "LIST" in after("")
    assert after("list t") == ["TASKRUNNER", "TASKRUNNERS", "TASKS"]
    assert after("WAIT FOR ") == ["IP", "SERVICE", "TASKRUNNER"]
    assert after("EXIT ON FAILURE ") == ["OFF", "ON"]
    assert after("LIST NODES ") == []
    assert after("nonsense ") == []


def test_completes_live_names(session: Session, network: FakeNetwork) -> None:
    network.world.task("build", "MAKE_USER_CONTAINER")
    after = Suggestions(session).after
    assert after("ASSIGN TASK ") == ["ROOTTASK", "build"]
    assert after("assign task build to def") == [RUNNER]
    assert after("PERFDATA ") == ["defaultbb.cqdb.sml.hpe"]
    assert after("SWITCH CONTEXT ") == ["c"]
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
    run_interruptible(session, f"ASSIGN TASK run TO {RUNNER} WITH 1 PEERS", stream)
    network.clock.at(7, lambda: network.act("interrupt"))
    outcome = run_interruptible(session, f"WAIT FOR TASKRUNNER {RUNNER}", stream)
    assert not outcome.leave
    assert stream.getvalue().endswith("INTERRUPTED : what the network has begun goes on\n")
    assert all(watch.closed for client in network.clients for watch in client.watches)
    assert run_interruptible(session, "LIST TASKS", stream).ok


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
