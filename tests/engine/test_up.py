"""What a killed engine leaves behind does not keep the next one from starting."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import up


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(up, "RUN", tmp_path)
    (tmp_path / "docker" / "containerd").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended and that nobody has waited for."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    yield child.pid
    child.wait()


def write(run: Path, pid: object) -> tuple[Path, Path]:
    files = (run / "docker.pid", run / "docker" / "containerd" / "containerd.pid")
    for file in files:
        file.write_text(str(pid))
    return files


@pytest.mark.parametrize("content", ["", "nonsense", "4194999"])
def test_files_of_dead_processes_go(run: Path, content: str) -> None:
    engine, containerd = write(run, content)
    up._clear_remains()
    assert not engine.exists()
    assert not containerd.parent.exists()


def test_a_zombie_counts_as_dead(run: Path, zombie: int) -> None:
    engine, containerd = write(run, zombie)
    up._clear_remains()
    assert not engine.exists()
    assert not containerd.parent.exists()


def test_a_live_foreign_process_counts_as_dead(run: Path) -> None:
    engine, containerd = write(run, os.getpid())
    up._clear_remains()
    assert not engine.exists()
    assert not containerd.parent.exists()


def test_a_live_engine_keeps_its_files(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(run, 1)
    monkeypatch.setattr(
        up, "_program", lambda file: file.name.partition(".")[0].replace("docker", "dockerd")
    )
    up._clear_remains()
    assert all(file.exists() for file in files)


def test_a_named_engine_that_does_not_answer_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(up, "answers", lambda: False)
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    assert up.ensure() == "no engine answers at DOCKER_HOST=tcp://elsewhere:2375"
