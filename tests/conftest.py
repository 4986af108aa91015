"""What all tests share, and how they are spread over two processes.

Most of the time tests wait for processes of their own, so `make test` runs two workers. Tests of
whole hosts stay together in one of them, as they share an engine, the names of network namespaces,
the ports that pages name, and what is built in the repository; others go file by file.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.engine import images

# The same examples in every run, and no limit of time for one: a test fails for what the code does,
# not for chance or a busy machine. `pytest --hypothesis-profile=default` looks for new examples.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Tests of whole hosts, by the beginning of their path; the scheduler knows no more of a test.
HOSTS = (
    "tests/docs/",
    "tests/engine/",
    *("tests/e2e/test_" + name for name in (
        "docker", "doctor", "host_docker", "launch_docker", "learner_links", "ledger_partition",
        "reverse_proxy", "two_hosts", "web_container",
    )),
    "tests/launch/test_spiffe_docker",
    *("tests/swop/test_" + name for name in (
        "content_conformance", "docker", "engine", "podman", "profile_effects", "pulling",
        "runtime_conformance",
    )),
)  # fmt: skip
ETHEREUM = "tests/ethereum/"  # these share what npm installs


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a worker all tests of hosts, all of Ethereum, or all of a file."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith((ETHEREUM, *HOSTS)):
            return ETHEREUM if nodeid.startswith(ETHEREUM) else "hosts"
        return nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduler:
    """Whatever `--dist` says."""
    return Scheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long groups first; of whole hosts, those that need an engine last: its images take long."""
    for item in items:
        shares = item.get_closest_marker("netns") or _needs_engine(item)
        if shares and not item.nodeid.startswith(HOSTS):
            raise pytest.UsageError(f"{item.nodeid} needs a host: add it to tests/conftest.py")
    items.sort(
        key=lambda item: (
            not item.nodeid.startswith(HOSTS),
            _needs_engine(item),
            not item.nodeid.startswith(ETHEREUM),
        )
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start to build images in the worker that gets the first group."""
    first = os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
    if first and not session.config.option.collectonly and any(map(_needs_engine, session.items)):
        images.begin()


def _needs_engine(item: pytest.Item) -> bool:
    return item.get_closest_marker("docker") is not None
