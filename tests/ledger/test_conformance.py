"""The embedded orderer does what every orderer must."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.ledger.net import Swarm, swarm
from tests.ledger.orderer_conformance import *  # noqa: F403
from tests.ledger.orderer_conformance import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Replicas over the in-memory mesh; virtual time."""

    def run(test: Callable[[Swarm], Awaitable[None]]) -> None:
        async def main() -> None:
            with trio.fail_after(3600):
                async with swarm(tmp_path) as made:
                    await test(made)

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    return run
