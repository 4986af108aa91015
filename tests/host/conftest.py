"""The engine's client in disguise, as the tests of the run-* commands have it."""

from tests.launch.conftest import docker  # noqa: F401 - a fixture
