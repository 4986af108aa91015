"""Web mode in a container, as `run-swci` starts it: the port, the user directory, the end."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarmlearning.swci import Swci
from tests import pki
from tests.engine import images
from tests.processes import free_port, until

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

NAME = "swci-web-test"


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def test_commands_to_a_container(tmp_path: Path) -> None:
    if reason := images.nodes():
        pytest.skip(reason)
    port = free_port()
    ca = pki.authority(tmp_path)
    files = pki.files(tmp_path / "cert", "SWCI-1", ca)
    usr = tmp_path / "usr"
    usr.mkdir()
    (tmp_path / "task.yaml").write_text("Name: x\n")
    command = [
        str(Path(sys.executable).parent / "run-swci"), "-d", f"--name={NAME}", f"--usr-dir={usr}",
        f"--web-port={port}", f"--image={images.NODE}", f"--key={files.key}",
        f"--cert={files.cert}", f"--capath={ca.capath}", "--rm=false",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=dict(os.environ))
    try:
        until(lambda: "IS UP ON PORT : 30306" in docker("logs", NAME), 60, "it listens")
        user = pki.files(tmp_path / "user", "SWCI-user", ca)
        swci = Swci("127.0.0.1", port, str(user.cert), str(user.key), str(ca.path),
                    logger=logging.getLogger("test.swci"))  # fmt: skip
        assert swci.uploadTaskDefintion(str(tmp_path / "task.yaml")) == [
            "Task definition uploaded : /platform/swarm/usr/task.yaml"
        ]
        assert (usr / "task.yaml").read_text() == "Name: x\n"
        assert swci.ls() == ["task.yaml"]
        assert swci.createContext("c", ip="127.0.0.1", port=1) == []
        assert "nothing listens there" in str(swci.getErrors())
        begin = time.monotonic()
        docker("stop", NAME)
        assert time.monotonic() - begin < 5
        (found,) = json.loads(docker("inspect", NAME))
        assert found["State"]["ExitCode"] == 0
    finally:
        subprocess.run(["docker", "rm", "--force", NAME], capture_output=True, check=False)
