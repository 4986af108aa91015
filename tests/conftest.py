"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.engine import images

# The same examples in every run, and no limit of time for one: a test fails for what the code does,
# not for chance or a busy machine. `pytest --hypothesis-profile=default` looks for new examples.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need an engine come last: its images are built beside the others."""
    items.sort(key=_needs_engine)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start to build, unless tests are only listed."""
    if not session.config.option.collectonly and any(map(_needs_engine, session.items)):
        images.begin()


def _needs_engine(item: pytest.Item) -> bool:
    return item.get_closest_marker("docker") is not None
