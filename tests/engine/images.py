"""Images for tests that need an engine, built when they are missing.

Building takes minutes, most of them waiting for downloads. So `begin` starts it beside the tests
that need no engine, and `base` and `nodes` wait until it is done.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.engine.up import ensure
from tests.machine import one_at_a_time

REPOSITORY = Path(__file__).resolve().parent.parent.parent
BASE = "swarm-base:latest"
NODE = "swarm-node:latest"


def has(image: str) -> bool:
    return not subprocess.run(
        ["docker", "image", "inspect", image], capture_output=True, check=False
    ).returncode


@functools.cache
def begin() -> Future[str]:
    """Start to make all images, with that of the nodes from the present source; once a process."""
    return ThreadPoolExecutor(1).submit(lambda: ensure() or _build())


def base() -> str:
    """Make an engine answer and the base image present; returns "" or the reason why not."""
    reason = begin().result()
    return "" if reason and not ensure() and has(BASE) and has("hello-world") else reason


def nodes() -> str:
    """The same, with the image of all nodes."""
    return begin().result()


def _build() -> str:
    with one_at_a_time("images"):
        return _build_alone()


def _build_alone() -> str:
    done = subprocess.run(
        [str(REPOSITORY / "image" / "build")],
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
