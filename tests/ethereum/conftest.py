"""One Ethereum node for the tests that do not change its chain's past."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ethereum.anvil import Anvil, obtain


@pytest.fixture(scope="session")
def node() -> Iterator[Anvil]:
    """anvil with a block for each transaction; shared, so each test deploys its own contract."""
    obtain()
    with Anvil() as made:
        yield made


@pytest.fixture
def own_node() -> Iterator[Anvil]:
    """One that a test may do to what it likes."""
    obtain()
    with Anvil() as made:
        yield made
