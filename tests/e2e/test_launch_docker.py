"""The launch commands with a real engine: users, health, the end of each node, and the image.

All nodes share one network of the engine and are known by their containers' names, so that no port
of this machine is needed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from swarm.identity import Role
from swarm.launch.plan import default_image
from tests import pki
from tests.engine import images
from tests.processes import until
from tests.swop.test_profile import PROFILE

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]
NETWORK = "swarm-launch-test"
USER = 4711  # owner of the private keys: neither root nor anybody else that an image knows
IMAGE_LIMIT = 400e6  # bytes, base included
STOP_SECONDS = 5.0
HEALTH_CPU = 0.5  # seconds of one check, user and system, on a slow machine
READY = "swarm.blCnt : INFO : Starting SWARM-API-SERVER on port: 30304"

PROGRAM = """
import sys
import numpy as np
from swarmlearning.numpy import SwarmCallback
swarm = SwarmCallback(syncFrequency=2, minPeers=2, totalEpochs=1)
weights = swarm.on_train_begin({"w": np.full(3, float(sys.argv[1]))})
for _ in range(4):
    weights = swarm.on_batch_end(weights)
swarm.on_epoch_end(0)
print("result", *swarm.on_train_end(weights)["w"])
"""

MEASURED = """
import resource, subprocess, sys
code = subprocess.call([sys.executable, "-m", "swarm.health"])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime)
sys.exit(code)
"""


class Host:
    """A directory with certificates, and this installation's commands."""

    def __init__(self, root: Path, engine: docker.DockerClient) -> None:
        self.root = root
        self.engine = engine
        self.ca = pki.authority(root, 1)
        self.identities: dict[str, list[str]] = {}
        self.environment = {**os.environ, "SWARM_HOME": str(root / "home")}

    def run(self, *words: str, timeout: float = 120) -> str:
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def identity(self, name: str, role: Role) -> list[str]:
        """The flags of a certificate, whose files belong to USER."""
        if name not in self.identities:
            files = pki.environment(self.root / "cert" / name, role, self.ca, name=name)
            given = {key: files[f"SWARM_ID_{key.upper()}"] for key in ("cert", "key", "capath")}
            for path in ("cert", "key"):
                os.chown(given[path], USER, USER)
            self.identities[name] = [f"--{key}={path}" for key, path in given.items()]
        return self.identities[name]

    def node(self, component: str, name: str, *words: str) -> Container:
        """Start a node in the background."""
        common = ["-d", f"--name={name}", f"--network={NETWORK}", "--health-interval=1s"]
        role = Role[component.upper()]
        self.run(f"run-{component}", *common, *self.identity(name, role), *words)
        return self.engine.containers.get(name)

    def script(self, sn: str, *lines: str) -> Path:
        """A script of SWCI."""
        usr = self.root / "swci"
        usr.mkdir(exist_ok=True)
        head = ["EXIT ON FAILURE", f"create context c with ip {sn}", "switch context c"]
        (usr / "script").write_text("\n".join([*head, *lines, "EXIT"]))
        return usr / "script"

    def commands(self, sn: str, *lines: str) -> str:
        usr = self.script(sn, *lines).parent
        words = [f"--usr-dir={usr}", "--init-script-name=script", f"--network={NETWORK}"]
        return self.run("run-swci", "--name=swci1", *words, *self.identity("swci1", Role.SWCI))


def wait_for(container: Container, text: str) -> None:
    until(lambda: text in log_of(container), 60, f"{container.name}: {text}")


def log_of(container: Container) -> str:
    return str(container.logs().decode(errors="replace"))


def stopped(container: Container) -> int:
    """`docker stop`: it does what it must in time and is not killed; its exit status."""
    start = time.monotonic()
    container.stop(timeout=30)
    took = time.monotonic() - start
    assert took < STOP_SECONDS, f"{container.name} took {took:.1f} s\n{log_of(container)[-2000:]}"
    container.reload()
    return int(container.attrs["State"]["ExitCode"])


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    reason = images.nodes()
    if reason:
        pytest.skip(reason)
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def host(engine: docker.DockerClient, tmp_path: Path) -> Iterator[Host]:
    network = engine.networks.create(NETWORK)
    made = Host(tmp_path, engine)
    try:
        yield made
    finally:
        network.reload()
        for container in network.containers:
            container.remove(force=True, v=True)
        for container in engine.containers.list(
            all=True, filters={"network": NETWORK}, ignore_removed=True
        ):
            container.remove(force=True, v=True)
        network.remove()


def test_the_image(engine: docker.DockerClient) -> None:
    image = engine.images.get(default_image())
    assert image.attrs["Size"] < IMAGE_LIMIT
    settings = image.attrs["Config"]
    assert settings["User"].split(":")[0] not in ("", "0", "root")
    assert settings["Healthcheck"]["Test"] == ["CMD", "python3", "-m", "swarm.health"]
    assert settings["Labels"]["org.opencontainers.image.version"] == default_image().split(":")[1]


