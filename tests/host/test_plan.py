"""What a host's file stands for: command lines, a profile, and settings to compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import LocalError
from swarm.host.hostfile import ReadHost, parse_host
from swarm.host.plan import Plan, differences, make_plan
from swarm.host.runtimes import launch_of
from swarm.launch.plan import Mount
from swop.profile import Profile, parse_profile
from tests.host.test_hostfile import SMALL, WHOLE

OWN = Path("/home/.up/host-1")


def plan(text: str, directory: Path = Path("/x"), join: str = "") -> Plan:
    return make_plan(ReadHost(directory / "swarm.yaml", parse_host(text, "swarm.yaml")), OWN, join)


def test_command_lines() -> None:
    sn, swop = plan(WHOLE, join="sn.example.org:31304").nodes
    common = "--detach --runtime=docker --name=host-1-{0} --cert=/x/cert/{0}-1-cert.pem "
    common += "--key=/x/cert/{0}-1-key.pem --capath=/x/cert/ca/capath --network=host-1-net "
    assert sn.command == (
        "run-sn " + common.format("sn") + "--host-ip=172.1.1.1 --sn-api-port=30304 "
        "--sn-p2p-port=30303 --sentinel-ip=sn.example.org --sentinel-api-port=31304 "
        "--env=SWARM_LOG_LEVEL=DEBUG --volume=host-1-sn-data:/platform/swarm/SMLNODE"
    )
    assert swop.command == (
        "run-swop " + common.format("swop") + "--sn-ip=172.1.1.1 --sn-api-port=30304 "
        "--usr-dir=/home/.up/host-1/usr --profile-file-name=profile.yaml"
    )


def test_a_founder() -> None:
    (sn,) = plan(SMALL.replace("{}", "{fault_model: crash}")).nodes
    assert sn.argv[-2:] == ("--sentinel", "--fault-model=crash")
    assert not sn.volume


def test_the_run_commands_understand_them(tmp_path: Path) -> None:
    """What they make of the line is what the file says; the files it names exist."""
    capath = tmp_path / "cert/ca/capath"
    capath.mkdir(parents=True)
    for name in ("sn-1-cert.pem", "sn-1-key.pem"):
        (tmp_path / "cert" / name).touch()
    launch = launch_of(plan(WHOLE, tmp_path).nodes[0], None)
    assert launch.name == "host-1-sn"
    assert launch.detach
    assert launch.env["SENTINEL_NODE_IP"] == "172.2.2.2"
    assert launch.env["SN_API_SERVER_PORT"] == "30304"
    assert set(launch.ports) == {(30304, 30304), (30303, 30303)}
    assert Mount(str(capath), str(capath)) in launch.mounts
    assert ("env", "SWARM_LOG_LEVEL=DEBUG") in launch.docker


def profile_of(text: str) -> Profile:
    made = plan(text).profile
    assert made is not None
    return parse_profile(made[1], made[0].name).profile


def test_the_profile() -> None:
    profile = profile_of(WHOLE)
    assert profile.groupname == "mnist"
    assert profile.resourcemgr.mgrtype.value == "DOCKER"
    assert profile.network == "host-1-net"
    assert profile.apisrv.locator.host == "172.1.1.1"
    first, second = profile.pairs
    assert (first.slport, second.slport) == (16000, 16001)
    assert first.usrenvvars == {"VERSION": "1.10"}
    assert first.usrcontaineropts.gpus == "all"
    assert first.privatedata is not None and first.privatedata.src == "/x/data"
    assert second.privatedata is None
    assert {i.attribute.aType.value: i.attribute.src for i in first.identity} == {
        "KEY": "/x/cert/sl-1-key.pem",
        "CERT": "/x/cert/sl-1-cert.pem",
        "CAPATH": "/x/cert/ca/capath",
    }


def test_a_profile_of_its_own(tmp_path: Path) -> None:
    text = SMALL + "operator: {profile: p/mine.yaml}\n"
    with pytest.raises(LocalError, match="SW7001"):
        plan(text, tmp_path)
    (tmp_path / "p").mkdir()
    (tmp_path / "p/mine.yaml").write_text("groupname: 1\n")
    with pytest.raises(LocalError, match=r"SW7003.*mine\.yaml, line 1"):
        plan(text, tmp_path)
    made = plan(WHOLE).profile
    assert made is not None
    (tmp_path / "p/mine.yaml").write_text(made[1])
    assert plan(text, tmp_path).profile is None
    assert f"--usr-dir={tmp_path}/p" in plan(text, tmp_path).nodes[1].argv


def changed(old: str, new: str) -> list[list[str]]:
    before, after = plan(WHOLE).nodes, plan(WHOLE.replace(old, new, 1)).nodes
    return [differences(a.settings, b.settings) for a, b in zip(before, after, strict=True)]


def test_differences() -> None:
    assert changed("x", "x") == [[], []]
    assert changed("api_port: 30304", "api_port: 31304") == [
        ["network_node.api_port: 30304 → 31304"],
        ["contents of the profile: changed", "operator.sn: 172.1.1.1:30304 → 172.1.1.1:31304"],
    ]
    assert changed("LEVEL: DEBUG", "LEVEL: INFO")[0] == [
        "network_node.envvars.SWARM_LOG_LEVEL: changed"  # it may be a secret
    ]
    assert changed("SWARM_LOG_LEVEL: DEBUG", "OTHER: secret")[0] == [
        "network_node.envvars.OTHER: not set → set",
        "network_node.envvars.SWARM_LOG_LEVEL: set → not set",
    ]
    assert changed("data: data", "data: other") == [[], ["contents of the profile: changed"]]
    # Whom it joined is no setting of a node that has.
    assert changed("172.2.2.2", "172.2.2.3") == [[], []]


def test_an_operator_that_uses_an_sn_elsewhere() -> None:
    text = SMALL.replace("network_node: {}", "operator: {sn: '10.0.0.9:31304', learners: [{}]}")
    (swop,) = plan(text).nodes
    assert "--sn-ip=10.0.0.9" in swop.argv
    assert "--sn-api-port=31304" in swop.argv
    profile = profile_of(text)
    assert (profile.apisrv.locator.host, profile.apisrv.locator.port) == ("10.0.0.9", 31304)
    assert profile.pairs[0].slport == 30305
