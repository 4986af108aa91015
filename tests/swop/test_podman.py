"""What the operator has to know about Podman's service beyond what the conformance suite shows."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import LocalError
from swop.content import ContentRequest
from swop.docker_runtime import DockerRuntime
from swop.filling import Step
from swop.plan import LABEL_NODE, LINK_DIRECTORY, Mount
from swop.profile import ContainerOptions, MountType
from swop.rules import Rules
from swop.runtime import BuildRequest, RunState
from swop.work import Work
from tests.engine import images
from tests.engine.podman import PodmanService
from tests.swop.programs import ended, python

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


def test_an_sl_gets_no_capability_but_one(runtime: DockerRuntime) -> None:
    """Podman tells of capabilities in its own way, so the program itself is asked."""
    code = "print(open('/proc/self/status').read())"
    for user, capabilities in (("", 1 << 1), ("1000:1000", 0)):  # DAC_OVERRIDE is number 1
        learner = python(runtime, code, image=images.BASE, role="SL", user=user)
        runtime.start(learner)
        assert ended(runtime, learner.name).code == 0
        said = runtime.log_tail(learner.name)
        assert f"CapEff:\t{capabilities:016x}\n" in said
        assert f"CapBnd:\t{capabilities:016x}\n" in said
        assert "NoNewPrivs:\t1\n" in said


def test_a_pair_finds_each_other_on_a_network(runtime: DockerRuntime) -> None:
    network = runtime._engine.networks.create(f"swarm-test-{uuid.uuid4().hex[:8]}")
    wait = "import os, time\nwhile not os.path.exists(os.environ['LINK']): time.sleep(0.02)"
    look = "import os, socket; print(socket.gethostbyname('sl7')); open(os.environ['LINK'], 'w')"
    given = {"image": images.BASE, "network": str(network.name), "link": "swarm-test-link-pair"}
    given["environment"] = {"LINK": f"{LINK_DIRECTORY}/seen"}
    try:
        learner = python(runtime, wait, role="SL", hostname="sl7", **given)
        program = python(runtime, look, **given)
        runtime.start(learner)
        runtime.start(program)
        assert ended(runtime, program.name).code == 0, runtime.log_tail(program.name)
        assert ended(runtime, learner.name).code == 0
        runtime.remove([learner.name, program.name])
    finally:
        network.remove()


def test_its_network_for_all_answers_to_the_name_that_docker_has_for_it(
    runtime: DockerRuntime,
) -> None:
    program = python(runtime, "", image=images.BASE, network="bridge")
    runtime.start(program)
    assert ended(runtime, program.name).code == 0


def test_an_image_is_built_by_one_operator_at_a_time(runtime: DockerRuntime) -> None:
    """The lock is the name of a container."""
    outcome = f"swarm-test-{uuid.uuid4().hex[:8]}:latest"
    name = f"swarm-build-{hashlib.sha256(outcome.encode()).hexdigest()[:12]}"
    holder = runtime._engine.containers.create(images.BASE, ["true"], name=name)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if "waiting for another operator" in text:
            holder.remove()

    request = BuildRequest(outcome, (f"FROM {images.BASE}", "LABEL a=b"), None, {})
    runtime.build(request, Work(tell))
    assert [text for text in told if "waiting" in text]
    assert runtime.has_image(outcome)
    runtime._engine.images.remove(outcome, force=True)


def test_volumes_are_filled_with_few_privileges_for_the_user_of_the_programs(
    podman: PodmanService, runtime: DockerRuntime, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("data")
    tmp_path.chmod(0o755)
    filling = DockerRuntime(runtime.uid, images.NODE)
    outcome = f"swarm-test-{uuid.uuid4().hex[:8]}"
    steps = (Step("DOWNLOAD", f"file://{tmp_path}/f"),)
    rules = Rules(files=str(tmp_path))
    request = ContentRequest("t", outcome, (outcome,), steps, rules, user="1234:4321")
    seen: list[dict[str, Any]] = []

    def look(_: str) -> None:
        ours = {"label": f"{LABEL_NODE}={runtime.uid}"}
        seen.extend(
            c.attrs
            for c in filling._engine.containers.list(all=True, filters=ours, ignore_removed=True)
        )

    try:
        filling.fill(request, Work(look))
        lock, filler = sorted(seen, key=lambda found: len(found["Mounts"]))
        assert not lock["Mounts"] and lock["State"]["Status"] == "created"
        assert filler["Config"]["User"] == "1234:4321"
        config = filler["HostConfig"]
        assert {"CHOWN", "SETUID", "NET_RAW", "DAC_OVERRIDE"} <= {
            name.removeprefix("CAP_") for name in config["CapDrop"]
        }
        assert not config["CapAdd"] and not config["Privileged"]
        assert config["Memory"] == 3 << 29 and config["PidsLimit"] == 64
        assert config["NetworkMode"] == "none"
        write = "import os; print(os.stat('/data/f').st_uid); open('/data/new', 'w')"
        mounts = (Mount(MountType.VOLUME, outcome, "/data"),)
        program = python(runtime, write, image=images.BASE, user="1234:4321", mounts=mounts)
        runtime.start(program)
        assert ended(runtime, program.name).code == 0, runtime.log_tail(program.name)
        assert runtime.log_tail(program.name) == "1234"
        runtime.remove([program.name])
    finally:
        filling._engine.volumes.get(outcome).remove()
        filling.close()
