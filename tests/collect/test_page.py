"""The page about the collector: its commands, executed."""

from __future__ import annotations

from pathlib import Path

from tests.docs.test_commands import blocks, shell
from tests.launch.conftest import FakeDocker, docker  # noqa: F401 - a fixture


def test_the_page(docker: FakeDocker, tmp_path: Path) -> None:  # noqa: F811
    (script,) = blocks("docs/how-to/hand-on-logs.md")
    (tmp_path / "root").mkdir()
    said = shell(tmp_path / "root", script)
    for name in ("out.log", "versions.json", "profiles/swop1_profile.yaml", "tasks/"):
        assert f"/{name}" in said, said
