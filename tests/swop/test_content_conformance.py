"""Content as every runtime must make it; each test runs with PROCESS, DOCKER, and with PODMAN."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import docker
import psutil
import pytest
from docker.errors import NotFound

from swarm.errors import LocalError
from swop.content import ContentRequest
from swop.docker_runtime import DockerRuntime
from swop.filling import Step
from swop.plan import Mount
from swop.profile import MountType
from swop.reach import read_reach
from swop.rules import Rules
from swop.runtime import Runtime
from swop.work import Work
from tests.content.archives import file, symlink, tar
from tests.content.web import Site, serve
from tests.engine import podman
from tests.swop.programs import RUNTIMES, ended, eventually, is_podman, python

LIST = (
    "import hashlib, pathlib, sys\n"
    "root = pathlib.Path(sys.argv[1]).resolve()\n"
    "for p in sorted(root.rglob('*')):\n"
    "    if p.is_file():\n"
    "        print(p.relative_to(root), hashlib.sha256(p.read_bytes()).hexdigest()[:8])"
)
ARCHIVE = tar(file("set/x", b"one"), file("set/y", b"two"), symlink("last", "set/y"), mode="w:xz")

pytestmark = pytest.mark.parametrize("make_runtime", RUNTIMES, indirect=True)


@pytest.fixture
def site(runtime: Runtime, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A web server where the runtime's filling processes reach it."""
    host, listener = "127.0.0.1", None
    if is_podman(runtime):
        host, listener = podman.GATEWAY, request.getfixturevalue("listener")
    elif isinstance(runtime, DockerRuntime):
        host = psutil.net_if_addrs()["docker0"][0].address
    with serve(host, listener=listener) as found:
        found.files = {"/set.tar.xz": ARCHIVE, "/f": b"data"}
        yield found


@pytest.fixture
def content(runtime: Runtime, site: Site) -> Iterator[Callable[..., ContentRequest]]:
    """Makes requests; their volumes are removed in the end."""
    made: list[str] = []
    rules = Rules(reach=read_reach(True, site.host, "X"))

    def make(*steps: Step, volumes: int = 0, rules: Rules = rules) -> ContentRequest:
        outcome = f"swarm-test-{uuid.uuid4().hex[:8]}"
        names = tuple(f"{outcome}-{n}" for n in range(volumes)) or (outcome,)
        made.extend(names)
        return ContentRequest("task", outcome, names, steps, rules)

    yield make
    if isinstance(runtime, DockerRuntime):
        engine = docker.from_env()
        runtime.remove([found.name for found in runtime.adopt()])
        for name in made:
            try:
                engine.volumes.get(name).remove()
            except NotFound:
                continue
        engine.close()


def listing(runtime: Runtime, volume: str) -> list[str]:
    """What a program sees of a volume: files and how their digests begin."""
    mounts = (Mount(MountType.VOLUME, volume, "/data"),)
    program = python(runtime, "", command=("-c", LIST, "/data"), mounts=mounts)
    runtime.start(program)
    assert ended(runtime, program.name).code == 0, runtime.log_tail(program.name)
    lines = runtime.log_tail(program.name).splitlines()
    runtime.remove([program.name])
    return lines


def short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def test_one_volume_for_each_node(runtime: Runtime, site: Site, content) -> None:
    digest = hashlib.sha256(b"data").hexdigest()
    steps = (
        Step("DOWNLOAD", site.url("/f"), "files/", digest),
        Step("EXTRACT", site.url("/set.tar.xz"), "data"),
    )
    request = content(*steps, volumes=2)
    told: list[str] = []
    sentence = runtime.fill(request, Work(told.append))
    assert sentence.startswith(f"Content Task Completed : made {request.volumes[0]}, ")
    assert len(told) == 3 and told[0].startswith("1 of 2: DOWNLOAD http://")
    expected = [
        f"data/last {short(b'two')}",
        f"data/set/x {short(b'one')}",
        f"data/set/y {short(b'two')}",
        f"files/f {short(b'data')}",
    ]
    for volume in request.volumes:
        assert listing(runtime, volume) == expected

    # The same task again finds it, and asks nobody; one more node gets its own.
    asked = len(site.asked)
    assert "was there already" in runtime.fill(request, Work())
    assert len(site.asked) == asked
    more = replace(request, volumes=(*request.volumes, f"{request.outcome}-2"))
    sentence = runtime.fill(more, Work())
    assert f"made {request.outcome}-2:" in sentence and "was there already" in sentence
    assert listing(runtime, more.volumes[2]) == expected
    if isinstance(runtime, DockerRuntime):
        docker.from_env().volumes.get(more.volumes[2]).remove()

    # Another task of that name does not touch it.
    other = replace(request, steps=(Step("DOWNLOAD", site.url("/f")),))
    with pytest.raises(LocalError, match=f"SW7026: the volume {request.volumes[0]} is on this"):
        runtime.fill(other, Work())
    assert listing(runtime, request.volumes[0]) == expected


