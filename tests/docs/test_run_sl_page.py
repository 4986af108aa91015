"""The page about training without operators: its commands, executed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_commands import blocks, free, shell


@pytest.mark.slow
@pytest.mark.skipif(
    not free(30303, 30304, 16000, 18000), reason="the page's ports are in use on this machine"
)
def test_the_page(tmp_path: Path) -> None:
    try:
        said = shell(tmp_path, "".join(blocks("docs/how-to/without-operator.md")))
    finally:
        subprocess.run(
            [str(Path(sys.prefix) / "bin" / "stop-swarm"), "--runtime=process"],
            env={**os.environ, "SWARM_HOME": str(tmp_path / "workspace" / "line" / "nodes")},
            capture_output=True,
            check=False,
        )
    ended = re.findall(r"^(\S+) +(?:sl|ml) +ended with status 0$", said, re.MULTILINE)
    assert {"sl1", "sl1-ml", "sl2-ml"} <= set(ended), said
    assert re.findall(r"^y = 3\.0 x \+ 1\.0$", said, re.MULTILINE) == ["y = 3.0 x + 1.0"] * 2, said
