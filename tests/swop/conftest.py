"""All runtimes behind one fixture: conformance tests run with PROCESS, DOCKER, some with PODMAN."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from swop.docker_runtime import DockerRuntime
from swop.kept_logs import MIB, KeptLogs
from swop.process_runtime import ProcessRuntime
from swop.runtime import BuildRequest, Runtime
from swop.work import Work
from tests.engine import images
from tests.engine import podman as podman_service
from tests.engine.podman import PodmanService
from tests.swop.programs import IMAGE


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine with the nodes' image; skips, loudly, when it cannot be had."""
    reason = images.nodes()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def podman() -> Iterator[PodmanService]:
    """Podman's service with the base image; skips, loudly, when it cannot be had."""
    if reason := podman_service.unavailable() or images.base():
        pytest.skip(reason)
    with podman_service.service() as running:
        yield running


@pytest.fixture(params=["PROCESS", pytest.param("DOCKER", marks=pytest.mark.docker)])
def make_runtime(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[object]:
    """A function that makes the operator's runtime, and makes it again as after a restart."""
    made: list[Runtime] = []
    uid = uuid.uuid4().hex

    def make() -> Runtime:
        runtime: Runtime
        if request.param != "PROCESS":
            if request.param == "PODMAN":
                service: PodmanService = request.getfixturevalue("podman")
                monkeypatch.setenv("DOCKER_HOST", service.url)
            else:
                request.getfixturevalue("engine")
            logs = KeptLogs(tmp_path / "kept", 64 * MIB)
            runtime = DockerRuntime(uid, images.NODE, logs)
        else:
            runtime = ProcessRuntime(uid, tmp_path / "data")
        made.append(runtime)
        return runtime

    yield make
    for runtime in made:
        names = [found.name for found in runtime.adopt()]
        runtime.stop(names, 1.0)
        runtime.remove(names)
        runtime.close()


@pytest.fixture
def listener(request: pytest.FixtureRequest) -> socket.socket:
    """A socket that listens on the loopback that the engine of the runtime sees."""
    if request.node.callspec.params["make_runtime"] == "PODMAN":
        service: PodmanService = request.getfixturevalue("podman")
        return service.listener()
    return socket.create_server(("127.0.0.1", 0))


@pytest.fixture
def runtime(make_runtime) -> Runtime:
    """A runtime with the image of the tests' programs."""
    found: Runtime = make_runtime()
    steps = (f"FROM {images.BASE}", "LABEL swarm.test=1")
    if not found.has_image(IMAGE):
        found.build(BuildRequest(IMAGE, steps, None, {}), Work())
    return found
