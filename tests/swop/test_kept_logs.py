"""Logs of removed programs: one budget, private files, the oldest go first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm.errors import LocalError
from swop.kept_logs import KeptLogs

LINE = b"0123456789" * 10 + b"\n"


@pytest.fixture
def logs(tmp_path: Path) -> KeptLogs:
    return KeptLogs(tmp_path / "logs", 40_000)


def aged(logs: KeptLogs, name: str, age: int) -> Path:
    path = logs.path(name)
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def test_the_end_of_a_log_is_kept_and_says_what_is_missing(logs: KeptLogs) -> None:
    logs.keep("x", (LINE for _ in range(10_000)))
    text = logs.path("x").read_bytes()
    assert 5_000 < len(text) <= logs.most
    first, _, rest = text.partition(b"\n")
    assert first.endswith(b"bytes before this are not kept]")
    assert rest == LINE * (len(rest) // len(LINE))


def test_a_second_run_of_a_name_is_added(logs: KeptLogs) -> None:
    logs.keep("x", [b"one\n"])
    logs.keep("x", [b"two\n"])
    assert logs.path("x").read_bytes() == b"one\ntwo\n"


def test_files_are_private_whatever_the_umask(logs: KeptLogs) -> None:
    before = os.umask(0)
    try:
        logs.keep("x", [b"secret\n"])
        logs.keep("long", [LINE] * 1000)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in logs.directory.iterdir()} == {0o600}
    assert logs.directory.stat().st_mode & 0o777 == 0o700


def test_the_oldest_go_first_and_the_living_stay(logs: KeptLogs) -> None:
    for number in range(8):
        logs.keep(f"x{number}", [LINE * 80])
        aged(logs, f"x{number}", age=100 - number)
    logs.trim(living={"x0"})
    left = sorted(path.stem for path in logs.directory.iterdir())
    assert left == ["x0", "x4", "x5", "x6", "x7"]


def test_a_log_that_is_settled_is_cut(logs: KeptLogs) -> None:
    logs.path("x").write_bytes(LINE * 1000)
    logs.settle("x")
    assert logs.path("x").stat().st_size <= logs.most
    logs.settle("none")


def test_without_a_budget_nothing_is_kept(tmp_path: Path) -> None:
    logs = KeptLogs(tmp_path, 0)
    logs.keep("x", [b"one"])
    logs.path("y").write_bytes(b"two")
    logs.settle("y")
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_a_log_s_place_is_not_followed(logs: KeptLogs, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    logs.path("x").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        logs.keep("x", [b"one"])
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_a_directory_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="SW7015"):
        KeptLogs(tmp_path / "file" / "logs", 1)
