"""What the operator has to know about Podman's service beyond what the conformance suite shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from swarm.errors import LocalError
from swop.docker_runtime import DockerRuntime
from swop.profile import ContainerOptions
from swop.runtime import RunState
from tests.engine import images
from tests.engine.podman import PodmanService
from tests.swop.programs import python

pytestmark = [pytest.mark.docker, pytest.mark.netns]


@pytest.fixture
def runtime(podman: PodmanService, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerRuntime]:
    monkeypatch.setenv("DOCKER_HOST", podman.url)
    runtime = DockerRuntime("c" * 32, images.BASE)
    yield runtime
    runtime.remove([found.name for found in runtime.adopt()])
    runtime.close()


def test_it_is_recognised(runtime: DockerRuntime) -> None:
    assert runtime.check().startswith("Podman ")


def test_gpus_are_refused_rather_than_dropped_in_silence(runtime: DockerRuntime) -> None:
    options = ContainerOptions.model_validate({"gpus": "all"})
    program = python(runtime, "", image=images.BASE, options=options)
    with pytest.raises(LocalError) as caught:
        runtime.start(program)
    assert caught.value.code == "SW7041"
    assert program.name in caught.value.cause and "'all'" in caught.value.cause
    assert runtime.status(program.name).state is RunState.MISSING