def test_what_fails_leaves_no_volume(runtime: Runtime, site: Site, content) -> None:
    request = content(Step("DOWNLOAD", site.url("/f")), Step("EXTRACT", site.url("/f")))
    with pytest.raises(LocalError, match="SW7023: a damaged archive"):
        runtime.fill(request, Work())
    # Else this were another content of the same volume.
    runtime.fill(replace(request, steps=(Step("DOWNLOAD", site.url("/f")),)), Work())
    assert listing(runtime, request.outcome) == [f"f {short(b'data')}"]


def test_what_the_host_forbids(runtime: Runtime, site: Site, content) -> None:
    """By default neither an address of the inside nor a file of the host can be had."""
    for target in (site.url("/f"), "file:///etc/passwd"):
        with pytest.raises(LocalError, match="SW7021"):
            runtime.fill(content(Step("DOWNLOAD", target, "x"), rules=Rules()), Work())
    assert site.asked == []


def test_files_that_the_host_offers(runtime: Runtime, tmp_path: Path, content) -> None:
    offered = tmp_path / "offered"
    offered.mkdir()
    (offered / "set.tar").write_bytes(ARCHIVE)
    (tmp_path / "secret").write_text("secret")
    (offered / "link").symlink_to(tmp_path / "secret")
    rules = Rules(files=str(offered))
    request = content(Step("EXTRACT", f"file://{offered}/set.tar"), rules=rules)
    runtime.fill(request, Work())
    assert len(listing(runtime, request.outcome)) == 3
    for path in ("link", "../secret"):
        request = content(Step("DOWNLOAD", f"file://{offered}/{path}"), rules=rules)
        with pytest.raises(LocalError, match=r"SW702[12]"):
            runtime.fill(request, Work())


def hanging(runtime: Runtime, site: Site, request: ContentRequest, work: Work) -> list[str]:
    """Begin to fill from a server that does not answer; the list gets the error."""
    site.hangs.add("/hangs")
    said: list[str] = []

    def run() -> None:
        try:
            runtime.fill(request, work)
        except LocalError as fault:
            said.append(str(fault))

    threading.Thread(target=run, daemon=True).start()
    eventually(lambda: "/hangs" in site.asked)
    return said


def test_content_is_given_up_at_once(runtime: Runtime, site: Site, content) -> None:
    request = content(Step("DOWNLOAD", site.url("/f")), Step("DOWNLOAD", site.url("/hangs")))
    work = Work()
    said = hanging(runtime, site, request, work)
    work.give_up("the taskrunner was reset")
    assert eventually(lambda: said)[0].startswith("SW7020: the taskrunner was reset")
    runtime.fill(replace(request, steps=request.steps[:1]), Work())


def test_what_a_killed_operator_left_half_filled_goes(
    runtime: Runtime, make_runtime, site: Site, content
) -> None:
    request = content(Step("DOWNLOAD", site.url("/f")), Step("DOWNLOAD", site.url("/hangs"), "x"))
    said = hanging(runtime, site, request, Work())
    if isinstance(runtime, DockerRuntime):
        mounts = (Mount(MountType.VOLUME, request.outcome, "/data"),)
        with pytest.raises(LocalError, match=f"SW7027: the volume {request.outcome} is being"):
            runtime.start(python(runtime, "", mounts=mounts))
    again = make_runtime()
    assert again.adopt() == []
    if isinstance(runtime, DockerRuntime):
        eventually(lambda: said)  # its filling container is gone
    again.fill(replace(request, steps=request.steps[:1]), Work())
    assert listing(again, request.outcome) == [f"f {short(b'data')}"]
