"""Images for tests that need an engine, built when they are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.engine.up import ensure

REPOSITORY = Path(__file__).resolve().parent.parent.parent
BASE = "swarm-base:latest"


def has(image: str) -> bool:
    return not subprocess.run(
        ["docker", "image", "inspect", image], capture_output=True, check=False
    ).returncode


def base() -> str:
    """Make an engine answer and the base image present; returns "" or the reason why not."""
    reason = ensure()
    if reason or (has(BASE) and has("hello-world")):
        return reason
    return _build("base")


def nodes() -> str:
    """The same, with the image of all nodes built from the present source."""
    return ensure() or _build()


def _build(*arguments: str) -> str:
    done = subprocess.run(
        [str(REPOSITORY / "image" / "build"), *arguments],
        cwd=REPOSITORY,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        | {"PYTHON": sys.executable, "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.returncode:
        return ""
    tail = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
    return f"no image for the tests: {tail[:300]}"