def test_nodes_in_containers(host: Host) -> None:
    secret = ["-e", "DB_PASSWORD=gEhE1m-99"]
    sn1 = host.node("sn", "sn1", "--host-ip=sn1", "--sentinel", "--apls-ip=192.0.2.1", *secret)
    wait_for(sn1, READY)
    sn2 = host.node("sn", "sn2", "--host-ip=sn2", "--sentinel-ip=sn1")
    wait_for(sn2, READY)
    swop = operator(host)
    wait_for(swop, "Waiting for new Task")
    for container in (sn1, sn2, swop):
        assert container.exec_run(["id", "-u"]).output.decode().strip() == str(USER)
    host.commands("sn2", "CREATE CONTRACT kept")

    train(host)
    check_health(host, sn1, swop)

    # Each node ends in order and in time, and the network goes on without those that left.
    host.commands("sn2", "RESET CONTRACT defaultbb.cqdb.sml.hpe")
    waiting = host.node("sl", "sl3", "--host-ip=sl3", "--sn-ip=sn1", *program(host, "3"))
    until(lambda: "minPeers 2" in log_of(waiting), 60, "sl3 waits for others")
    assert stopped(waiting) == 3, "in the middle of a training"
    script = host.script("sn1", "SLEEP 600")
    words = ["--rm=false", f"--usr-dir={script.parent}", f"--init-script-name={script.name}"]
    commands = host.node("swci", "swci2", *words)
    wait_for(commands, "SLEEP 600")
    assert stopped(commands) == 128 + 15
    for container in (swop, sn2):
        assert stopped(container) == 0
    listed = host.commands("sn1", "CREATE CONTRACT alone", "LIST NODES")
    assert "sn1" in listed
    assert not {"sn2", "swop1", "sl3"} & set(re.split(r"[,\s]+", listed))
    assert stopped(sn1) == 0

    # The last one comes back with its ledger, in the same container.
    sn1.start()
    until(lambda: log_of(sn1).count(READY) == 2, 60, "sn1 is back")
    listed = host.commands("sn1", "LIST CONTRACTS")
    assert "kept" in listed and "alone" in listed

    # --keep leaves the logs; without it everything of ours goes, and the user's program stays.
    said = host.run("stop-swarm", "--keep", "--runtime=docker")
    assert "Stopping all running Swarm Network containers" in said
    for name in ("sn1", "swop1", "sl1"):
        assert host.engine.containers.get(name).status == "exited"
        assert " : INFO : " in host.run("swarm", "logs", name)
    collect(host)
    host.run("stop-swarm", "--runtime=docker")
    network = {
        c.name
        for c in host.engine.containers.list(
            all=True, filters={"network": NETWORK}, ignore_removed=True
        )
    }
    assert network == {"ml1", "ml2", "ml3"}


def collect(host: Host) -> None:
    """Logs and descriptions of ended containers, in one archive, without their secrets."""
    path = host.root / host.run("swarm", "collect").splitlines()[-1]
    with tarfile.open(path) as archive:
        files = {
            member.name.partition("/")[2]: archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive.getmembers()
        }
    tag = default_image().split(":")[1]
    assert {f"sn_{tag}_1.log", f"swop_inspect_{tag}_1.log", "user_2.log"} <= set(files)
    assert any(READY in text for name, text in files.items() if name.startswith("sn_"))
    assert "CN=SN-sn1" in files["certificates.txt"] and "profiles/p.yaml" in files
    assert not any("gEhE1m" in text for text in files.values())


def operator(host: Host) -> Container:
    usr = host.root / "swop"
    usr.mkdir()
    text = PROFILE.replace("host: 172.1.1.1\n        port: 30304", "host: null\n        port: null")
    (usr / "p.yaml").write_text(text.replace("network: host-1-net", f"network: {NETWORK}"))
    words = [f"--usr-dir={usr}", "--profile-file-name=p.yaml", "--sn-ip=sn1"]
    return host.node("swop", "swop1", *words)


def program(host: Host, index: str) -> list[str]:
    """The options of a learner's program."""
    (host.root / "program.py").write_text(PROGRAM)
    (host.root / "program.py").chmod(0o644)
    return [
        f"--ml-image={default_image()}",
        f"--ml-name=ml{index}",
        f"--ml-network={NETWORK}",
        "--ml-entrypoint=python3",
        f"--ml-cmd=/program.py {index}",
        f"--ml-user={USER}:{USER}",
        *("--ml-v", f"{host.root}/program.py:/program.py"),
    ]


