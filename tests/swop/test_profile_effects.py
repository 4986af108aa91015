"""Every key of a profile has its effect: pairs of one profile, started, and looked at.

Looked at from both sides: what the engine says of the containers, and what a program inside sees.
In the learner's place runs a program that tells the same, as it is the container that counts here.
"""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import docker
import pytest

from swarm.errors import LocalError
from swop.docker_runtime import DockerRuntime
from swop.plan import Host, Pair, plan_pairs, without_containers
from swop.process_runtime import ProcessRuntime
from swop.profile import Profile, parse_profile
from swop.runtime import BuildRequest, Runtime
from swop.tasks import understand
from swop.work import Work
from tests.engine import images
from tests.processes import free_port
from tests.swop.programs import IMAGE, ended

LOOK = """
import json, os, pathlib, socket
def tree(top):
    files = [p for p in pathlib.Path(top).rglob("*") if p.is_file()]
    return {str(p.relative_to(top)): p.read_text() for p in files}
seen = {"env": dict(os.environ), "host": socket.gethostname(), "cwd": os.getcwd(),
        "user": [os.getuid(), os.getgid()], "groups": os.getgroups(),
        "dns": pathlib.Path("/etc/resolv.conf").read_text(),
        "addresses": pathlib.Path("/etc/hosts").read_text().split()}
for name in LOOKED_AT:
    seen[name] = tree(name)
if os.access("/data", os.W_OK):  # a new volume belongs to root
    pathlib.Path("/data/written").write_text("by the program")
try:
    open("/id/new", "w")
except OSError as error:
    seen["id is"] = error.strerror
print("SEEN", json.dumps(seen))
"""
SWOP_USER = "12345:12346"

PROFILE = """\
groupname: effects
taskrunner: runner
policyuri: null
resourcemgr: {mgrtype: DOCKER, accessinfo: {accesstype: FROMENV}}
network: @NETWORK
apls: {locator: {host: 10.9.9.9, port: 5814}}
apisrv: {locator: {host: 10.1.1.1, port: 30399, service: null}}
envvars: [{EVERYWHERE: profile}, {OVERRIDDEN: profile}, {EMPTY: null}, {SL_FS_PORT: 1}]
dns: [10.7.7.7, 10.7.7.8]
nodes:
  - slnodedef:
      idx: 0
      identity:
        - attribute: {aType: KEY, mType: BIND, src: @DIR/key.pem, tgt: /id/key.pem}
        - attribute: {aType: CERT, mType: BIND, src: @DIR/cert.pem, tgt: /id/cert.pem}
        - attribute: {aType: CAPATH, mType: BIND, src: @DIR/ca, tgt: /id/ca}
      slhostip: 172.1.1.1
      slport: @PORT
      slfsservice: fs.sl-zero.example:8443
      slhostname: sl-zero
      privatedata: {src: @DIR/user0, mType: BIND}
      slenvvars: [{OVERRIDDEN: node}, {ONLY_SL: "010"}]
      sllabels: {site: north, swarm.task: mine}
      usrlabels: [color=blue, {size: 3}]
      slnetworkopts: [{ip: @NET.10}]
      usrnetworkopts: [{ip: @NET.11}]
      usrhostname: ml-zero
      usrenvvars: [{MAX_EPOCHS: 7}, {ONLY_ML: yes}]
      usrcontaineropts:
        - device: /dev/null
        - device: "/dev/zero:/dev/nought:r"
        - ipc: shareable
        - shm-size: 32m
        - group-add: ["4711"]
        - cap-add: SYS_PTRACE
        - security-opt: seccomp=unconfined
  - slnodedef:
      idx: 3
      identity:
        - attribute: {aType: KEY, mType: VOLUME, src: @VOLUME, tgt: /id, subPath: keys/key.pem}
        - attribute: {aType: CERT, mType: VOLUME, src: @VOLUME, tgt: /id, subpath: cert.pem}
        - attribute: {aType: CACERT, mType: VOLUME, src: @VOLUME, tgt: /id, subPath: ca.pem}
      slhostip: null
      slport: null
      slhostname: sl-one
      privatedata: {src: @VOLUME, mType: VOLUME}
      slenvvars: null
      usrhostname: null
      usrenvvars: null
      usrcontaineropts: [{privileged: true}]
"""
TASK = {
    "name": "train",
    "type": "RUN_SWARM",
    "prereq": "build",
    "outcome": "train",
    "body": [
        "Command: -c 'print(0)'",
        "Entrypoint: python3",
        "WorkingDir: /work",
        "Envvars: [{MAX_EPOCHS: 2}, {TASK: '1'}]",
        "PrivateContent: /data",
        "SharedContent: [{Src: @DIR/model, Tgt: /work/model, MType: BIND}]",
    ],
}
HOST = Host("e" * 32, "10.1.1.1", 30399, SWOP_USER)


