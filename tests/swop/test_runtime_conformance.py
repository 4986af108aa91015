"""What every runtime must do; each test runs with PROCESS, with DOCKER, and with PODMAN.

PODMAN is the DOCKER runtime with Podman's service behind the socket.
"""

from __future__ import annotations

import socket
import threading
import uuid
from pathlib import Path

import pytest

from swarm.errors import LocalError
from swop.plan import LINK_DIRECTORY, Mount
from swop.profile import MountType
from swop.pulling import PullRequest
from swop.runtime import LOG_LIMIT, BuildRequest, RunState, Runtime
from swop.work import Work
from tests.swop import registry
from tests.swop.programs import RUNTIMES, ended, eventually, is_podman, python

pytestmark = pytest.mark.parametrize("make_runtime", RUNTIMES, indirect=True)

SLEEP = "import time; print('up'); time.sleep(300)"


def test_it_says_what_it_is(runtime: Runtime) -> None:
    assert runtime.check()


def test_exit_code_and_output(runtime: Runtime) -> None:
    program = python(runtime, "print('one'); print('two'); raise SystemExit(3)")
    assert runtime.status(program.name).state is RunState.MISSING
    runtime.start(program)
    assert ended(runtime, program.name).code == 3
    assert runtime.log_tail(program.name).splitlines() == ["one", "two"]


def test_start_is_idempotent(runtime: Runtime, tmp_path: Path) -> None:
    code = "open('n', 'a').write('x')"
    program = python(runtime, code, workdir="/work", mounts=(bind(tmp_path, "/work"),))
    runtime.start(program)
    runtime.start(program)
    ended(runtime, program.name)
    runtime.start(program)
    assert ended(runtime, program.name).code == 0
    assert (tmp_path / "n").read_text() == "x"


def bind(source: Path, target: str) -> Mount:
    return Mount(MountType.BIND, str(source), target)


def test_arguments_environment_and_workdir_see_the_mounts(runtime: Runtime, tmp_path: Path) -> None:
    private, model = tmp_path / "private", tmp_path / "model"
    private.mkdir()
    model.mkdir()
    (model / "program.py").write_text(
        "import os, sys, pathlib\n"
        "text = pathlib.Path(os.environ['DATA']).read_text()\n"
        "pathlib.Path('result').write_text(text + sys.argv[1])\n"
        "pathlib.Path(sys.argv[2]).write_text('two')\n"
    )
    (private / "data").write_text("data ")
    program = python(
        runtime,
        "",
        command=("model/program.py", "word", "/tmp/test/second"),
        workdir="/tmp/test",
        mounts=(bind(private, "/tmp/test/"), bind(model, "/tmp/test/model")),
        environment={"DATA": "/tmp/test/data"},
    )
    runtime.start(program)
    status = ended(runtime, program.name)
    assert status.code == 0, runtime.log_tail(program.name)
    assert (private / "result").read_text() == "data word"
    assert (private / "second").read_text() == "two"
    runtime.remove([program.name])
    assert not (private / "model").is_symlink()
    assert (model / "program.py").exists()


def test_both_members_of_a_pair_share_the_link(runtime: Runtime) -> None:
    write = "import os; open(os.environ['SWARM_LINK'] + '/x', 'w').write('seen')"
    read = "import os; print(open(os.environ['SWARM_LINK'] + '/x').read())"
    environment = {"SWARM_LINK": LINK_DIRECTORY}
    first = python(runtime, write, environment=environment)
    second = python(
        runtime,
        read,
        environment=environment,
        link=first.link,
        operation=first.operation,
        index=1,
    )
    runtime.start(first)
    assert ended(runtime, first.name).code == 0, runtime.log_tail(first.name)
    runtime.start(second)
    assert ended(runtime, second.name).code == 0, runtime.log_tail(second.name)
    assert runtime.log_tail(second.name) == "seen"


def test_stop_ends_the_whole_tree(runtime: Runtime, tmp_path: Path) -> None:
    """A child that left the session and ignores SIGTERM goes, too."""
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('child', flush=True)\n"
        "while True:\n"
        "    open('beat', 'a').write('.'); time.sleep(0.05)"
    )
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {stubborn!r}], start_new_session=True)\n"
        "time.sleep(300)"
    )
    program = python(runtime, code, workdir="/work", mounts=(bind(tmp_path, "/work"),))
    runtime.start(program)
    beat = tmp_path / "beat"
    eventually(lambda: beat.exists() and beat.stat().st_size > 2)
    runtime.stop([program.name], grace=1.0)
    assert runtime.status(program.name).state is RunState.EXITED
    size = beat.stat().st_size
    runtime.remove([program.name])
    assert beat.stat().st_size == size
    assert runtime.status(program.name).state is RunState.MISSING
    assert runtime.adopt() == []


