"""Logs of containers: in the operator's own log, kept after removal, and shown by `swarm logs`."""

from __future__ import annotations

import logging
import tarfile
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import docker
import pytest

from swarm.launch import cli
from swarm.launch.plan import LABEL, OPERATOR_DIRECTORY
from swop.kept_logs import KeptLogs
from swop.mask import MASK
from swop.runtime import BuildRequest
from swop.work import Work
from tests.engine import images
from tests.swop.docker_operator import DockerOperator, StandInRuntime
from tests.swop.fake_api import FakeNetwork
from tests.swop.programs import IMAGE, eventually

pytestmark = pytest.mark.docker

TRAINS = (
    "import os; print('epoch 1'); print('given', os.environ['API_TOKEN'])\n"
    "open('model', 'w').write('m'); open(os.environ['SWARM_LINK'] + '/bye', 'w')"
)


@pytest.fixture(params=["DOCKER", pytest.param("PODMAN", marks=pytest.mark.netns)])
def client(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[docker.DockerClient]:
    if request.param == "PODMAN":
        monkeypatch.setenv("DOCKER_HOST", request.getfixturevalue("podman").url)
    else:
        request.getfixturevalue("engine")
    client = docker.from_env()
    yield client
    client.close()


def operator(
    tmp_path: Path, network: FakeNetwork, *, keep: bool
) -> tuple[DockerOperator, StandInRuntime]:
    uid = network.world.uid("swop-1")
    runtime = StandInRuntime(uid, images.BASE, KeptLogs(tmp_path / "logs", 1 << 20))
    if not runtime.has_image(IMAGE):
        steps = (f"FROM {images.BASE}", "LABEL swarm.test=1")
        runtime.build(BuildRequest(IMAGE, steps, None, {}), Work())
    made = DockerOperator(network, "swop-1", tmp_path, runtime, keep=keep, stream_logs=True)
    return made.start(), runtime


@pytest.mark.parametrize("keep", [True, False])
def test_output_reaches_the_operator_s_log_and_outlives_the_run(
    client: docker.DockerClient,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    keep: bool,
) -> None:
    caplog.set_level(logging.INFO, "swop")
    network = FakeNetwork("swop-1")
    swop, runtime = operator(tmp_path, network, keep=keep)
    try:
        swop.run_task(IMAGE, TRAINS)
        network.until(lambda: network.runner()["state"] in ("COMPLETE", "ERROR"), 60)
        assert network.runner()["state"] == "COMPLETE", network.runner()
        assert swop.pair()["text"].endswith(f"epoch 1\ngiven {MASK}"), "every member reads this"
        sl, ml = (f.name for f in sorted(runtime.adopt(), key=lambda f: f.role, reverse=True))
        for line in (f"{sl} | learner up", f"{ml} | epoch 1", f"{ml} | given {MASK}"):
            eventually(lambda line=line: line in caplog.messages)
        network.reset()
        if keep:  # SWOP_KEEP_CONTAINERS
            eventually(lambda: any("Stopped and kept" in text for text in caplog.messages))
            for name, code in ((sl, 0), (ml, 0)):
                state = client.containers.get(name).attrs["State"]
                assert (state["Status"], state["ExitCode"]) == ("exited", code)
            assert cli.swarm(["logs", ml]) == 0
        else:
            eventually(lambda: any("Stopped and removed" in text for text in caplog.messages))
            assert runtime.adopt() == []
            kept = tmp_path / "logs" / f"{ml}.log"
            assert kept.read_text() == "epoch 1\ngiven t0ken\n"
            assert kept.stat().st_mode & 0o777 == 0o600
            assert (tmp_path / "logs" / f"{sl}.log").read_text() == "learner up\n"
    finally:
        swop.stop()
        runtime.remove([found.name for found in runtime.adopt()])
        runtime.close()


def test_what_an_operator_in_a_container_keeps(
    client: docker.DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found also when the operator has ended; its own log is the container's."""
    name = f"swarm-test-u-0-{uuid.uuid4().hex[:8]}"
    text = b"first\n" + b"x" * 70_000 + b"\nlast\n"
    operator = client.containers.create(images.BASE, "true", labels={LABEL: "swop"})
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo(f"{OPERATOR_DIRECTORY[1:]}/logs/{name}.log")
        member.size = len(text)
        archive.addfile(member, BytesIO(text))
    operator.put_archive("/", stream.getvalue())
    try:
        assert cli.swarm(["logs", name]) == 0
        assert capsys.readouterr().out == text.decode()
        assert cli.swarm(["logs", "--tail=1", name]) == 0
        assert capsys.readouterr().out == "last\n"
        assert cli.swarm(["logs", f"{name}-none"]) == 1
    finally:
        operator.remove()
