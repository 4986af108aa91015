"""`make demo ORDERER=ethereum`: the main job, unchanged, above a real Ethereum node."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ethereum.anvil import obtain

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demonstration(tmp_path: Path) -> None:
    obtain()
    program = [sys.executable, str(REPOSITORY / "examples" / "demo.py")]
    flags = ["--orderer=ethereum", f"--directory={tmp_path / 'demo'}"]
    done = subprocess.run(
        [*program, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "200"},
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for row in ("model weights", "ledger height", "ledger state digest"):
        cells = re.search(rf"│ {row}[^│]*│ (\w+) +│ (\w+) +│", done.stdout)
        assert cells is not None, done.stdout
        assert cells[1] == cells[2], done.stdout