@dataclass
class Seen:
    """One program: from outside, and from inside."""

    engine: dict[str, Any]
    inside: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.engine["HostConfig"]
        return found


def looking(pair: Pair) -> Pair:
    """The pair, with programs that tell what they see in the place of its own."""
    places = {"SL": ["/id"], "ML": ["/data", "/work"]}
    look = {role: ("-c", LOOK.replace("LOOKED_AT", repr(names))) for role, names in places.items()}
    return replace(
        pair,
        sl=replace(pair.sl, entrypoint=("python3",), command=look["SL"]),
        ml=replace(pair.ml, command=look["ML"]),
    )


def plan(text: str, directory: Path, host: Host = HOST) -> tuple[Profile, list[Pair]]:
    profile = parse_profile(text, "p.yaml").profile
    body = [line.replace("@DIR", str(directory)) for line in TASK["body"]]
    task = understand({**TASK, "body": body}, {"outcome": IMAGE}, profile, HOST)
    pairs = plan_pairs(profile, task, uuid.uuid4().hex[:16], host)  # type: ignore[arg-type]
    return profile, [looking(pair) for pair in pairs]


def inside(runtime: Runtime, name: str) -> dict[str, Any]:
    """What the program said that it saw."""
    assert ended(runtime, name).code == 0, runtime.log_tail(name)
    engine = getattr(runtime, "_engine", None)
    said = (
        engine.containers.get(name).logs().decode()
        if engine is not None
        else (runtime.data / "logs" / f"{name}.log").read_text()  # type: ignore[attr-defined]
    )
    found: dict[str, Any] = json.loads(said.partition("SEEN ")[2])
    return found


