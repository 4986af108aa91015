"""What tests need of the machine: Debian's packages, and one test at a time where they share."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """One process at a time does this."""
    path = Path(tempfile.gettempdir()) / f"swarm-tests-{what}.lock"
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def install(needed: Mapping[str, str]) -> str:
    """Install what is missing. Returns "" when all is there, else the reason in one line.

    `needed`: programs, or paths of files, and the packages that bring them (several with blanks).
    """
    if not missing(needed):
        return ""
    with one_at_a_time("packages"):
        names = missing(needed)  # another test may have brought them meanwhile
        return _apt_get(names) if names else ""


def missing(needed: Mapping[str, str]) -> list[str]:
    """The packages of what is not there."""
    absent = [
        packages
        for what, packages in needed.items()
        if not (Path(what).exists() if "/" in what else shutil.which(what))
    ]
    return list(dict.fromkeys(" ".join(absent).split()))


def _apt_get(names: list[str]) -> str:
    wanted = " ".join(names)
    if shutil.which("apt-get") is None:
        return f"{wanted} missing, and this machine has no apt-get"
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=120"]
    install = [*command, "install", "-y", "-q", "--no-install-recommends", *names]
    if os.geteuid() != 0:
        return f"{wanted} missing: please run once: sudo {' '.join(install)}"
    # A service that a package brings is not started: nobody has asked for it.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for step in ([*command, "update", "-q"], install):
        done = subprocess.run(
            step, capture_output=True, text=True, env=environment, timeout=600, check=False
        )
    if done.returncode:
        tail = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"apt-get install {wanted} failed: {tail}"
    return ""
