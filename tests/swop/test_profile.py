"""The profile: what is accepted, and what its author is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import LocalError
from swop.located_yaml import load
from swop.profile import ManagerType, parse_profile, read_profile

PROFILE = """\
groupname: demo
taskrunner: defaulttaskbb.taskdb.sml.hpe
policyuri: null
resourcemgr:
    mgrtype: DOCKER
    accessinfo:
        accesstype: FROMENV
network: host-1-net
apls:
    locator:
        host: 172.1.1.1
        port: 5814
apisrv:
    locator:
        host: 172.1.1.1
        port: 30304
        service: null
envvars:
    - http_proxy: null
    - SL_LOG_LEVEL: INFO
    - VERSION: 1.10
nodes:
    - slnodedef:
        idx: 0
        identity:
            - attribute:
                aType: KEY
                mType: BIND
                src: "/certs/sl-1-key.pem"
                tgt: "/swarm-certs/sl-1-key.pem"
                subPath: null
            - attribute:
                aType: CERT
                mType: BIND
                src: "/certs/sl-1-cert.pem"
                tgt: "/swarm-certs/sl-1-cert.pem"
            - attribute:
                aType: CAPATH
                mType: BIND
                src: "/certs/ca/capath"
                tgt: "/swarm-certs/capath"
        slhostip: 172.1.1.1
        slport: 16000
        slhostname: sl1
        privatedata:
            src: "/data/user1"
            mType: BIND
        slenvvars: null
        usrhostname: user1
        usrcontaineropts:
            - gpus: "device=3,5"
            - device: /dev/kfd
            - device: /dev/dri
        usrenvvars:
            - SCRATCH_DIR: user1
            - ANSWER: no
