"""The commands of docs/how-to/ethereum.md, on a network where gas is free, as many consortia's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_commands import blocks, free, shell
from tests.ethereum.anvil import Anvil, obtain

READY = """
timeout 90 sh -c "until grep -q SWARM-API-SERVER $SWARM_HOME/sn1/log; do sleep 0.2; done"
"""


@pytest.mark.slow
@pytest.mark.skipif(not free(30303, 30304), reason="the guide's ports are in use on this machine")
def test_the_guide(tmp_path: Path) -> None:
    obtain()
    gas = ("--block-base-fee-per-gas", "0", "--gas-price", "0", "--disable-min-priority-fee")
    home = str(tmp_path / "nodes")
    with Anvil(options=gas, block_time=0.2) as node:  # 12 blocks until an entry is final
        script = "".join(blocks("docs/how-to/ethereum.md"))
        assert "http://127.0.0.1:8545" in script
        script = script.replace("http://127.0.0.1:8545", node.url)
        script = script.replace("swarm ledger anchor", READY + "swarm ledger anchor")
        try:
            output = shell(
                tmp_path, "gen-cert -e mnist -i 1\n" + script, SWARM_HOME=home, TMPDIR=str(tmp_path)
            )
        finally:
            subprocess.run(
                [str(Path(sys.prefix) / "bin" / "stop-swarm"), "--runtime=process"],
                env={**os.environ, "SWARM_HOME": home},
                capture_output=True,
                check=False,
            )
        assert "anchored block" in output
