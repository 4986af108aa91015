"""The page about commands from programs: its command and its program, with a real network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import pki
from tests.processes import Processes, free_port
from tests.swop.test_swop_process import Site

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/commands-from-programs.md"
BUILD = """\
Name: build
TaskType: MAKE_USER_CONTAINER
Author: somebody
Prereq: ROOTTASK
Outcome: program
Body:
    BuildContext: null
    BuildType: INLINE
    BuildSteps:
        - FROM x
"""


def test_the_page(tmp_path: Path) -> None:
    with Processes(tmp_path) as run:
        site = Site(run, tmp_path)
        port = free_port()
        made = pki.files(tmp_path / "cert", "SWCI-1", site.ca)
        (tmp_path / "cert" / "ca").symlink_to(tmp_path / "ca")
        assert made.cert == tmp_path / "cert" / "swci-1-cert.pem"
        (tmp_path / "swci").mkdir()
        (tmp_path / "build.yaml").write_text(BUILD)
        page = PAGE.read_text()
        for usual, here in (
            ("172.1.1.1", "127.0.0.1"), ("30306", str(port)), ("30304", str(site.sn.port)),
        ):  # fmt: skip
            page = page.replace(usual, here)
        (command,) = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        (program,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        binaries = str(Path(sys.executable).parent)
        env = {
            **os.environ,
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "SWARM_HOME": str(tmp_path / "home"),
            "SWARM_LISTEN": "127.0.0.1",
        }

        def shell(script: str) -> str:
            done = subprocess.run(
                ["bash", "-euc", script], cwd=tmp_path, env=env, text=True, timeout=60, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout
            return done.stdout

        try:
            shell(command.replace("run-swci -d", "run-swci -d --runtime=process"))
            (tmp_path / "program.py").write_text(program)
            shell(f"until swarm logs swci1 | grep 'UP ON PORT : {port}'; do sleep 0.1; done")
            said = shell("python program.py")
        finally:
            shell("stop-swarm --runtime=process --swci")
        assert "SENTINEL sn1 127.0.0.1" in said
        assert "SWOP swop1" in said
        assert said.splitlines()[-1].startswith("COMPLETE ")
