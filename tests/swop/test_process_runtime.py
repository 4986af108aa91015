"""What only the PROCESS runtime has to do."""

from __future__ import annotations

import json
import os
import signal
import stat
import tempfile
from pathlib import Path

import psutil
import pytest

from swarm.errors import LocalError
from swop.environment import examine
from swop.plan import Mount
from swop.process_runtime import ProcessRuntime
from swop.profile import MountType
from swop.runtime import BuildRequest, RunState
from swop.work import Work
from tests.swop.programs import IMAGE, ended, eventually, python

UP = "import time; print('up'); time.sleep(300)"


@pytest.fixture
def runtime(tmp_path: Path):
    runtime = ProcessRuntime("a" * 32, tmp_path / "data")
    runtime.build(BuildRequest(IMAGE, (), None, {}), Work())
    yield runtime
    names = [found.name for found in runtime.adopt()]
    runtime.stop(names, 1.0)
    runtime.remove(names)
    runtime.close()


def test_the_operators_own_settings_do_not_leak(
    runtime: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARM_ID_KEY", "/secret")
    monkeypatch.setenv("SWOP_PROFILE", "x")
    monkeypatch.setenv("ORDINARY", "kept")
    program = python(runtime, "import os; print(sorted(os.environ))")
    runtime.start(program)
    ended(runtime, program.name)
    seen = runtime.log_tail(program.name)
    assert "'ORDINARY'" in seen
    assert "SWARM_ID_KEY" not in seen and "SWOP_PROFILE" not in seen


def test_a_killed_keeper_takes_its_program_along(runtime: ProcessRuntime) -> None:
    program = python(runtime, UP)
    runtime.start(program)
    eventually(lambda: runtime.log_tail(program.name) == "up")
    pid = json.loads((keeper_file(runtime, program.operation)).read_text())["pid"]
    child = psutil.Process(pid).children()[0]
    os.kill(pid, signal.SIGKILL)
    status = eventually(
        lambda: s if (s := runtime.status(program.name)).state is RunState.EXITED else None
    )
    assert status.code == 137
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def keeper_file(runtime: ProcessRuntime, operation: str) -> Path:
    return runtime.data / operation / "0" / "ML" / "keeper.json"


def test_a_frozen_keeper_cannot_protect_its_program(runtime: ProcessRuntime) -> None:
    program = python(runtime, UP)
    runtime.start(program)
    eventually(lambda: runtime.log_tail(program.name) == "up")
    pid = json.loads((keeper_file(runtime, program.operation)).read_text())["pid"]
    child = psutil.Process(pid).children()[0]
    os.kill(pid, signal.SIGSTOP)
    runtime.stop([program.name], grace=0.2)
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert runtime.status(program.name).state is RunState.EXITED


def test_removal_leaves_nothing_but_the_log(runtime: ProcessRuntime) -> None:
    program = python(runtime, "print('said')")
    runtime.start(program)
    ended(runtime, program.name)
    runtime.remove([program.name])
    left = {path.name for path in runtime.data.rglob("*")}
    assert left == {"logs", "volumes", "environments", f"{program.name}.log", f"{IMAGE}.json"}


def test_a_link_with_a_long_path_gets_a_short_alias(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    runtime = ProcessRuntime("a" * 32, deep)
    runtime.build(BuildRequest(IMAGE, (), None, {}), Work())
    code = (
        "import os, socket; s = socket.socket(socket.AF_UNIX);"
        "s.bind(os.environ['SWARM_LINK'] + '/link.sock'); print(os.environ['SWARM_LINK'])"
    )
    program = python(runtime, code)
    runtime.start(program)
    assert ended(runtime, program.name).code == 0, runtime.log_tail(program.name)
    alias = Path(runtime.log_tail(program.name))
    assert alias.is_symlink()
    assert stat.S_IMODE(alias.parent.stat().st_mode) == 0o700
    runtime.remove([program.name])
    assert not alias.parent.exists()


def test_two_programs_that_need_the_same_link_in_a_source(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    private, model = tmp_path / "private", tmp_path / "model"
    private.mkdir()
    model.mkdir()
    mounts = (
        Mount(MountType.BIND, str(private), "/w"),
        Mount(MountType.BIND, str(model), "/w/model"),
    )
    first = python(runtime, UP, mounts=mounts, workdir="/w")
    second = python(runtime, UP, mounts=mounts, workdir="/w", operation=first.operation, index=1)
    for program in (first, second):
        runtime.start(program)
    runtime.stop([first.name], 1.0)
    runtime.remove([first.name])
    assert (private / "model").is_symlink(), "the second still needs it"
    runtime.stop([second.name], 1.0)
    runtime.remove([second.name])
    assert not (private / "model").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run programs as another user")
def test_as_root_programs_run_as_the_given_user() -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # pytest's own directories are closed to other users
        runtime = ProcessRuntime("a" * 32, Path(directory) / "data")
        runtime.build(BuildRequest(IMAGE, (), None, {}), Work())
        program = python(runtime, "", entrypoint=("id",), command=(), user="12345:12346")
        runtime.start(program)
        assert ended(runtime, program.name).code == 0, runtime.log_tail(program.name)
        seen = runtime.log_tail(program.name)
        assert seen.startswith("uid=12345 gid=12346 groups=12346")
        runtime.remove([program.name])


def test_what_programs_write_into_volumes_is_no_record(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    """A program that claims to be one of the operator's, and what is to be removed with it."""
    precious = tmp_path / "precious" / "file"
    precious.parent.mkdir()
    precious.touch()
    forged = {
        "name": "x", "role": "ML", "operation": "0" * 16, "index": 0, "owner": runtime.uid,
        "link": "", "outside": [str(precious)], "alias": str(precious),
    }  # fmt: skip
    place = runtime.data / "volumes" / "shared" / "x"
    place.mkdir(parents=True)
    (place / "program.json").write_text(json.dumps(forged))
    assert runtime.adopt() == []
    runtime.remove(["x"])
    assert precious.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run programs as another user")
def test_a_program_cannot_write_down_what_shall_be_removed() -> None:
    code = (
        "import os, pathlib\n"
        "place = pathlib.Path(os.environ['ROOT']).parent\n"
        "for name in ('program.json', 'exit.json', 'new'):\n"
        "    for act in (lambda p: p.write_text('{}'), lambda p: p.rename(p.with_name('y'))):\n"
        "        try: act(place / name); print('done', name)\n"
        "        except OSError as error: print(type(error).__name__)\n"
        "print('ran')"
    )
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # pytest's own directories are closed to other users
        runtime = ProcessRuntime("a" * 32, Path(directory) / "data")
        runtime.build(BuildRequest(IMAGE, (), None, {}), Work())
        program = python(runtime, code, user="12345:12346", workdir="/w")
        root = runtime.data / program.operation / "0" / "ML" / "root"
        os.environ["ROOT"] = str(root)
        try:
            runtime.start(program)
        finally:
            del os.environ["ROOT"]
        ended(runtime, program.name)
        said = runtime.log_tail(program.name).splitlines()
        assert said[-1] == "ran" and "done" not in " ".join(said), said
        runtime.remove([program.name])


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError) as caught:
        ProcessRuntime("a" * 32, tmp_path / "file" / "data")
    assert caught.value.code == "SW7015"


def test_an_interpreter_without_the_library_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho 'ModuleNotFoundError: no swarmlearning' >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(LocalError, match="no swarmlearning"):
        examine(str(fake))
    with pytest.raises(LocalError, match="SW7014"):
        examine(str(tmp_path / "none"))
