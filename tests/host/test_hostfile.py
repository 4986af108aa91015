"""swarm.yaml: what is accepted, and that each mistake is told with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import LocalError
from swarm.host.hostfile import parse_host, read_host, split_place

WHOLE = """\
name: host-1
runtime: docker
address: 172.1.1.1
certificates:
  directory: cert
  index: 1
docker:
  network: host-1-net
network_node:
  join: [172.2.2.2, "sn.example.org:31304"]
  api_port: 30304
  envvars:
    - SWARM_LOG_LEVEL: DEBUG
operator:
  group: mnist
  learners:
    - port: 16000
      data: data
      envvars: {VERSION: 1.10}
      gpus: all
    - port: 16001
"""
SMALL = """\
name: h
address: 127.0.0.1
certificates: {directory: cert, index: 1}
network_node: {}
"""


def refused(text: str) -> str:
    with pytest.raises(LocalError) as caught:
        parse_host(text, "swarm.yaml")
    assert caught.value.code == "SW9031"
    return caught.value.cause


def test_a_whole_file() -> None:
    host = parse_host(WHOLE, "swarm.yaml")
    assert host.network_node is not None and host.operator is not None
    assert host.network_node.join == ["172.2.2.2", "sn.example.org:31304"]
    assert host.network_node.envvars == {"SWARM_LOG_LEVEL": "DEBUG"}
    assert host.operator.learners[0].envvars == {"VERSION": "1.10"}
    assert host.operator.learners[0].gpus == "all"
    assert host.certificates.index == "1"


def test_a_small_one_founds_a_network() -> None:
    host = parse_host(SMALL, "swarm.yaml")
    assert host.network_node is not None
    assert (host.network_node.join, host.network_node.api_port) == ([], 30304)
    assert host.operator is None


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "runtime: docker",
            "runtime: podman",
            "line 2: runtime: expected 'process' or 'docker', found 'podman'",
        ),
        ("address: 172.1.1.1", "address: 1.2.3.400", "line 3: address: expected an IP address"),
        ("  directory: cert\n", "", "line 4: certificates.directory: expected a value"),
        ("index: 1", "index: ../1", "line 6: certificates.index: expected text that fits"),
        ("api_port: 30304", "api_port: 303040", "line 11: network_node.api_port: expected a num"),
        ("api_port: 30304", "api-port: 3", "line 11: network_node.api-port: expected no such key"),
        ('"sn.example.org:31304"', "'a:b'", "line 10: network_node.join[1]: expected a port"),
        ("port: 16001", "port: 16000", "line 14: operator: learners: expected a different port"),
        ("port: 16001", "port: 30304", "line 1: expected a different port for each node"),
        ("group: mnist", "profile: p.yaml", "line 14: operator: expected either profile or"),
        ("docker:\n  network: host-1-net\n", "", "line 1: docker: expected its network"),
        ("group: mnist", "sn: 1.1.1.1", "line 1: operator.sn: expected no such key"),
        ("name: host-1", "name: host-1\nname: host-2", "line 2: key 'name' occurs twice"),
        ("index: 1", "index: [", "line 8: expected ',' or ']'"),
    ],
)
def test_mistakes(old: str, new: str, complaint: str) -> None:
    assert old in WHOLE
    text = refused(WHOLE.replace(old, new, 1))
    assert text.startswith("swarm.yaml, line ")
    assert complaint in text


def test_an_operator_alone_needs_an_sn() -> None:
    alone = SMALL.replace("network_node: {}", "operator: {profile: p.yaml}")
    assert "operator.sn: expected an SN to use" in refused(alone)
    parse_host(alone.replace("p.yaml}", "p.yaml, sn: '10.0.0.1:31304'}"), "swarm.yaml")
    assert "expected network_node, operator, or both" in refused(
        SMALL.replace("network_node: {}\n", "")
    )


def test_only_a_founder_chooses_the_fault_model() -> None:
    both = SMALL.replace("{}", "{join: [a], fault_model: crash}")
    assert "only the founder chooses it" in refused(both)


def test_all_mistakes_at_once() -> None:
    text = refused(SMALL.replace("name: h", "name: '-'").replace("index: 1", "index: ''"))
    assert text.count("swarm.yaml, line") == 2


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SMALL)
    read = read_host(tmp_path / "x.yaml")
    assert read.identity("sl") == (tmp_path / "cert/sl-1-cert.pem", tmp_path / "cert/sl-1-key.pem")
    assert read.capath == tmp_path / "cert/ca/capath"
    assert read.api == ("127.0.0.1", 30304)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"SW9030.*swarm init"):
        read_host(tmp_path / "swarm.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(LocalError, match=r"SW9030.*no UTF-8"):
        read_host(tmp_path / "binary")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.1", ("10.0.0.1", 30304)),
        ("sn.example.org:1", ("sn.example.org", 1)),
        ("::1", ("::1", 30304)),
        ("[::1]:31304", ("::1", 31304)),
        ("[::1]", ("::1", 30304)),
        ("sn_1.example.org.", ("sn_1.example.org.", 30304)),
    ],
)
def test_places(text: str, place: tuple[str, int]) -> None:
    assert split_place(text) == place


@pytest.mark.parametrize(
    "text", ["", "a:0", "a:65536", "a:x", "[::1", "[::1]x", "a b", "1.2.3", "-"]
)
def test_no_places(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        split_place(text)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda b: b.decode("latin-1")))
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        parse_host(text, "swarm.yaml")
    except LocalError as error:
        assert error.code == "SW9031"
