"""`swarm init`: flags, questions, and the files that come of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import LocalError
from swarm.host import init
from swarm.host.hostfile import HostFile, parse_host, read_host
from swarm.identity import Identity, Role
from swarm.launch import cli
from swarm.launch.arguments import UsageError


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(**given: str) -> HostFile:
    given.setdefault("address", "10.0.0.1")
    return parse_host(init.text_of(init.collect(given, None)), "swarm.yaml")


def test_a_first_host() -> None:
    host = made()
    assert host.network_node is not None and host.operator is not None
    assert (host.name, host.runtime, host.network_node.join) == ("host-1", "process", [])
    assert [learner.port for learner in host.operator.learners] == [30305]


def test_a_joining_host_with_docker_and_a_profile() -> None:
    host = made(join="10.0.0.2, sn:31304", runtime="docker", name="b", profile="p.yaml", index="02")
    assert host.network_node is not None and host.operator is not None
    assert host.network_node.join == ["10.0.0.2", "sn:31304"]
    assert host.docker is not None and host.docker.network == "b-net"
    assert (host.operator.profile, host.operator.learners) == ("p.yaml", [])
    assert host.certificates.index == "02"


def test_names_that_yaml_would_misread() -> None:
    host = made(name="1e3", index="0x10", data="no", certificates="a: b # c")
    assert (host.name, host.certificates.index) == ("1e3", "0x10")
    assert host.certificates.directory == "a: b # c"
    assert host.operator is not None and host.operator.learners[0].data == "no"


@pytest.mark.parametrize(
    ("flag", "value", "complaint"),
    [
        ("address", "300.1.1.1", "--address: '300.1.1.1': expected an IP address"),
        ("join", "a:b", "--join: 'a:b': expected a port"),
        ("runtime", "podman", "--runtime: 'podman': expected process or docker"),
        ("api_port", "0", "--api-port: '0': expected a port"),
        ("name", "a/b", "--name: 'a/b': expected letters"),
        ("certificates", "", "--certificates: '': expected something"),
    ],
)
def test_wrong_flags(flag: str, value: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint.replace("[", r"\[")):
        made(**{flag: value})


def test_an_address_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "_own_address", lambda: "")
    with pytest.raises(UsageError, match="--address is missing"):
        init.collect({}, None)


def test_questions() -> None:
    """What is given is not asked for; a wrong answer is asked for again; nothing is the default."""
    asked: list[str] = []
    answers = iter(
        ["b", "10.0.0.9", "10.0.0.2:x", "10.0.0.2", "docker", "", "", "", "", "", "", ""]
    )

    def ask(question: str, default: str) -> str:
        asked.append(f"{question} [{default}]")
        return next(answers)

    found = init.collect({"index": "2", "profile": ""}, ask)
    assert (found["name"], found["join"], found["network"]) == ("b", "10.0.0.2", "b-net")
    assert len(asked) == 11
    assert asked[3].startswith("expected a port from 1 to 65535 behind the colon")
    assert not any("Index" in question for question in asked)


def test_the_command_with_certificates(somewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["init", "--yes", "--address=127.0.0.1", "--make-certificates", "-o", "sub/h.yaml"]
    assert cli.swarm(line) == 0
    said = capsys.readouterr().out
    assert "Copy" in said and "Next: swarm doctor -f sub/h.yaml, then swarm up" in said
    read = read_host(somewhere / "sub/h.yaml")
    cert, key = read.identity("sn")
    assert Identity.load(cert, key, capath=read.capath).role is Role.SN
    assert key.stat().st_mode & 0o777 == 0o600
    assert cli.swarm(line) == 1
    assert "SW9038: sub/h.yaml exists already" in capsys.readouterr().err


def test_nothing_is_written_when_certificates_are_there(somewhere: Path) -> None:
    line = ["--yes", "--address=127.0.0.1", "--make-certificates"]
    assert init.main(line) == 0
    before = (somewhere / "cert/sn-1-key.pem").read_bytes()
    with pytest.raises(LocalError, match="SW1101"):
        init.main([*line, "--force", "--name=other"])
    assert "name: host-1" in (somewhere / "swarm.yaml").read_text()
    assert (somewhere / "cert/sn-1-key.pem").read_bytes() == before


def test_answers_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ends)
    with pytest.raises(UsageError, match="nothing was written"):
        init.collect({}, init._ask)
