"""`swarm doctor` between two hosts with a real firewall that blocks one direction, then the other.

The first host runs a network node; the second one asks it to look back before anything of its own
runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import netns
from tests.processes import until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]


@dataclass
class Host:
    """A directory and a network namespace."""

    index: int
    namespace: netns.Namespace
    directory: Path

    def swarm(self, *words: str, status: int | None = 0) -> str:
        """What a command prints; None stands for any exit status."""
        done = subprocess.run(
            [*self.namespace.prefix, str(Path(sys.executable).parent / "swarm"), *words],
            cwd=self.directory,
            env={**os.environ, "SWARM_HOME": str(self.directory / "nodes")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert status in (None, done.returncode), done.stdout + done.stderr
        return done.stdout

    def doctor(self, status: int | None) -> list[dict[str, Any]]:
        """What is wrong."""
        value = json.loads(self.swarm("doctor", "--json", "--quiet", status=status))
        assert status is None or value["go"] is (status == 0)
        # This machine's disk may be as full as it likes.
        return [one for one in value["findings"] if one["code"] != "SW9044"]

    def firewall(self, rule: str) -> None:
        self.namespace.run("iptables", *rule.split())


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with netns.two_hosts() as namespaces:
        made = []
        for index, namespace in enumerate(namespaces, 1):
            host = Host(index, namespace, tmp_path / f"host-{index}")
            (host.directory / "data").mkdir(parents=True)
            words = ["init", "--yes", f"--name=host-{index}", f"--address={namespace.address}"]
            join = [f"--join={namespaces[0].address}"] if index == 2 else []
            host.swarm(*words, *join, f"--index={index}", "--make-certificates")
            made.append(host)
        first, second = made
        try:
            yield first, second
        finally:
            for host in (second, first):
                host.swarm("down")


def trust(taker: Host, giver: Host) -> None:
    name = f"cert/ca/capath/ca-{giver.index}-cert.pem"
    shutil.copy(giver.directory / name, taker.directory / name)


def texts(findings: list[dict[str, Any]], code: str) -> list[str]:
    return [one["text"] for one in findings if one["code"] == code]


def test_one_direction_after_the_other(hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    here, there = second.namespace.address, first.namespace.address

    # Nobody there yet: the first is a go with a warning, the second cannot join.
    assert [one["code"] for one in first.doctor(0)] == ["SW9050"]
    (absent, nobody) = second.doctor(1)
    assert (absent["code"], nobody["code"]) == ("SW5001", "SW9050")
    assert "nothing listens there" in absent["text"]

    # The first host trusts nobody else: each mistake of the exchange is named.
    first.swarm("up")
    assert texts(second.doctor(1), "SW5003")
    trust(second, first)
    (refused,) = [one for one in second.doctor(1) if one["code"] == "SW5002"]
    assert "refused our certificate" in refused["text"]
    trust(first, second)
    # The SN looks at its CAs every second.
    until(lambda: not second.doctor(None), 30, "the first host takes the new CA over")

    # A firewall of the second host that lets nothing in on one port.
    second.firewall("-A INPUT -p tcp --dport 30305 -j DROP")
    found = second.doctor(1)
    assert texts(found, "SW9049") == [
        f"from {there} to port 30305 of this host (SL of pair 0): blocked"
    ]
    assert [one["level"] for one in found] == ["error"]

    # One that refuses instead of dropping is the same mistake.
    second.firewall("-F INPUT")
    second.firewall("-A INPUT -p tcp --dport 30303 -j REJECT --reject-with tcp-reset")
    assert texts(second.doctor(1), "SW9049") == [
        f"from {there} to port 30303 of this host (mesh of the SN): blocked"
    ]
    second.firewall("-F INPUT")

    # The other direction: the first host's mesh is closed to the second one.
    first.firewall(f"-A INPUT -s {here} -p tcp --dport 30303 -j DROP")
    found = second.doctor(1)
    assert texts(found, "SW9047") == [
        f"from here to {there}:30303 (mesh of host-1-sn): no answer within 3 s"
    ]
    assert not texts(found, "SW9049")
    first.firewall("-F INPUT")

    # All is open: go, and the second host does join. Then each sees the other.
    assert second.doctor(0) == []
    second.swarm("up")
    assert second.doctor(0) == []
    assert first.doctor(0) == []
    assert "host-2-sn" in first.swarm("doctor")
