"""What the doctor gathers on a real host of one, each bad case made for real."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sentinel import lookback
from swarm.host.doctor import local, reach
from swarm.host.doctor.engine import Engine
from swarm.host.doctor.facts import PortFact, SnFact
from swarm.host.doctor.subject import Keys, Subject, WantedPath, of_profile
from swarm.host.hostfile import ReadHost, parse_host
from swarm.host.plan import profile_text
from swarm.identity import Identity, Role
from swarm.launch import cli, nodes
from tests import pki
from tests.launch.conftest import FakeDocker
from tests.processes import free_port
from tests.sentinel.harness import LiveApi


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A founder of processes on loopback, all well."""
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "nodes"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    ports = [f"--{name}-port={free_port()}" for name in ("api", "p2p", "learner")]
    line = ["init", "--yes", "--address=127.0.0.1", "--make-certificates", *ports]
    assert cli.swarm(line) == 0
    return tmp_path


class Doctor:
    """The command, and what it printed as JSON."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, list[dict[str, Any]]]:
        """Exit status, and findings that are not ok."""
        self._capsys.readouterr()
        status = cli.swarm(["doctor", "--json", "--quiet", *words])
        value = json.loads(self._capsys.readouterr().out)
        assert value["go"] is (status == 0)
        # This machine's disk may be as full as it likes.
        return status, [one for one in value["findings"] if one["code"] != "SW9044"]

    def codes(self, *words: str) -> tuple[int, list[str]]:
        status, found = self(*words)
        return status, [one["code"] for one in found]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(capsys)


NOBODY_TO_ASK = "SW9050"


def test_a_first_host_is_a_go(doctor: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.codes() == (0, [NOBODY_TO_ASK])
    assert cli.swarm(["doctor", "-f", "swarm.yaml"]) == 0
    said = capsys.readouterr().out
    assert "ok       SL of pair 0: " in said
    assert said.endswith("go: 1 warning\n")


def test_what_is_wrong_with_files(host: Path, doctor: Doctor) -> None:
    (host / "data").rmdir()
    (host / "cert/sl-1-key.pem").chmod(0o644)
    (host / "cert/swop-1-cert.pem").unlink()
    status, found = doctor()
    assert status == 1
    by_code = {one["code"]: one for one in found}
    assert "swop-1-cert.pem" in by_code["SW1202"]["text"]
    assert by_code["SW9041"]["remedy"] == f"chmod 600 {host}/cert/sl-1-key.pem"
    assert f"data of pair 0: {host}/data does not exist" in by_code["SW9042"]["text"]


def test_a_profile_that_is_wrong(host: Path, doctor: Doctor) -> None:
    (host / "profile.yaml").write_text("groupname: 1\n")
    status, found = doctor("--profile=profile.yaml")
    assert (status, found[0]["code"]) == (1, "SW7003")
    assert "profile.yaml, line 1: groupname: expected text" in found[0]["text"]


def test_a_host_file_that_is_wrong(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "swarm.yaml").write_text("name: 1\n")
    assert cli.swarm(["doctor"]) == 1
    assert "SW9031: swarm.yaml, line 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--join=a:b"], "--join: expected a port"),
        (["--join=" + ",".join(f"sn{n}" for n in range(26))], "26 network nodes are more than 25"),
        (["--profile=x", "--file=y"], "give one of them"),
        (["--cert=x"], "--cert needs --key"),
        (["--sn-api-port=0"], "bad port"),
    ],
)
def test_wrong_command_lines(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.swarm(["doctor", *words]) == 1
    assert complaint in capsys.readouterr().err


# ------------------------------------------------------------------ ports


def test_a_port_that_somebody_has(host: Path, doctor: Doctor) -> None:
    text = (host / "swarm.yaml").read_text()
    number = int(text.partition("p2p_port: ")[2].split()[0])
    with socket.create_server(("127.0.0.1", number)):
        status, found = doctor()
    taken = next(one for one in found if one["code"] == "SW9046")
    assert status == 1
    assert f"port {number} (mesh of the SN) is taken by " in taken["text"]
    assert f"process {os.getpid()}" in taken["text"]


def test_a_port_of_our_own_node() -> None:
    nodes.directory("mine").mkdir(parents=True)
    nodes.register("mine", "sn", os.getpid(), remove=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        found = local.port(number, "API", OSError(98, "in use"))
    assert found == PortFact(number, "API", "in use", "mine", ours=True)


def test_the_listener_says_its_token_and_closes() -> None:
    ports = [free_port(), free_port()]
    loopback = local.address("127.0.0.1")
    listener = local.Listener(ports, b"token", loopback)
    second = local.Listener(ports[:1], b"token", loopback)
    assert (listener.open, listener.problems) == (tuple(ports), {})
    assert list(second.problems) == ports[:1]
    with listener.answering():
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), 5) as stream:
                assert stream.recv(100) == b"token"
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)


# ------------------------------------------------------------------ this host


def test_addresses() -> None:
    assert local.address("127.0.0.1").loopback
    assert not local.address("no-such-host.invalid").resolved
    assert not local.address("192.0.2.77").own


def test_identities(tmp_path: Path) -> None:
    ca, stranger = pki.authority(tmp_path), pki.authority(tmp_path / "elsewhere", 2)
    good = pki.files(tmp_path, "SL-1", ca)
    fact, loaded = local.identity(Keys("SL", "SL", good.cert, good.key, ca.capath))
    assert loaded is not None and fact.problem is None and fact.key_mode == 0o600
    assert [name for name, _ in fact.trusted] == ["CA-1"]
    foreign = pki.files(tmp_path, "SL-2", stranger)
    for keys, code in (
        (Keys("SN", "SN", good.cert, good.key, ca.capath), "SW1207"),
        (Keys("SL", "SL", foreign.cert, foreign.key, ca.capath), "SW1205"),
        (Keys("SL", "SL", good.cert, foreign.key, ca.capath), "SW1209"),
        (Keys("SL", "SL", good.cert, tmp_path / "none.pem", ca.capath), "SW1208"),
    ):
        fact, loaded = local.identity(keys)
        assert loaded is None and fact.problem is not None and fact.problem[0] == code


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wanted = WantedPath("data", str(tmp_path / "file"), "directory")
    assert local.path(wanted).kind == "file"
    assert local.path(WantedPath("data", str(tmp_path / "none"), "directory")).kind == ""


def test_paths_that_are_closed() -> None:
    """For a user who is not root, which this process becomes where it is."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        place.chmod(0o755)
        for name, mode in (("closed", 0o000), ("readable", 0o555)):
            (place / name).mkdir(mode=mode)
        wanted = [WantedPath("data", str(one), "directory", True) for one in place.iterdir()]
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            found = {Path(f.path).name: (f.readable, f.writable) for f in map(local.path, wanted)}
        finally:
            os.seteuid(before)
    assert found == {"closed": (False, False), "readable": (True, False)}