"""


def refused(text: str) -> LocalError:
    with pytest.raises(LocalError) as caught:
        parse_profile(text, "p.yaml")
    return caught.value


def test_a_usual_profile_is_read() -> None:
    checked = parse_profile(PROFILE, "p.yaml")
    assert checked.warnings == ()
    profile = checked.profile
    assert profile.resourcemgr.mgrtype is ManagerType.DOCKER
    (pair,) = profile.pairs
    assert pair.slport == 16000
    assert pair.usrcontaineropts.gpus == "device=3,5"
    assert pair.usrcontaineropts.device == ["/dev/kfd", "/dev/dri"]


def test_environment_values_keep_their_text_and_null_means_empty() -> None:
    profile = parse_profile(PROFILE, "p.yaml").profile
    assert profile.envvars == {"http_proxy": "", "SL_LOG_LEVEL": "INFO", "VERSION": "1.10"}
    assert profile.pairs[0].usrenvvars == {"SCRATCH_DIR": "user1", "ANSWER": "no"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "mgrtype: DOCKER",
            "mgrtype: PODMAN",
            "p.yaml, line 5: resourcemgr.mgrtype: expected one of 'DOCKER' or 'PROCESS', "
            "found 'PODMAN'",
        ),
        (
            "slport: 16000",
            "slport: many",
            "p.yaml, line 43: nodes[0].slnodedef.slport: expected a whole number, found 'many'",
        ),
        (
            "slport: 16000",
            "slport: 70000",
            "p.yaml, line 43: nodes[0].slnodedef.slport: expected a number of at most 65535, "
            "found 70000",
        ),
        (
            "groupname: demo\n",
            "",
            "p.yaml, line 1: groupname: expected a value for this key, found nothing",
        ),
        (
            "policyuri: null",
            "policyuri: http://policy",
            "p.yaml, line 3: policyuri: expected null (no policy engine is supported), "
            "found 'http://policy'",
        ),
        (
            "network: host-1-net",
            "networks: host-1-net\nnetwork: x",
            "p.yaml, line 8: networks: expected no such key, found it with 'host-1-net'; "
            "did you mean 'network'?",
        ),
        (
            "slport: 16000",
            "slprot: 16000",
            "p.yaml, line 43: nodes[0].slnodedef.slprot: expected no such key, found it with 16000"
            "; did you mean 'slport'?",
        ),
        (
            "slport: 16000",
            "slport: 16000\n        gateway: 1",
            "p.yaml, line 44: nodes[0].slnodedef.gateway: expected no such key, found it with 1",
        ),
        (
            "        slhostname: sl1\n",
            "",
            "p.yaml, line 23: nodes[0].slnodedef.slhostname: "
            "expected a value for this key, found nothing",
        ),
        (
            '- gpus: "device=3,5"',
            "- gpus: some",
            "p.yaml, line 50: nodes[0].slnodedef.usrcontaineropts.gpus: "
            'expected "all", a number from 1, or "device=0,1", found \'some\'',
        ),
        (
            "slport: 16000",
            "slport: 16000\n        slnetworkopts: [{ip: sl1}]",
            "p.yaml, line 44: nodes[0].slnodedef.slnetworkopts.ip: "
            "expected an IPv4 address, found 'sl1'",
        ),
        (
            "network: host-1-net",
            "network: null",
            "p.yaml, line 8: network: expected the name of a Docker network, found null",
        ),
        (
            'tgt: "/swarm-certs/capath"',
            'tgt: "/swarm-certs/sl-1-cert.pem"',
            "p.yaml, line 41: nodes[0].slnodedef.identity[2].attribute.tgt: expected a place of "
            "its own for BIND /certs/ca/capath, found BIND /certs/sl-1-cert.pem there",
        ),
        (
            "aType: KEY",
            "aType: CERT",
            "p.yaml, line 23: nodes[0].slnodedef: identity: expected each aType once, "
            "found CERT twice",
        ),
        (
            "- http_proxy: null",
            "- http_proxy",
            "p.yaml, line 18: envvars: expected null or a list of `NAME: value` entries",
        ),
        (
            'tgt: "/swarm-certs/capath"',
            'tgt: "swarm-certs/capath"',
            "p.yaml, line 37: nodes[0].slnodedef.identity[2].attribute: "
            "expected an absolute path as tgt, found 'swarm-certs/capath'",
        ),
    ],
)
def test_a_problem_names_file_line_key_expected_and_found(old: str, new: str, message: str) -> None:
    error = refused(PROFILE.replace(old, new, 1))
    assert error.code == "SW7003"
    assert error.cause == message


def test_all_problems_are_told_at_once() -> None:
    text = PROFILE.replace("slport: 16000", "slport: x").replace("idx: 0", "idx: -1")
    assert refused(text).cause.count("p.yaml, line") == 2


def test_two_pairs_need_different_numbers_ports_and_addresses() -> None:
    node = PROFILE[PROFILE.index("    - slnodedef") :]
    node = node.replace("slport: 16000", "slport: 16000\n        usrnetworkopts: [{ip: 10.0.0.7}]")
    one = PROFILE[: PROFILE.index("    - slnodedef")] + node
    told = refused(one + node).cause.split("; ")
    assert [text.partition(": expected")[0] for text in told] == [
        "p.yaml, line 59: nodes[1].slnodedef.idx",
        "p.yaml, line 78: nodes[1].slnodedef.slport",
        "p.yaml, line 79: nodes[1].slnodedef.usrnetworkopts",
    ]
    assert told[0].endswith("expected a different idx each, found 0 at nodes[0].slnodedef.idx")
    other = node.replace("idx: 0", "idx: 1").replace("slport: 16000", "slport: null")
    other = other.replace("10.0.0.7", "10.0.0.8")
    assert [pair.idx for pair in parse_profile(one + other, "p").profile.pairs] == [0, 1]
    nameless = (one + other).replace("slhostip: 172.1.1.1", "slhostip: null")
    assert "nodes[1].slnodedef.slhostname: expected a different" in refused(nameless).cause
    assert parse_profile(nameless.replace("DOCKER", "PROCESS"), "p").profile.pairs


def test_a_key_that_never_had_an_effect_is_ignored_with_a_warning() -> None:
    text = PROFILE.replace("slport: 16000", "slport: 16000\n        sharedcontent: null")
    (warning,) = parse_profile(text, "p.yaml").warnings
    assert warning == (
        "p.yaml, line 44: nodes[0].slnodedef.sharedcontent: has no effect, and is ignored"
    )


@pytest.mark.parametrize(
    ("written", "kept"), [("all", "all"), ("2", "2"), ("'\"device=3, 5\"'", "device=3,5")]
)
def test_gpus_may_be_written_as_shells_want_them(written: str, kept: str) -> None:
    text = PROFILE.replace('gpus: "device=3,5"', f"gpus: {written}")
    assert parse_profile(text, "p").profile.pairs[0].usrcontaineropts.gpus == kept


@pytest.mark.parametrize("text", ["", "[]", "just text"])
def test_what_is_no_map_is_refused(text: str) -> None:
    assert refused(text).code == "SW7003"


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "\tx", "a: 1\na: 2", "? [x]\n: 1", "a: !!foo 1"]
)
def test_what_is_no_yaml_is_refused_with_its_line(text: str) -> None:
    error = refused(text)
    assert error.code == "SW7002"
    assert "p.yaml, line" in error.cause


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError) as caught:
        read_profile(tmp_path / "none.yaml")
    assert caught.value.code == "SW7001"


def test_an_alias_stands_for_its_anchor() -> None:
    found = load("a: &x [1, 2]\nb: *x\n")
    assert found.value == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a, *a]", "[" * 2000, "a: " + "1:" * 2000 + "1", "a: !!bool x", "a: !!timestamp x"],
)
def test_yaml_that_costs_more_than_it_says_is_refused(text: str) -> None:
    with pytest.raises(LocalError) as caught:
        parse_profile(text, "p.yaml")
    assert caught.value.code == "SW7002"
