"""A `docker` command that records its arguments, and answers as an engine would."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

FAKE = """#!{python}
import json, os, sys
from pathlib import Path
home = Path({home!r})
words = sys.argv[1:]
with (home / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
if words[-1] == "--help":
    print((home / "help").read_text() if (home / "help").exists() else "")
    sys.exit()
for condition, answer in json.loads((home / "answers").read_text()):
    if words[: len(condition)] == condition or set(condition) <= set(words):
        if answer.get("stderr"):
            print(answer["stderr"], file=sys.stderr)
        if answer.get("stdout"):
            print(answer["stdout"])
        sys.exit(answer.get("status", 0))
if words[:2] == ["container", "create"]:
    lines = (home / "calls").read_text().splitlines()
    number = sum('"create"' in line and '"--help"' not in line for line in lines)
    print(f"container-{{number}}")
if words[:2] == ["container", "inspect"]:
    print("sha256:1234")
if words[:2] == ["container", "cp"]:
    (home / "info").write_text(Path(words[2]).read_text())
"""


class FakeDocker:
    """What was asked of the fake, and what it shall answer."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._answers: list[tuple[list[str], dict[str, object]]] = []
        self._write()

    def answer(self, *words: str, stdout: str = "", stderr: str = "", status: int = 0) -> None:
        """Answer calls that begin with `words`, or hold all of them."""
        self._answers.append((list(words), {"stdout": stdout, "stderr": stderr, "status": status}))
        self._write()

    def help(self, text: str) -> None:
        (self.home / "help").write_text(text)

    def calls(self, *beginning: str) -> list[list[str]]:
        """All calls that begin with these words, --help not counted."""
        try:
            lines = (self.home / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        calls = [json.loads(line) for line in lines]
        count = len(beginning)
        return [c for c in calls if c[:count] == list(beginning) and c[-1] != "--help"]

    def created(self) -> list[str]:
        """Arguments of the one `docker container create`."""
        (call,) = self.calls("container", "create")
        return call[2:]

    def info(self) -> list[str]:
        return (self.home / "info").read_text().splitlines()

    def _write(self) -> None:
        (self.home / "answers").write_text(json.dumps(self._answers))


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """The fake, first on the PATH; no other program but the system's is on it."""
    home = tmp_path / "docker"
    (home / "bin").mkdir(parents=True)
    script = home / "bin" / "docker"
    script.write_text(FAKE.format(python=sys.executable, home=str(home)))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_HOST", "fake")  # so that sudo is never looked for
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "nodes"))
    monkeypatch.chdir(tmp_path)
    return FakeDocker(home)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Identity files and a user directory, as a workspace has them."""
    for name in ("key.pem", "cert.pem"):
        (tmp_path / name).write_text("x")
    (tmp_path / "capath").mkdir()
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr" / "profile.yaml").write_text("x")
    (tmp_path / "usr" / "swci-init").write_text("EXIT")
    return tmp_path


@pytest.fixture
def identity(files: Path) -> list[str]:
    return ["--key=key.pem", "--cert=cert.pem", "--capath=capath"]