def test_space_of_what_is_not_there_yet(tmp_path: Path) -> None:
    found = local.disk("data", tmp_path / "a" / "b")
    assert found.path == str(tmp_path)
    assert found.free > 0


def test_devices(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    found = local.gpu((("pair 0", "all"),), (("pair 0", str(tmp_path / "kfd")),), None, tmp_path)
    assert found is not None
    assert (found.devices, found.missing) == (2, (("pair 0", str(tmp_path / "kfd")),))
    assert local.gpu((), (), None, tmp_path) is None


# ------------------------------------------------------------------ profiles


DOCKER_HOST = """\
name: h
runtime: docker
address: 10.0.0.1
certificates: {directory: cert, index: 1}
docker: {network: net}
network_node: {join: [10.0.0.2]}
operator:
  learners:
    - {port: 16000, data: data, gpus: 2}
    - {port: 16001}
"""


def test_what_a_profile_asks_for(host: Path) -> None:
    read = ReadHost(host / "swarm.yaml", parse_host(DOCKER_HOST, "swarm.yaml"))
    profile = host / "p.yaml"
    text = profile_text(read).replace(
        "gpus: 2", "gpus: 2\n    - device: [/dev/kfd, /dev/dri:/dev/dri]"
    )
    profile.write_text(text)
    found = of_profile(profile, None, ["10.0.0.2"])
    assert found.runtime == "docker"
    assert found.address == "10.0.0.1"
    assert found.ports == ((16000, "SL of pair 0"), (16001, "SL of pair 1"))
    assert found.sns == ("10.0.0.2",)  # the profile's own SN is this host's
    assert len(found.keys) == 1  # both pairs have the same files
    assert found.networks == ("net",)
    assert found.gpus == (("pair 0", "2"),)
    assert found.devices == (("pair 0", "/dev/kfd"), ("pair 0", "/dev/dri"))
    assert [path.what for path in found.paths if path.must_write] == ["data of pair 0"]
    elsewhere = text.replace("host: 10.0.0.1", "host: 10.0.0.9")
    profile.write_text(elsewhere)
    assert of_profile(profile, None, []).sns == ("10.0.0.9:30304",)
    profile.write_text(text.replace("host: 10.0.0.1", "host: 10.0.0 .9"))
    assert of_profile(profile, None, []).problems[0][0] == "SW7003"
    service = text.replace(
        "    host: 10.0.0.1", "    service: sn_1.example.org\n    host: 10.0.0.1"
    )
    profile.write_text(service)
    assert of_profile(profile, None, []).sns == ("sn_1.example.org:443",)
    volume = text.replace("mType: BIND\n  ", "mType: VOLUME\n  ")
    profile.write_text(volume)
    assert of_profile(profile, "process", []).images == ()
    unpublished = text.replace("slport: 16000", "slport: null")
    profile.write_text(unpublished)
    assert of_profile(profile, None, []).ports == ((16001, "SL of pair 1"),)
    assert of_profile(profile, "process", []).ports[0] == (30305, "SL of pair 0")
    proxied = text.replace("slport: 16000", "slport: 16000\n    slfsservice: sl.example.org")
    profile.write_text(proxied)
    assert of_profile(profile, None, []).ports == ((16001, "SL of pair 1"),)
    in_volume = text.replace("mType: BIND", "mType: VOLUME", 1)
    profile.write_text(in_volume)
    found = of_profile(profile, None, [])
    assert found.notices == ("the identity of pair 0 is in a volume: not checked",)
    assert found.paths[0].expected == "volume"


def test_the_image_of_a_program(host: Path, docker: FakeDocker, doctor: Doctor) -> None:
    docker.answer("system", "info", stdout=json.dumps({"ServerVersion": "27.1"}))
    docker.answer("image", "inspect", "user-ml", stderr="Error: No such image: user-ml", status=1)
    docker.answer("image", "inspect", stdout="[]")
    docker.answer("network", "inspect", stdout="[]")
    (host / "swarm.yaml").write_text(
        DOCKER_HOST.replace("[10.0.0.2]", "[]").replace(", gpus: 2", "")
    )
    _, found = doctor("--image=user-ml", "--address=127.0.0.1")
    assert [one["text"] for one in found if one["code"] == "SW9051"] == [
        "there is no image user-ml (of the user's program)"
    ]


# ------------------------------------------------------------------ engine


def subject() -> Subject:
    return Subject(images=(("img", "of the nodes"),), networks=("net",))


def test_an_engine(docker: FakeDocker, tmp_path: Path) -> None:
    info = {"ServerVersion": "27.1", "Runtimes": {"runc": {}, "nvidia": {}}}
    docker.answer("system", "info", stdout=json.dumps({**info, "DockerRootDir": str(tmp_path)}))
    docker.answer("image", "inspect", stderr="Error: No such image: img", status=1)
    docker.answer("network", "inspect", stdout="[]")
    docker.answer("volume", "inspect", stderr="Error: get v: no such volume", status=1)
    docker.answer("publish=1", stdout="web  ")
    docker.answer("publish=2", stdout="h-sn sn ")
    engine = Engine()
    fact = engine.fact(subject())
    assert (fact.problem, fact.version) == (None, "27.1")
    assert fact.images == (("img", "of the nodes", False),)
    assert fact.networks == (("net", True),)
    assert engine.gpus is True
    assert engine.root == tmp_path
    assert not engine.has_volume("v")
    web = engine.publisher(PortFact(1, "API", "in use", "docker-proxy (process 1)"))
    assert (web.user, web.ours) == ("container web", False)
    mine = engine.publisher(PortFact(2, "API", "in use"))
    assert (mine.user, mine.ours) == ("container h-sn", True)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"stderr": "permission denied while trying to connect", "status": 1}, "SW9003"),
        ({"stdout": '{"ServerErrors": ["Cannot connect to the Docker daemon"]}'}, "SW9003"),
        ({"stdout": "nonsense"}, "SW9003"),
    ],
)
def test_an_engine_that_is_closed(
    docker: FakeDocker,
    answer: dict[str, Any],
    code: str,
) -> None:
    docker.answer("system", "info", **answer)
    problem = Engine().fact(subject()).problem
    assert problem is not None and problem[0] == code


