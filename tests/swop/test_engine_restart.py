"""The engine is killed and started again while a task runs: the status tells, nothing is left."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import images, own
from tests.engine.own import OwnEngine
from tests.swop.docker_operator import DockerOperator, StandInRuntime
from tests.swop.fake_api import FakeNetwork
from tests.swop.programs import eventually

pytestmark = [pytest.mark.docker, pytest.mark.netns, pytest.mark.slow]

FOREVER = "import time; print('up', flush=True); time.sleep(3000)"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnEngine]:
    if reason := own.unavailable():
        pytest.skip(reason)
    # Sockets have short paths.
    with own.own_engine(Path(tempfile.mkdtemp(prefix="swe-"))) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url)
        yield engine


def test_the_engine_is_killed_while_a_pair_runs(engine: OwnEngine, tmp_path: Path) -> None:
    network = FakeNetwork("swop-1")
    runtime = StandInRuntime(network.world.uid("swop-1"), images.BASE)
    swop = DockerOperator(network, "swop-1", tmp_path, runtime).start()
    try:
        swop.run_task(images.BASE, FOREVER)
        network.until(lambda: swop.pair() is not None and swop.pair()["state"] == "RUNNING", 60)
        first = started(engine)
        assert len(first) == 2

        engine.kill()
        network.until(lambda: "the engine does not answer" in mine(network, swop)["text"], 60)
        assert mine(network, swop)["state"] == "RUNNING", "what it is waiting for, not an error"
        engine.start()
        network.until(lambda: network.runner()["state"] == "ERROR", 60)
        assert "the ML program exited with code" in swop.pair()["text"]
        assert "(the engine was gone meanwhile)" in swop.pair()["text"]
        assert started(engine) == first, "nothing was started again"

        engine.kill()
        network.reset()  # heard while there is no engine that could remove anything
        engine.start()
        eventually(lambda: not started(engine), 60)
        eventually(lambda: not engine.run("volume", "ls", "--quiet"))
    finally:
        swop.stop()
        runtime.close()


def mine(network: FakeNetwork, swop: DockerOperator) -> dict[str, str]:
    found: dict[str, str] = network.runner()["swops"][swop.uid]
    return found


def started(engine: OwnEngine) -> dict[str, str]:
    """When each container of the engine was started."""
    ids = engine.run("ps", "--all", "--quiet").split()
    form = "{{.Name}} {{.State.StartedAt}}"
    # One may be removed between the two looks.
    seen = [engine.run("inspect", "--format", form, i, check=False) for i in ids]
    return dict(line.split() for line in seen if line)