@pytest.fixture
def directory() -> Iterator[Path]:
    """Files of a host, open to the operator's user (pytest's own directories are closed)."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        for file in ("key.pem", "cert.pem", "ca/one.pem", "user0/private", "model/program.py"):
            (top / file).parent.mkdir(exist_ok=True)
            (top / file).write_text(file)
        (top / "key.pem").chmod(0o644)
        os.chown(top / "user0", *map(int, SWOP_USER.split(":")))
        yield top


class TestContainers:
    """With the DOCKER runtime."""

    pytestmark = pytest.mark.docker

    @pytest.fixture(params=["DOCKER", pytest.param("PODMAN", marks=pytest.mark.netns)])
    def behind(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        """Whose service answers."""
        if request.param == "PODMAN":
            monkeypatch.setenv("DOCKER_HOST", request.getfixturevalue("podman").url)
        else:
            request.getfixturevalue("engine")
        return str(request.param)

    @pytest.fixture
    def client(self, behind: str) -> Iterator[docker.DockerClient]:
        client = docker.from_env()
        yield client
        client.close()

    @pytest.fixture
    def runtime(self, behind: str) -> Iterator[DockerRuntime]:
        runtime = DockerRuntime(HOST.uid, images.BASE)
        if not runtime.has_image(IMAGE):
            steps = (f"FROM {images.BASE}", "LABEL swarm.test=1")
            runtime.build(BuildRequest(IMAGE, steps, None, {}), Work())
        yield runtime
        runtime.remove([found.name for found in runtime.adopt()])
        runtime.close()

    @pytest.fixture
    def network(self, client: docker.DockerClient) -> Iterator[tuple[str, str]]:
        """A network with a subnet that the engine chose for another; name and its first bytes."""
        name = f"swarm-test-{uuid.uuid4().hex[:8]}"
        probe = client.networks.create(name)
        probe.reload()
        subnet = str(probe.attrs["IPAM"]["Config"][0]["Subnet"])
        probe.remove()
        pool = docker.types.IPAMPool(subnet=subnet)
        network = client.networks.create(name, ipam=docker.types.IPAMConfig(pool_configs=[pool]))
        yield name, subnet.rpartition(".")[0]
        network.remove()

    @pytest.fixture
    def volume(self, client: docker.DockerClient) -> Iterator[str]:
        """A volume that holds an identity."""
        volume = client.volumes.create(f"swarm-test-{uuid.uuid4().hex[:8]}")
        mount = docker.types.Mount("/v", str(volume.name), type="volume")
        filler = client.containers.create(images.BASE, "true", mounts=[mount])
        stream = BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name in ("keys/key.pem", "cert.pem", "ca.pem"):
                member = tarfile.TarInfo(name)
                member.size = len(name)
                archive.addfile(member, BytesIO(name.encode()))
        filler.put_archive("/v", stream.getvalue())
        filler.remove()
        yield str(volume.name)
        for left in client.containers.list(
            all=True, filters={"volume": str(volume.name)}, ignore_removed=True
        ):
            left.remove(force=True)
        volume.remove()

    def test_every_key_of_one_profile(
        self,
        runtime: DockerRuntime,
        client: docker.DockerClient,
        network: tuple[str, str],
        volume: str,
        directory: Path,
    ) -> None:
        net, port = network[1], free_port("0.0.0.0")
        text = PROFILE.replace("@NETWORK", network[0]).replace("@NET", net)
        text = text.replace("@VOLUME", volume).replace("@DIR", str(directory))
        _, pairs = plan(text.replace("@PORT", str(port)), directory)
        seen: list[dict[str, Seen]] = []
        for pair in pairs:
            runtime.start(pair.sl)
            runtime.start(pair.ml)
            seen.append({})
            for program in (pair.sl, pair.ml):
                told = inside(runtime, program.name)
                outside = client.containers.get(program.name).attrs
                seen[-1][program.role] = Seen(outside, told)
        self.check_learner(seen[0]["SL"], pairs[0], port, network)
        self.check_program(seen[0]["ML"], directory, network)
        self.check_options(seen[0]["ML"], runtime)
        self.check_second(seen[1], pairs[1])
        runtime.remove([program.name for pair in pairs for program in (pair.sl, pair.ml)])

    def check_learner(self, sl: Seen, pair: Pair, port: int, network: tuple[str, str]) -> None:
        env = sl.inside["env"]
        assert (env["EVERYWHERE"], env["OVERRIDDEN"], env["EMPTY"]) == ("profile", "node", "")
        assert env["ONLY_SL"] == "010"
        assert env["SL_FS_PORT"] == str(port), "the wiring stands above all variables"
        assert (env["SN_NODE_IP"], env["SN_API_SERVER_PORT"]) == ("10.1.1.1", "30399")
        assert env["THIS_NODE_IP"] == "172.1.1.1"
        assert env["SL_FS_SERVICE"] == "fs.sl-zero.example:8443"
        assert env["SWARM_NODE_NAME"] == pair.name
        assert env["SWARM_ID_KEY"] == "/id/key.pem"
        assert env["SWARM_ID_CERT"] == "/id/cert.pem"
        assert env["SWARM_ID_CAPATH"] == "/id/ca"
        assert "MAX_EPOCHS" not in env and "ONLY_ML" not in env
        assert sl.inside["/id"] == {n: n for n in ("key.pem", "cert.pem")} | {
            "ca/one.pem": "ca/one.pem"
        }
        mounts = {m["Destination"]: m for m in sl.engine["Mounts"]}
        assert {m["RW"] for target, m in mounts.items() if target.startswith("/id")} == {False}
        assert sl.settings["PortBindings"]["30305/tcp"][0]["HostPort"] == str(port)
        assert sl.inside["host"] == "sl-zero"
        self.on_network(sl, network, 10)
        labels = sl.engine["Config"]["Labels"]
        assert (labels["site"], labels["swarm.task"]) == ("north", "train"), "ours win"
        assert labels["swarm.group"] == "effects"
        assert sl.inside["user"] == [12345, 12346]
        assert not sl.settings["DeviceRequests"] and not sl.settings["Devices"]
        assert not sl.settings["Privileged"]

    def check_program(self, ml: Seen, directory: Path, network: tuple[str, str]) -> None:
        env = ml.inside["env"]
        assert (env["MAX_EPOCHS"], env["TASK"], env["ONLY_ML"]) == ("7", "1", "yes")
        assert "EVERYWHERE" not in env and "SWARM_ID_KEY" not in env
        assert ml.inside["/data"] == {"private": "user0/private"}
        assert ml.inside["/work"] == {"model/program.py": "model/program.py"}
        assert ml.inside["cwd"] == "/work"
        assert ml.inside["host"] == "ml-zero"
        assert not ml.settings["PortBindings"]
        self.on_network(ml, network, 11)
        labels = ml.engine["Config"]["Labels"]
        assert (labels["color"], labels["size"]) == ("blue", "3")
        written = (directory / "user0" / "written").stat()
        assert (written.st_uid, written.st_gid) == (12345, 12346)

    def check_options(self, ml: Seen, runtime: DockerRuntime) -> None:
        settings = ml.settings
        is_podman = runtime.check().startswith("Podman")  # which tells no permissions of devices
        assert [
            (d["PathOnHost"], d["PathInContainer"], d["CgroupPermissions"])
            for d in settings["Devices"]
        ] == [
            ("/dev/null", "/dev/null", "" if is_podman else "rwm"),
            ("/dev/zero", "/dev/nought", "" if is_podman else "r"),
        ]
        assert settings["IpcMode"] == "shareable"
        assert settings["ShmSize"] == 32 << 20
        assert 4711 in ml.inside["groups"]
        assert settings["CapAdd"] == ["SYS_PTRACE"]
        assert sorted(settings["SecurityOpt"]) == ["no-new-privileges", "seccomp=unconfined"]

    def on_network(self, seen: Seen, network: tuple[str, str], last: int) -> None:
        ((name, endpoint),) = seen.engine["NetworkSettings"]["Networks"].items()
        assert name == network[0]
        assert f"{network[1]}.{last}" in seen.inside["addresses"]
        assert seen.inside["host"] in endpoint["Aliases"]
        assert seen.settings["Dns"] == ["10.7.7.7", "10.7.7.8"]

    def check_second(self, seen: dict[str, Seen], pair: Pair) -> None:
        """The identity in a volume, nothing published, addresses as the engine gives them."""
        sl, ml = seen["SL"], seen["ML"]
        env = sl.inside["env"]
        assert env["SWARM_ID_KEY"] == "/id/keys/key.pem"
        assert env["SWARM_ID_CERT"] == "/id/cert.pem"
        assert env["SWARM_ID_CACERT"] == "/id/ca.pem"
        assert sl.inside["/id"] == {n: n for n in ("keys/key.pem", "cert.pem", "ca.pem")}
        assert sl.inside["id is"] == "Read-only file system"
        assert env["OVERRIDDEN"] == "profile"
        assert (env["SL_FS_PORT"], env["THIS_NODE_IP"]) == ("30305", "sl-one")
        assert not sl.settings["PortBindings"]
        assert f"-s-3-{pair.name.rpartition('-')[2]}" in pair.name
        assert ml.settings["Privileged"]
        assert "no-new-privileges" not in (ml.settings["SecurityOpt"] or [])
        assert ml.inside["env"]["MAX_EPOCHS"] == "2"
        assert ml.inside["/data"]["ca.pem"] == "ca.pem"

    @pytest.mark.parametrize("behind", ["DOCKER"], indirect=True)  # Podman: see test_podman.py
    def test_exactly_the_gpus_of_the_profile_reach_the_engine(
        self, runtime: DockerRuntime, client: docker.DockerClient, directory: Path
    ) -> None:
        """The request is what can be looked at where there is no GPU: the start is refused."""
        text = PROFILE.replace("@NETWORK", "bridge").replace("@DIR", str(directory))
        text = text[: text.index("      slnetworkopts")].replace("@PORT", "null") + (
            "      usrhostname: null\n      usrenvvars: null\n"
            '      usrcontaineropts: [{gpus: "device=0"}]\n'
        )
        _, (pair,) = plan(text, directory)
        pair = replace(pair, sl=replace(pair.sl, hostname=""))  # no aliases on the default network
        runtime.start(pair.sl)
        with pytest.raises(LocalError) as caught:
            runtime.start(pair.ml)
        assert caught.value.code == "SW7040"
        assert pair.ml.name in caught.value.cause
        wanted = client.containers.get(pair.ml.name).attrs["HostConfig"]["DeviceRequests"]
        assert [(w["Count"], w["DeviceIDs"], w["Capabilities"]) for w in wanted] == [
            (0, ["0"], [["gpu"]])
        ]
        assert not client.containers.get(pair.sl.name).attrs["HostConfig"]["DeviceRequests"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run programs as another user")
def test_every_key_that_means_something_to_local_processes(directory: Path) -> None:
    text = PROFILE[: PROFILE.index("  - slnodedef:\n      idx: 3")].replace("@DIR", str(directory))
    text = (
        text.replace("DOCKER", "PROCESS").replace("@NETWORK", "some-net").replace("@NET", "10.0.0")
    )
    text = text.replace("- device: /dev/null", '- gpus: "device=3,5"').replace("@PORT", "16000")
    profile, (pair,) = plan(text, directory, replace(HOST, containers=False))
    runtime = ProcessRuntime(HOST.uid, directory / "data")
    runtime.build(BuildRequest(IMAGE, (), None, {}), Work())
    below = ["/id", "/data", "/work"]  # these words are not rewritten inside the program's text
    seen = {}
    for program in (pair.sl, pair.ml):
        root = runtime.data / program.operation / "0" / program.role / "root"
        code = program.command[1]
        for name in below:
            code = code.replace(f"'{name}", f"'{root}{name}").replace(f'"{name}', f'"{root}{name}')
        runtime.start(replace(program, command=("-c", code)))
        seen[program.role] = (inside(runtime, program.name), root)
    sl, root = seen["SL"]
    assert sl["env"]["SWARM_ID_KEY"] == f"{root}/id/key.pem"
    assert (sl["env"]["OVERRIDDEN"], sl["env"]["EMPTY"]) == ("node", "")
    assert sl["env"]["SL_LISTEN_PORT"] == sl["env"]["SL_FS_PORT"] == "16000"
    assert sl["user"] == [12345, 12346]
    assert "CUDA_VISIBLE_DEVICES" not in sl["env"]
    ml, root = seen["ML"]
    assert (ml["env"]["MAX_EPOCHS"], ml["env"]["TASK"]) == ("7", "1")
    assert ml["env"]["CUDA_VISIBLE_DEVICES"] == "3,5"
    assert ml["cwd"] == f"{root}/work"
    assert (root / "data" / "private").read_text() == "user0/private"
    written = (directory / "user0" / "written").stat()
    assert (written.st_uid, written.st_gid) == (12345, 12346)
    assert without_containers(profile) == [
        "network", "dns", "sllabels", "usrlabels", "slnetworkopts", "usrnetworkopts",
        "usrcontaineropts.cap_add", "usrcontaineropts.device", "usrcontaineropts.group_add",
        "usrcontaineropts.ipc", "usrcontaineropts.security_opt", "usrcontaineropts.shm_size",
    ]  # fmt: skip
    runtime.remove([pair.ml.name, pair.sl.name])