def test_podman_says_the_same_in_other_words(docker: FakeDocker, tmp_path: Path) -> None:
    info = {"version": {"Version": "5.4"}, "store": {"graphRoot": str(tmp_path)}}
    docker.answer("system", "info", stdout=json.dumps(info))
    docker.answer("container", "ls", stderr="Error: publish is an invalid filter", status=125)
    engine = Engine()
    assert (engine.fact(Subject()).version, engine.root) == ("5.4", tmp_path)
    taken = PortFact(1, "API", "in use", "conmon (process 1)")
    assert engine.publisher(taken) == taken


def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = Engine()
    problem = engine.fact(subject()).problem
    assert problem is not None and problem[0] == "SW9002"
    assert engine.gpus is None


# ------------------------------------------------------------------ network nodes


@pytest.fixture
def ca(tmp_path: Path) -> pki.Authority:
    return pki.authority(tmp_path / "pki")


@pytest.fixture
def api(tmp_path: Path, ca: pki.Authority) -> Iterator[LiveApi]:
    with LiveApi(pki.identity(tmp_path / "pki", Role.SN, ca)) as live:
        yield live


@pytest.fixture
def member(tmp_path: Path, ca: pki.Authority) -> Identity:
    return pki.identity(tmp_path / "pki", Role.SL, ca)