def train(host: Host) -> None:
    """One run-sl command starts a learner and its program; both end, and with status 0."""
    pairs = []
    for index in ("1", "2"):
        words = [f"--host-ip=sl{index}", "--sn-ip=sn1", *program(host, index)]
        learner = host.node("sl", f"sl{index}", *words)
        pairs += [learner, host.engine.containers.get(f"ml{index}")]
    for container in pairs:
        status = container.wait(timeout=120)["StatusCode"]
        assert status == 0, f"{container.name}: {log_of(container)[-3000:]}"
        if str(container.name).startswith("ml"):
            assert "result 1.5 1.5 1.5" in log_of(container)
            seen = {mount["Destination"] for mount in container.attrs["Mounts"]}
            assert seen == {"/program.py", "/tmp/hpe-swarm"}, "no key of the learner"


def check_health(host: Host, sn: Container, swop: Container) -> None:
    until(lambda: health(sn) == health(swop) == "healthy", 60, "both are healthy")
    code, output = sn.exec_run(["python3", "-c", MEASURED])
    assert code == 0 and float(output.split()[-1]) < HEALTH_CPU, output.decode()
    # A node that hangs is there, and takes connections as far as the kernel does.
    pid = "$(pgrep -P 1 -x python3)"
    assert sn.exec_run(["sh", "-c", f"kill -STOP {pid}"], user=str(USER)).exit_code == 0
    code, output = sn.exec_run(["python3", "-m", "swarm.health"])
    assert code == 1 and b"does not answer" in output, output
    assert sn.exec_run(["sh", "-c", f"kill -CONT {pid}"], user=str(USER)).exit_code == 0


def health(container: Container) -> str:
    container.reload()
    return str(container.attrs["State"]["Health"]["Status"])


def test_the_first_process_of_a_container_heeds_a_stop_before_it_has_begun(
    engine: docker.DockerClient,
) -> None:
    """Without docker's init, and while a node still imports what it needs."""
    slow = ["python3", "-c", "import time; time.sleep(60)"]
    container = engine.containers.run(default_image(), slow, detach=True)
    try:
        until(lambda: catches_term(container), 30, "Python has started")
        assert stopped(container) == 128 + 15
    finally:
        container.remove(force=True)


def catches_term(container: Container) -> bool:
    status = container.exec_run(["cat", "/proc/1/status"]).output.decode()
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", status)
    return caught is not None and bool(int(caught[1], 16) & 1 << 14)


def test_a_key_of_another_user(host: Host) -> None:
    """What a node says that cannot read its key, and not only that it cannot."""
    flags = host.identity("sn9", Role.SN)
    common = ["-d", "--name=sn9", f"--network={NETWORK}", "--host-ip=sn9", "--sentinel"]
    host.run("run-sn", *common, *flags, "--user=4712")
    container = host.engine.containers.get("sn9")
    assert container.wait(timeout=60)["StatusCode"] == 1
    said = f"belongs to user {USER} with mode 0600, and this node runs as user 4712"
    assert said in log_of(container)


OTHER_BASE = """
FROM swarm-base:latest
RUN $(python3 -c "import os, sys; print(os.path.realpath(sys.executable))") -m venv --without-pip \\
    /srv/python && rm -f /usr/local/bin/python3 /usr/bin/python3
ENV PATH=/srv/python/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 1234
"""


def test_another_base_with_its_python_elsewhere(
    engine: docker.DockerClient, tmp_path: Path
) -> None:
    """Not where Debian or Docker's own images have it, and not run by root."""
    (tmp_path / "Dockerfile").write_text(OTHER_BASE)
    build(["docker", "build", "--quiet", "--tag", "swarm-test-base", str(tmp_path)])
    labels = engine.images.get("swarm-base:latest").labels
    compiler = "swarm-compiler" if labels.get("swarm.base") == "debian" else "swarm-base"
    node, before = "swarm-test-node:other", engine.images.get(default_image()).id
    try:
        build(
            [str(REPOSITORY / "image" / "build")],
            BASE_IMAGE="swarm-test-base",
            COMPILER_IMAGE=f"{compiler}:latest",
            NODE_IMAGE=node,
        )
        assert engine.images.get(default_image()).id == before
        probe = "import sys, sentinel, swop, swci, swarm.learner; print(sys.prefix)"
        said = engine.containers.run(node, ["python3", "-c", probe], remove=True)
        assert said.decode().strip() == "/srv/python"
        said = engine.containers.run(node, ["run-sn", "--help"], remove=True)
        assert said.startswith(b"Usage: run-sn")
    finally:
        for name in (node, "swarm-test-base"):
            engine.images.remove(name, force=True)


def build(command: list[str], **variables: str) -> None:
    environment = {**os.environ, "DOCKER_BUILDKIT": "0", "PYTHON": sys.executable, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
