"""The pages about whole hosts: their commands, as two hosts on loopback, up to a common model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.test_commands import REPOSITORY, blocks
from tests.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass
class Host:
    """A directory with what the repository's root holds."""

    directory: Path
    api_port: int

    def sh(self, script: str) -> str:
        bin_directory = Path(sys.executable).parent
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.directory,
            env={
                **os.environ,
                "PATH": f"{bin_directory}:{os.environ['PATH']}",
                "SWARM_HOME": str(self.directory / "nodes"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    made = []
    for name in ("host-1", "host-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "examples").symlink_to(REPOSITORY / "examples")
        made.append(Host(tmp_path / name, free_port()))
    first, second = made
    try:
        yield first, second
    finally:
        for host in (second, first):
            if (host.directory / "swarm.yaml").exists():
                host.sh("swarm down")


def on_one_machine(block: str, host: Host, first: Host) -> str:
    """A page's block, with loopback in the place of two hosts, and a port of its own for each."""
    block = block.replace("--join=172.1.1.1", f"--join=127.0.0.1:{first.api_port}")
    block = block.replace("172.1.1.1", "127.0.0.1").replace("172.2.2.2", "127.0.0.1")
    ports = f"--api-port={host.api_port} --p2p-port={free_port()} --learner-port={free_port()}"
    return block.replace("swarm init --yes", f"swarm init --yes {ports}")


def test_two_hosts_from_two_files(hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    found, joined, check, look, train, restart, stop, containers = blocks("docs/how-to/one-file.md")
    for host, block in ((first, found), (second, joined)):
        host.sh(on_one_machine(block, host, first))
    for host, other in ((first, second), (second, first)):
        for ca in (other.directory / "cert/ca/capath").iterdir():
            shutil.copy(ca, host.directory / "cert/ca/capath")
    assert "\ngo" in first.sh(check)
    assert "\ngo" in second.sh(check)
    assert "host-2-swop" in first.sh(look)

    copy, _, run = train.partition("run-swci")
    first.sh(copy)
    swci = first.directory / "work/swci"
    for file, old, new in (
        ("swci-init", "172.1.1.1", f"127.0.0.1 {first.api_port}"),
        ("taskdefs/swarm_sklearn_task.yaml", "MAX_EPOCHS: '10'", "MAX_EPOCHS: '2'"),
    ):
        text = (swci / file).read_text()
        assert old in text
        (swci / file).write_text(text.replace(old, new))
    assert "STATE : COMPLETE" in first.sh("run-swci" + run)
    results = [json.loads((h.directory / "data/result.json").read_text()) for h in hosts]
    assert results[0] == results[1]

    doctor(first, second)
    assert "runs already" in second.sh(restart)
    assert "host-2-sn: stopping" in second.sh(stop)
    assert "--volume=host-1-sn-data:" in first.sh(on_one_machine(containers, first, first))
    assert "run-sn" in first.sh(stop)


def doctor(first: Host, second: Host) -> None:
    """The other page, on a host that runs."""
    shutil.copy(second.directory / "nodes/.up/host-2/usr/profile.yaml", second.directory)
    whole, by_profile, for_programs = (
        second.sh(on_one_machine(block, second, first))
        for block in blocks("docs/how-to/before-you-train.md")
    )
    assert f"127.0.0.1:{first.api_port} answers, and accepts this host's certificate" in whole
    assert f"from 127.0.0.1:{first.api_port} to port" in by_profile
    assert json.loads(for_programs)["go"] is True
