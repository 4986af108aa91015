"""`swarm logs` for what an operator runs as local processes: running, ended, and removed."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.launch import cli, nodes, programs
from swop import keeper
from swop.process_runtime import ProcessRuntime
from swop.runtime import BuildRequest
from swop.work import Work
from tests.swop.programs import IMAGE, ended, eventually, python

WAITS = (
    "import os, time; print('one'); print('two')\n"
    "while not os.path.exists('go'): time.sleep(0.02)\n"
    "print('three', end='')"
)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessRuntime]:
    """That of an operator `swop1`, which this process claims to be."""
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no engine
    nodes.directory("swop1").mkdir(parents=True)
    nodes.register("swop1", "swop", os.getpid(), remove=False)
    runtime = ProcessRuntime("a" * 32, nodes.directory("swop1") / "data")
    runtime.build(BuildRequest(IMAGE, (), None, {}), Work())
    yield runtime
    names = [found.name for found in runtime.adopt()]
    runtime.stop(names, 1.0)
    runtime.remove(names)
    runtime.close()


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.swarm(["logs", *words]) == 0
    return capsys.readouterr().out


def test_while_it_runs_and_when_it_has_been_removed(
    runtime: ProcessRuntime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = python(runtime, WAITS, workdir="/w")
    runtime.start(program)
    eventually(lambda: runtime.log_tail(program.name).endswith("two"))
    assert said(capsys, program.name) == "one\ntwo\n"
    assert said(capsys, "--tail", "1", program.name) == "two\n"
    assert said(capsys, program.name, "--tail=0") == ""
    assert f"{program.name:<24} ml     running" in said(capsys)

    place = runtime.data / program.operation / "0" / "ML" / "root" / "w" / "go"
    threading.Timer(0.1, place.touch).start()
    assert said(capsys, "-f", "--tail=1", program.name) == "two\nthree"
    ended(runtime, program.name)
    assert f"{program.name:<24} ml     ended" in said(capsys)

    runtime.remove([program.name])
    assert said(capsys, "--follow", program.name) == "one\ntwo\nthree"
    assert f"{program.name:<24} -      removed" in said(capsys)


def test_it_may_be_followed_before_its_keeper_has_begun(
    runtime: ProcessRuntime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator has written down what it starts; nothing else is there yet."""
    program = python(runtime, "print('said')")
    place = runtime._place(program)
    runtime._prepare(program, place, sys.executable)
    (found,) = programs.known()
    assert (found.name, found.log.exists(), found.is_over()) == (program.name, False, False)
    late = threading.Timer(0.3, runtime._launch, (program.name, place))
    late.start()
    assert said(capsys, "-f", program.name) == "said\n"
    late.join()
    runtime._places[program.name] = place


def test_a_killed_keeper_ends_the_following(
    runtime: ProcessRuntime, capsys: pytest.CaptureFixture[str]
) -> None:
    program = python(runtime, "import time; print('up'); time.sleep(300)")
    runtime.start(program)
    eventually(lambda: runtime.log_tail(program.name) == "up")
    child = runtime._children[program.name]
    threading.Timer(0.1, child.kill).start()
    assert said(capsys, "-f", program.name) == "up\n"
    assert keeper.__doc__ and runtime.status(program.name).code == 137


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["none"], "swarm: SW9006: there is no log of none on this host"),
        (["../x"], "swarm: logs: ../x: not the name of a node"),
        (["--tail", "x", "n"], "swarm: --tail: a number of lines expected, found 'x'"),
        (["--tail"], "swarm: --tail: a number of lines expected, found ''"),
        (["-x"], "swarm: logs: -x: not understood"),
        (["a", "b"], "swarm: logs: b: not understood"),
        (["swop1"], "swarm: swop1 runs in the foreground"),
    ],
)
def test_mistakes_are_answered(
    runtime: ProcessRuntime, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    assert cli.swarm(["logs", *words]) == 1
    assert complaint in capsys.readouterr().err
