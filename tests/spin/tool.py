"""Spin, the model checker, for the tests: installed when it is missing and that is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

MODEL = Path(__file__).parents[2] / "swarm" / "ledger" / "consensus" / "voting.pml"
PROGRAMS = {"spin": "spin", "gcc": "gcc libc6-dev"}  # program -> Debian's packages


def ensure() -> str:
    """Make sure of spin and gcc. Returns "" on success, else the reason in one line."""
    packages = [name for p, n in PROGRAMS.items() if shutil.which(p) is None for name in n.split()]
    if not packages:
        return ""
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        return f"the model is not checked: {', '.join(packages)} missing, and there is no apt-get"
    if os.geteuid() != 0:
        return f"the model is not checked: please run once: sudo {' '.join(install)}"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = ["-o", "DPkg::Lock::Timeout=120"]
    for command in (["apt-get", *wait, "update", "-q"], [*install, *wait]):
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=600, check=False
        )
    if done.returncode:
        tail = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"the model is not checked: {' '.join(install)} failed: {tail}"
    return ""


def check(where: Path, *defines: str) -> str:
    """Search every state of the model, compiled in `where`; returns what the search reports."""
    flags = [f"-D{name}" for name in defines]
    for command in (
        ["spin", *flags, "-a", str(MODEL)],
        # -O0: most searches are shorter than the compilation.
        ["gcc", "-O0", "-w", "-DSAFETY", "-DMEMLIM=2000", "-o", "pan", "pan.c"],
    ):
        subprocess.run(command, cwd=where, check=True, capture_output=True, timeout=300)
    done = subprocess.run(
        ["./pan", "-m100000"], cwd=where, check=True, capture_output=True, text=True, timeout=300
    )
    return done.stdout