def test_a_program_that_leaves_children_behind_still_ends(runtime: Runtime, tmp_path: Path) -> None:
    orphan = "import time\nwhile True:\n    open('beat', 'a').write('.'); time.sleep(0.05)"
    code = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {orphan!r}], start_new_session=True)\n"
        "while not os.path.exists('beat'): time.sleep(0.02)"
    )
    program = python(runtime, code, workdir="/work", mounts=(bind(tmp_path, "/work"),))
    runtime.start(program)
    assert ended(runtime, program.name).code == 0
    size = (tmp_path / "beat").stat().st_size
    runtime.remove([program.name])
    assert (tmp_path / "beat").stat().st_size == size


def test_a_killed_program_has_the_code_of_its_signal(runtime: Runtime) -> None:
    program = python(runtime, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    # Process 1 of a container is the engine's init, so the program can kill itself in both.
    runtime.start(program)
    assert ended(runtime, program.name).code == 137


def test_stopping_and_removing_what_is_not_there(runtime: Runtime) -> None:
    runtime.stop(["swarm-test-none"])
    runtime.remove(["swarm-test-none"])
    assert runtime.status("swarm-test-none").state is RunState.MISSING
    assert runtime.log_tail("swarm-test-none") == ""


def test_remove_ends_what_still_runs(runtime: Runtime) -> None:
    program = python(runtime, SLEEP)
    runtime.start(program)
    eventually(lambda: runtime.log_tail(program.name) == "up")
    runtime.remove([program.name])
    assert runtime.status(program.name).state is RunState.MISSING


def test_a_restarted_operator_finds_what_runs_and_what_ended(
    runtime: Runtime, make_runtime
) -> None:
    running = python(runtime, SLEEP)
    over = python(runtime, "raise SystemExit(7)", operation=running.operation, index=1)
    for program in (running, over):
        runtime.start(program)
    eventually(lambda: runtime.log_tail(running.name) == "up")
    ended(runtime, over.name)
    runtime.close()

    again = make_runtime()
    found = {item.name: item for item in again.adopt()}
    assert set(found) == {running.name, over.name}
    assert found[running.name].operation == running.operation
    assert found[running.name].role == "ML"
    assert found[running.name].link == running.link
    assert again.status(running.name).state is RunState.RUNNING
    assert again.status(over.name).code == 7
    again.start(running)
    again.stop([running.name], grace=1.0)
    assert again.status(running.name).state is RunState.EXITED


def test_another_operator_sees_nothing_of_it(runtime: Runtime, tmp_path: Path) -> None:
    program = python(runtime, SLEEP)
    runtime.start(program)
    eventually(lambda: runtime.log_tail(program.name) == "up")
    stranger = stranger_of(runtime)
    assert stranger.adopt() == []
    stranger.close()


def stranger_of(runtime: Runtime) -> Runtime:
    mine = runtime.uid  # type: ignore[attr-defined]
    data = getattr(runtime, "data", None) or runtime.image  # type: ignore[attr-defined]
    assert mine != "0" * 32
    return type(runtime)("0" * 32, data)  # type: ignore[call-arg]


def test_a_log_tail_is_bounded(runtime: Runtime) -> None:
    program = python(runtime, "for i in range(3000): print(f'line {i}')")
    runtime.start(program)
    ended(runtime, program.name)
    tail = runtime.log_tail(program.name)
    assert len(tail) <= LOG_LIMIT
    assert tail.splitlines()[-1] == "line 2999"


def test_output_is_followed_from_the_start_to_the_end(runtime: Runtime) -> None:
    """Asked for at once after the start, when nothing has been written yet."""
    code = "import time; print('one', flush=True); time.sleep(0.3); print('two', end='')"
    program = python(runtime, code)
    runtime.start(program)
    assert b"".join(runtime.follow(program.name)) == b"one\ntwo"
    assert runtime.status(program.name).state is RunState.EXITED
    assert b"".join(runtime.follow(program.name, lines=1)) == b"two"
    assert b"".join(runtime.follow(program.name, lines=0)) == b""


def test_following_can_be_ended_from_another_thread(runtime: Runtime) -> None:
    program = python(runtime, SLEEP)
    runtime.start(program)
    output = runtime.follow(program.name)
    chunks = iter(output)
    said = b""
    while not said.endswith(b"\n"):
        said += next(chunks)
    assert said == b"up\n"
    threading.Timer(0.1, output.close).start()
    assert list(chunks) == []
    assert runtime.status(program.name).state is RunState.RUNNING
    assert list(runtime.follow("swarm-test-none")) == []


def test_a_log_is_kept_when_its_program_is_removed(runtime: Runtime) -> None:
    program = python(runtime, SLEEP)
    runtime.start(program)
    eventually(lambda: runtime.log_tail(program.name) == "up")
    runtime.remove([program.name])
    kept = runtime._logs.path(program.name)  # type: ignore[attr-defined]
    assert kept.read_text() == "up\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_a_missing_image_is_named(runtime: Runtime) -> None:
    assert not runtime.has_image("swarm-test-no-such-image:latest")
    program = python(runtime, "", image="swarm-test-no-such-image:latest")
    with pytest.raises(LocalError) as caught:
        runtime.start(program)
    assert caught.value.code == "SW7009"
    assert "swarm-test-no-such-image" in caught.value.cause


def test_a_missing_source_is_named(runtime: Runtime, tmp_path: Path) -> None:
    program = python(runtime, "", mounts=(bind(tmp_path / "none", "/data"),))
    with pytest.raises(LocalError) as caught:
        runtime.start(program)
    assert caught.value.code == "SW7007"
    assert str(tmp_path / "none") in caught.value.cause


def test_a_program_that_cannot_start_is_told(runtime: Runtime) -> None:
    program = python(runtime, "", entrypoint=("/no/such/program",))
    try:
        runtime.start(program)
    except LocalError as error:
        assert error.code == "SW7011"
        assert "/no/such/program" in error.cause
    else:
        status = ended(runtime, program.name)
        said = status.note + runtime.log_tail(program.name)
        if is_podman(runtime):  # its init names no names
            assert status.code == 1
            assert "failed to exec" in said and "No such file" in said
        else:
            assert status.code == 127
            assert "/no/such/program" in said


def test_a_build_makes_what_its_outcome_names(runtime: Runtime) -> None:
    outcome = f"swarm-test-{uuid.uuid4().hex[:8]}"
    told: list[str] = []
    request = BuildRequest(
        outcome, ("FROM swarm-base:latest", "ENV \\", "  A=b", " ", "RUN true"), None, {}
    )
    sentence = runtime.build(request, Work(told.append))
    assert told and outcome in sentence
    assert runtime.has_image(outcome)
    forget(runtime, outcome)


def test_a_pull_makes_what_its_outcome_names(runtime: Runtime, listener: socket.socket) -> None:
    outcome = f"swarm-test-{uuid.uuid4().hex[:8]}"
    told: list[str] = []
    with registry.serve(listener=listener) as server:
        repository = f"{server.name}/team/tool"
        request = PullRequest("task", outcome, repository, "1", None)
        sentence = runtime.pull(request, Work(told.append))
        again = runtime.pull(request, Work())
    assert told and outcome in sentence and again == sentence
    assert runtime.has_image(outcome)
    forget(runtime, f"{repository}:1")
    forget(runtime, outcome)


def test_work_that_was_given_up_before_does_not_begin(runtime: Runtime) -> None:
    outcome = f"swarm-test-{uuid.uuid4().hex[:8]}"
    work = Work()
    work.give_up("the taskrunner was reset")
    with pytest.raises(LocalError, match="SW7020: the taskrunner was reset"):
        runtime.build(BuildRequest(outcome, ("FROM swarm-base:latest",), None, {}), work)
    with pytest.raises(LocalError, match="SW7020: the taskrunner was reset"):
        runtime.pull(PullRequest("task", outcome, "127.0.0.1:1/x", "1", None), work)
    assert not runtime.has_image(outcome)


def forget(runtime: Runtime, outcome: str) -> None:
    """Remove an image again; PROCESS keeps its record in a directory that the test owns."""
    engine = getattr(runtime, "_engine", None)
    if engine is not None:
        engine.images.remove(outcome, force=True)
