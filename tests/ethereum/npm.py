"""Programs from the npm registry, for tests and the demonstration: kept in `.cache/npm`.

Nothing of the product needs them. Where there is no npm, or no registry, `NotObtainable` says what
to do, and tests are skipped with that sentence.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "npm"
INSTALL_SECONDS = 300.0


class NotObtainable(Exception):
    """A program is not here, and cannot be fetched."""


def package(name: str, version: str) -> Path:
    """Return the directory of an npm package of exactly that version; install it when missing."""
    home = CACHE / f"{name.replace('/', '_')}-{version}"
    inside = home / "node_modules" / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        # Several tests may ask at the same time; one installs, the others find it done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            _install(home, f"{name}@{version}")
            (home / "complete").touch()
    return inside


def _install(home: Path, wanted: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NotObtainable(f"{wanted} is needed and there is no npm: install Node.js with npm")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(home)]
    try:
        done = subprocess.run(
            [*command, wanted],
            env={**os.environ, "npm_config_update_notifier": "false"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=INSTALL_SECONDS,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotObtainable(f"npm did not fetch {wanted} in {INSTALL_SECONDS:.0f} s") from None
    if done.returncode:
        reason = (done.stdout.strip().splitlines() or ["no message"])[-1]
        raise NotObtainable(f"npm cannot fetch {wanted}: {reason}")