def ask(identity: Identity, place: str, *ports: int) -> SnFact:
    asking = reach.Asking(identity, ports, b"t" * 16)
    (fact,), _ = reach.ask_all(asking, [place], (), "")
    return fact


def test_an_sn_that_answers(
    api: LiveApi, member: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, closed = f"127.0.0.1:{api.port}", free_port()
    monkeypatch.setattr(lookback, "LIMIT", 30.0)  # which is not used up
    listener = local.Listener([free_port()], b"t" * 16, local.address("127.0.0.1"))
    with listener.answering():
        fact = ask(member, place, *listener.open)
    assert fact.problem is None
    assert (fact.seen_as, fact.asked, fact.reached) == ("127.0.0.1", *[listener.open] * 2)
    assert fact.skew is not None and abs(fact.skew) < 5
    monkeypatch.setattr(lookback, "LIMIT", 0.3)
    fact = ask(member, place, closed)
    assert (fact.asked, fact.reached) == ((closed,), ())
    api.starting = "it is joining the network"
    assert ask(member, place).starting == "it is joining the network"


def test_a_clock_that_differs(
    api: LiveApi, member: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what an SN says when it looks back, else by the date of its answers."""
    real = lookback.now_ms
    monkeypatch.setattr(lookback, "now_ms", lambda: real() + 100_000)
    monkeypatch.setattr(lookback, "LIMIT", 0.3)
    fact = ask(member, f"127.0.0.1:{api.port}", free_port())
    assert fact.skew is not None and 95 < fact.skew < 105
    monkeypatch.setattr(
        "sentinel.http.formatdate", lambda *_, **__: "Thu, 01 Jan 2026 00:00:00 GMT"
    )
    monkeypatch.setattr(reach.time, "time", lambda: 1_767_225_700.5)  # 100 s later
    fact = ask(member, f"127.0.0.1:{api.port}")
    assert fact.skew == -100.0


def test_sns_that_do_not(api: LiveApi, member: Identity, tmp_path: Path) -> None:
    nobody = ask(member, f"127.0.0.1:{free_port()}").problem
    assert nobody is not None and nobody[0] == "SW5001" and "nothing listens" in nobody[1]
    stranger = pki.identity(tmp_path / "x", Role.SL, pki.authority(tmp_path / "x", 7))
    unknown = ask(stranger, f"127.0.0.1:{api.port}").problem
    assert unknown is not None and unknown[0] == "SW5003"
    # They know us, and we them, but they do not trust the one who issued our certificate.
    trusting = pki.authority(tmp_path / "y", 8)
    trusting.trust(pki.Authority(trusting.issued, 1, tmp_path / "pki/ca/capath"))
    refused = ask(pki.identity(tmp_path / "y", Role.SL, trusting), f"127.0.0.1:{api.port}").problem
    assert refused is not None and refused[0] == "SW5002"


def test_a_node_that_is_listed_is_tried(api: LiveApi, member: Identity) -> None:
    """Meshes and learners of the ledger; what somebody put there cannot do harm."""
    closed = free_port()
    records: list[dict[str, Any]] = [
        {"type": "SN", "name": "sn2", "host": "127.0.0.1", "port": closed, "active": True,
         "p2p": [f"/ip4/127.0.0.1/tcp/{api.port}", "/ip4/1/udp/9", 7]},
        {"type": "SL", "name": "sl1", "host": "127.0.0.1", "port": closed, "active": True},
        {"type": "SN", "name": "bad", "host": "a b", "port": 99999, "active": True, "p2p": None},
        {"type": "SL", "name": "gone", "host": "127.0.0.1", "port": closed, "active": False},
    ]  # fmt: skip

    def fill() -> None:
        for number, record in enumerate(records):
            api.ledger.state = api.ledger.state.put("nodes", str(number), record)

    api.do(fill)
    asking = reach.Asking(member, (), b"t" * 16)
    sns, doors = reach.ask_all(asking, [f"127.0.0.1:{api.port}"], (), "")
    assert [(sn.place, sn.needed, sn.problem is None) for sn in sns] == [
        (f"127.0.0.1:{api.port}", True, True),
        (f"127.0.0.1:{closed}", False, False),
    ]
    assert {(door.what, door.problem) for door in doors} == {
        ("mesh of sn2", ""),
        ("learner sl1", "connection refused"),
    }
    # Through an SN of this host, and without what is this host's own.
    sns, doors = reach.ask_all(asking, [], [("127.0.0.1", api.port)], "127.0.0.1")
    assert (sns, doors) == ((), ())
