"""What only the DOCKER runtime has to do."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.types import Mount as EngineMount

from swarm.errors import LocalError
from swop import docker_build
from swop.content import ContentRequest
from swop.docker_runtime import DockerRuntime, gpu_request, own_image
from swop.engine import LABEL_UNTIL
from swop.filling import Step
from swop.mask import Mask
from swop.plan import LABEL_NODE, Mount
from swop.profile import ContainerOptions, MountType
from swop.rules import Rules
from swop.runtime import LOG_LIMIT, BuildRequest
from swop.work import Work
from tests.engine import images
from tests.processes import free_port
from tests.swop.programs import IMAGE, ended, eventually, python

FROM = f"FROM {images.BASE}"


class TestWithoutAnEngine:
    """Pure parts."""

    def test_its_own_image_is_found(self, tmp_path: Path) -> None:
        info = tmp_path / "container_info_file"
        assert own_image("", info, "default") == "default"
        info.write_text("id\nregistry/swarm-node:1\nsha256:abc\n")
        assert own_image("", info, "default") == "sha256:abc"
        assert own_image("chosen:1", info, "default") == "chosen:1"
        info.write_text("id\nregistry/swarm-node:1\n")
        assert own_image("", info, "default") == "registry/swarm-node:1"
        info.write_bytes(b"\xff")
        assert own_image("", info, "default") == "default"

    @pytest.mark.parametrize(
        ("value", "count", "ids"),
        [("all", -1, None), ("2", 2, None), ("device=3,5", 0, ["3", "5"])],
    )
    def test_gpus(self, value: str, count: int, ids: list[str] | None) -> None:
        request = gpu_request(value)
        assert request["Capabilities"] == [["gpu"]]
        assert (request["Count"] or 0) == count
        assert (request["DeviceIDs"] or None) == ids


def test_output_is_told_in_whole_lines_and_bounded() -> None:
    lines: list[str] = []
    output = docker_build.Output(Work(say=lines.append), Mask({"MY_TOKEN": "hidden"}))
    for text in (
        "Step 1",
        " : FROM x\n",
        "10%\r20%\r90%\r\n",
        "\n",
        "a \x1b[31mhidden\x1b[0m word\nend",
    ):
        output.add(text)
    output.close()
    assert lines == ["Step 1 : FROM x", "90%", "a *** word", "end"]
    assert output.tail == "Step 1 : FROM x\n90%\na *** word\nend"
    output.add("y" * 5000 + "\n")
    assert len(lines[-1]) <= docker_build.LINE
    for number in range(40_000):
        output.add(f"line {number:06} {'x' * 40}\n")
    assert sum(map(len, lines)) < docker_build.LOG_BYTES + 10_000
    assert "the rest is left out" in lines[-1]
    assert output.tail.endswith(f"line 039999 {'x' * 40}"), "the end is told all the same"
    assert len(output.tail) <= docker_build.TAIL


@pytest.fixture
def runtime(engine: None) -> Iterator[DockerRuntime]:
    runtime = DockerRuntime(uuid.uuid4().hex, images.BASE)
    if not runtime.has_image(IMAGE):
        runtime.build(BuildRequest(IMAGE, (FROM, "LABEL swarm.test=1"), None, {}), Work())
    yield runtime
    names = [found.name for found in runtime.adopt()]
    runtime.remove(names)
    runtime.close()


@pytest.fixture
def client(engine: None) -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def outcome(client: docker.DockerClient) -> Iterator[str]:
    name = f"swarm-test-{uuid.uuid4().hex[:8]}:latest"
    yield name
    if client.images.list(name):
        client.images.remove(name, force=True)


needs_engine = pytest.mark.docker


@needs_engine
def test_the_context_volume_reaches_the_build(
    runtime: DockerRuntime, client: docker.DockerClient, outcome: str
) -> None:
    volume = client.volumes.create(f"swarm-test-{uuid.uuid4().hex[:8]}")
    mount = EngineMount("/data", str(volume.name), type="volume")
    filler = client.containers.create(images.BASE, "true", mounts=[mount])
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("lib/x.whl")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"wheel"))
    filler.put_archive("/data", stream.getvalue())
    filler.remove()
    try:
        steps = (
            FROM,
            " ",
            "COPY lib/x.whl /x.whl",
            "ARG http_proxy",
            "RUN test -z \\",
            "  $http_proxy",
        )
        runtime.build(BuildRequest(outcome, steps, str(volume.name), {"http_proxy": ""}), Work())
        output = client.containers.run(outcome, ["cat", "/x.whl"], remove=True)
        assert output == b"wheel"
    finally:
        volume.remove()


@needs_engine
def test_a_missing_context_volume_is_named(runtime: DockerRuntime, outcome: str) -> None:
    with pytest.raises(LocalError, match="SW7007: the volume swarm-test-none"):
        runtime.build(BuildRequest(outcome, (FROM,), "swarm-test-none", {}), Work())


@needs_engine
def test_a_failing_build_tells_its_step_and_leaves_nothing(
    runtime: DockerRuntime, client: docker.DockerClient, outcome: str
) -> None:
    before = {c.id for c in client.containers.list(all=True, ignore_removed=True)}
    steps = (FROM, "RUN echo about to fail; exit 7")
    with pytest.raises(LocalError) as caught:
        runtime.build(BuildRequest(outcome, steps, None, {}), Work())
    assert caught.value.code == "SW7010"
    assert "returned a non-zero code: 7" in caught.value.cause
    assert "about to fail" in caught.value.cause
    mine = client.containers.list(
        all=True, filters={"label": f"{LABEL_NODE}={runtime.uid}"}, ignore_removed=True
    )
    assert mine == []
    assert not [
        c
        for c in client.containers.list(all=True, ignore_removed=True)
        if c.id not in before and outcome in str(c)
    ]


@needs_engine
def test_operators_of_one_engine_build_an_image_one_after_the_other(
    runtime: DockerRuntime, outcome: str
) -> None:
    other = DockerRuntime(uuid.uuid4().hex, images.BASE)
    request = BuildRequest(outcome, (FROM, f"RUN echo {outcome}; sleep 2"), None, {})
    told: list[list[str]] = [[], []]

    def build(which: int, builder: DockerRuntime) -> None:
        builder.build(request, Work(told[which].append))

    threads = [
        threading.Thread(target=build, args=(which, builder))
        for which, builder in enumerate((runtime, other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    waited = [any("waiting for another operator" in text for text in texts) for texts in told]
    assert sorted(waited) == [False, True]
    other.close()


@needs_engine
def test_privileges_are_few(runtime: DockerRuntime, client: docker.DockerClient) -> None:
    learner = python(runtime, "", role="SL", user="1000:1000")
    program = python(runtime, "print(open('/proc/self/status').read())", user="1000:1000")
    runtime.start(learner)
    runtime.start(program)
    ended(runtime, program.name)
    sl = client.containers.get(learner.name).attrs["HostConfig"]
    assert sl["CapDrop"] == ["ALL"]
    assert not sl["CapAdd"]
    assert sl["SecurityOpt"] == ["no-new-privileges"]
    assert sl["Init"] is True
    status = runtime.log_tail(program.name)
    assert "NoNewPrivs:\t1" in status
    assert "Uid:\t1000\t1000" in status and "Gid:\t1000\t1000" in status


@needs_engine
def test_devices_of_the_profile_reach_the_request(
    runtime: DockerRuntime, client: docker.DockerClient
) -> None:
    options = ContainerOptions.model_validate(
        {
            "device": ["/dev/null"],
            "ipc": "host",
            "shm-size": "64m",
            "group-add": ["video"],
            "cap-add": ["SYS_PTRACE"],
            "security-opt": ["seccomp=unconfined"],
        }
    )
    program = python(runtime, "", options=options)
    runtime.start(program)
    ended(runtime, program.name)
    found = client.containers.get(program.name).attrs["HostConfig"]
    assert found["Devices"][0]["PathOnHost"] == "/dev/null"
    assert found["IpcMode"] == "host"
    assert found["ShmSize"] == 64 << 20
    assert found["GroupAdd"] == ["video"]
    assert found["CapAdd"] == ["SYS_PTRACE"]
    assert "no-new-privileges" in found["SecurityOpt"]


@needs_engine
def test_ports_network_and_names(runtime: DockerRuntime, client: docker.DockerClient) -> None:
    network = client.networks.create(f"swarm-test-{uuid.uuid4().hex[:8]}")
    try:
        program = python(
            runtime,
            "import socket; print(socket.gethostname()); print(socket.gethostbyname('sl7'))",
            role="SL",
            network=str(network.name),
            hostname="sl7",
            published=(free_port("0.0.0.0"), 30305),
        )
        runtime.start(program)
        assert ended(runtime, program.name).code == 0, runtime.log_tail(program.name)
        assert runtime.log_tail(program.name).splitlines()[0] == "sl7"
        ports = client.containers.get(program.name).attrs["HostConfig"]["PortBindings"]
        assert ports["30305/tcp"][0]["HostPort"] == str(program.published[0])
    finally:
        runtime.remove([found.name for found in runtime.adopt()])
        network.remove()


@needs_engine
def test_content_is_made_without_privileges_and_belongs_to_the_programs(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("data")
    runtime = DockerRuntime(uuid.uuid4().hex, images.NODE)
    outcome = f"swarm-test-{uuid.uuid4().hex[:8]}"
    steps = (Step("DOWNLOAD", f"file://{tmp_path}/f"),)
    tmp_path.chmod(0o755)
    rules = Rules(files=str(tmp_path))
    request = ContentRequest("t", outcome, (outcome,), steps, rules, user="1234:4321")
    seen: list[dict[str, Any]] = []

    def look(_: str) -> None:
        filters = {"label": f"{LABEL_NODE}={runtime.uid}"}
        seen.extend(
            c.attrs for c in client.containers.list(all=True, filters=filters, ignore_removed=True)
        )

    try:
        runtime.fill(request, Work(look))
        (filler,) = seen
        assert filler["Config"]["User"] == "1234:4321"
        config = filler["HostConfig"]
        assert config["CapDrop"] == ["ALL"] and not config["CapAdd"] and not config["Privileged"]
        assert config["SecurityOpt"] == ["no-new-privileges"]
        assert config["Memory"] == 3 << 29 and config["PidsLimit"] == 64
        assert config["NetworkMode"] == "none", "it fetches nothing from the network"
        program = python(
            runtime,
            "import os; print(os.stat('/data/f').st_uid); open('/data/new', 'w')",
            user="1234:4321",
            mounts=(Mount(MountType.VOLUME, outcome, "/data"),),
        )
        runtime.start(program)
        assert ended(runtime, program.name).code == 0, runtime.log_tail(program.name)
        assert runtime.log_tail(program.name) == "1234"
        assert [found.name for found in runtime.adopt()] == [program.name]
    finally:
        runtime.remove([found.name for found in runtime.adopt()])
        client.volumes.get(outcome).remove()
        runtime.close()


@needs_engine
def test_a_volume_that_no_task_made_stays_as_it_is(
    runtime: DockerRuntime, client: docker.DockerClient
) -> None:
    volume = client.volumes.create(f"swarm-test-{uuid.uuid4().hex[:8]}")
    name = str(volume.name)
    request = ContentRequest("t", name, (name,), (Step("DOWNLOAD", "https://h/x"),))
    with pytest.raises(LocalError, match=f"SW7026: the volume {name}"):
        runtime.fill(request, Work())
    assert client.volumes.get(name).attrs["CreatedAt"] == volume.attrs["CreatedAt"]
    volume.remove()


@needs_engine
def test_a_build_is_heard_line_by_line(runtime: DockerRuntime, outcome: str) -> None:
    """In the log as it goes, bounded and without passwords; its end in the status."""
    lines: list[str] = []
    proxies = {"http_proxy": "http://me:s3cret@proxy.example:3128"}
    steps = (FROM, "RUN echo first; echo $http_proxy; seq 1 400 | sed 's/$/ xxxxxxxxxx/'")
    said = runtime.build(BuildRequest(outcome, steps, None, proxies), Work(say=lines.append))
    assert any(line.startswith("Step 2/2 : RUN echo first") for line in lines)
    assert lines.index("1 xxxxxxxxxx") > lines.index("first")
    assert "400 xxxxxxxxxx" in lines
    assert lines[-1].startswith("Successfully tagged")
    assert said.startswith(f"Build Task Completed : image {outcome}; last lines of the build:\n")
    assert said.endswith(lines[-1]) and len(said) < LOG_LIMIT
    assert "s3cret" not in "".join(lines) + said
    assert "http://***@proxy.example:3128" in lines


@needs_engine
@pytest.mark.parametrize("how", ["reset", "time"])
def test_a_build_that_hangs_is_given_up_and_leaves_nothing(
    runtime: DockerRuntime, client: docker.DockerClient, outcome: str, how: str
) -> None:
    marker = uuid.uuid4().hex
    steps = (FROM, f"RUN echo {marker} begins; sleep 300")
    began, said = threading.Event(), []

    def hear(line: str) -> None:
        if line == f"{marker} begins":
            began.set()
            if how == "time":
                work.give_up("not done within 1 s (SWOP_TASK_MAX_SECONDS)")

    work = Work(say=hear)

    def run() -> None:
        try:
            runtime.build(BuildRequest(outcome, steps, None, {}), work)
        except LocalError as fault:
            said.append(str(fault))

    threading.Thread(target=run, daemon=True).start()
    assert began.wait(60)
    work.give_up("the taskrunner was reset")
    assert eventually(lambda: said)[0].startswith("SW7020: ")
    eventually(
        lambda: (
            not [
                c
                for c in client.containers.list(all=True, ignore_removed=True)
                if marker in str(c.attrs)
            ]
        )
    )
    assert runtime.adopt() == [] and not runtime.has_image(outcome)
    # The lock is free: the next one does not wait.
    told: list[str] = []
    runtime.build(BuildRequest(outcome, (FROM, "LABEL a=b"), None, {}), Work(told.append))
    assert not [text for text in told if "waiting" in text]


@needs_engine
def test_a_lock_whose_operator_has_gone_is_taken_over(
    runtime: DockerRuntime, client: docker.DockerClient, outcome: str
) -> None:
    name = f"swarm-build-{hashlib.sha256(outcome.encode()).hexdigest()[:12]}"
    labels = {LABEL_NODE: "f" * 32, LABEL_UNTIL: "1000"}
    client.containers.create(images.BASE, ["true"], name=name, labels=labels)
    runtime.build(BuildRequest(outcome, (FROM, "LABEL a=b"), None, {}), Work())
    assert runtime.has_image(outcome)


@needs_engine
def test_a_build_does_not_replace_the_image_of_the_nodes(
    runtime: DockerRuntime, client: docker.DockerClient
) -> None:
    before = client.images.get(images.BASE).id
    with pytest.raises(LocalError, match=f"SW7031: {images.BASE} is the image of this host's"):
        runtime.build(BuildRequest(images.BASE, (FROM, "LABEL a=b"), None, {}), Work())
    assert client.images.get(images.BASE).id == before
