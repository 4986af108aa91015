"""Spin, the model checker, for the tests: installed when it is missing and that is allowed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.machine import install

MODEL = Path(__file__).parents[2] / "swarm" / "ledger" / "consensus" / "voting.pml"
PROGRAMS = {"spin": "spin", "gcc": "gcc libc6-dev"}  # program -> Debian's packages


def ensure() -> str:
    """Make sure of spin and gcc. Returns "" on success, else the reason in one line."""
    reason = install(PROGRAMS)
    return f"the model is not checked: {reason}" if reason else ""


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
