"""The orderer above an Ethereum-compatible network does what every orderer must."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ethereum.anvil import Anvil
from tests.ethereum.net import run
from tests.ledger.net import Swarm
from tests.ledger.orderer_conformance import *  # noqa: F403
from tests.ledger.orderer_conformance import World


@pytest.fixture
def world(tmp_path: Path, node: Anvil) -> World:
    """Above a real node; real time."""

    def run_it(test: Callable[[Swarm], Awaitable[None]]) -> None:
        made: Any = test
        run(tmp_path, node, made)

    return run_it
