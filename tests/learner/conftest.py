"""A ledger, and learners on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.identity import Role
from tests import pki
from tests.learner.fake_ledger import Ledger
from tests.learner.program import Host

Start = Callable[..., Host]


class Swarm:
    """One ledger, and learners started on it."""

    def __init__(self, tmp: Path) -> None:
        self._tmp = tmp
        self._ca = pki.authority(tmp, 1)
        self.ledger = Ledger(pki.identity(tmp / "sn", Role.SN, self._ca))
        self.hosts: list[Host] = []

    def start(self, number: int, folder: str = "", **options: Any) -> Host:
        identity = pki.identity(self._tmp / f"id{number}", Role.SL, self._ca, name=str(number))
        path = self._tmp / (folder or f"link{number}")
        host = Host(path, self.ledger, identity, f"sl-{number}", **options)
        self.hosts.append(host)
        return host

    def close(self) -> None:
        for host in self.hosts:
            host.close()


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path)
    yield made
    made.close()
