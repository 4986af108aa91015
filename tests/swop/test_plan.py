"""From profile and task to programs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swarm.errors import LocalError, RemoteError
from swop.content import ContentRequest
from swop.filling import Step
from swop.plan import (
    Host,
    Mount,
    Pair,
    RunTask,
    build_proxies,
    plan_pairs,
    sn_address,
)
from swop.profile import MountType, Profile, parse_profile
from swop.pulling import Login, PullRequest
from swop.rules import Rules
from swop.runtime import BuildRequest
from swop.tasks import understand
from tests.swop.test_profile import PROFILE

HOST = Host(uid="a" * 32, sn_host="10.0.0.1", sn_port=30304, user="1000:1000")
TASK = RunTask(
    name="train",
    image="user-env",
    entrypoint=("python3",),
    command=("model/x.py",),
    workdir="/tmp/test",
    environment={"MAX_EPOCHS": "2", "SCRATCH_DIR": "task", "SWARM_LINK": "elsewhere"},
    private_target="/tmp/test",
    shared=(Mount(MountType.BIND, "/project/model", "/tmp/test/model"),),
)


def profile(**changes: str) -> Profile:
    text = PROFILE
    for old, new in changes.items():
        text = text.replace({"port": "slport: 16000", "ip": "slhostip: 172.1.1.1"}[old], new)
    return parse_profile(text, "p.yaml").profile


def pair(text: Profile | None = None, task: RunTask = TASK, host: Host = HOST) -> Pair:
    (found,) = plan_pairs(text or profile(), task, "0123456789abcdef", host)
    return found


def test_names_follow_the_usual_form_and_are_the_same_again() -> None:
    found = pair()
    digest = found.sl.name.rpartition("-")[2]
    assert found.name == found.sl.name == f"demo-train-s-0-{digest}"
    assert found.ml.name == f"demo-train-u-0-{digest}"
    assert found.sl.link == found.ml.link == f"swop-demo-swif-0-{digest}"
    assert pair() == found
    other = replace(HOST, uid="b" * 32)
    assert pair(host=other).name != found.name, "two operators may share an engine and a group"


def test_long_and_odd_names_still_fit() -> None:
    found = pair(task=replace(TASK, name="träin " + "x" * 150))
    assert len(found.name) <= 128
    assert found.name.isascii() and " " not in found.name


def test_the_sl_gets_its_wiring_above_all_variables() -> None:
    text = PROFILE.replace(
        "slenvvars: null",
        "slenvvars:\n            - SL_LOG_LEVEL: DEBUG\n            - SL_FS_PORT: 1",
    )
    sl = pair(parse_profile(text, "p").profile).sl
    assert sl.environment["SL_LOG_LEVEL"] == "DEBUG", "the node wins over the profile"
    assert sl.environment["SL_FS_PORT"] == "16000", "the wiring wins over both"
    assert sl.environment["SL_LISTEN_PORT"] == "30305"
    assert sl.environment["THIS_NODE_IP"] == "172.1.1.1"
    assert sl.environment["SN_NODE_IP"] == "10.0.0.1"
    assert sl.environment["SWARM_NODE_NAME"] == sl.name
    assert sl.environment["SWARM_ID_CAPATH"] == "/swarm-certs/capath"
    assert sl.published == (16000, 30305)
    assert all(mount.read_only for mount in sl.mounts)


def test_the_ml_gets_the_task_overridden_by_the_node() -> None:
    ml = pair().ml
    assert ml.environment["MAX_EPOCHS"] == "2"
    assert ml.environment["SCRATCH_DIR"] == "user1"
    assert ml.environment["SWARM_LINK"] == "/tmp/hpe-swarm"
    assert "http_proxy" not in ml.environment, "envvars are the SLs'"
    assert [mount.target for mount in ml.mounts] == ["/tmp/test", "/tmp/test/model"]
    assert ml.user == "1000:1000"
    assert ml.published is None


def test_an_unpublished_sl_is_reached_by_name() -> None:
    sl = pair(profile(port="slport: null", ip="slhostip: null")).sl
    assert sl.published is None
    assert sl.environment["SL_FS_PORT"] == "30305"
    assert sl.environment["THIS_NODE_IP"] == "sl1"


def test_without_containers_the_sl_listens_where_it_is_announced() -> None:
    host = replace(HOST, containers=False)
    sl = pair(host=host).sl
    assert sl.environment["SL_LISTEN_PORT"] == sl.environment["SL_FS_PORT"] == "16000"
    sl = pair(profile(port="slport: null", ip="slhostip: null"), host=host).sl
    assert sl.environment["SL_LISTEN_PORT"] == "30305"
    assert sl.environment["THIS_NODE_IP"] == "127.0.0.1"


def test_identity_from_a_volume_is_mounted_once() -> None:
    text = PROFILE
    for name in ("sl-1-key.pem", "sl-1-cert.pem", "ca/capath"):
        tgt = "capath" if name == "ca/capath" else name
        text = text.replace(f'src: "/certs/{name}"', "src: sl-identity")
        text = text.replace(
            f'tgt: "/swarm-certs/{tgt}"', f'tgt: "/id"\n                subpath: {name}'
        )
    text = text.replace("mType: BIND", "mType: VOLUME").replace("subPath: null\n", "\n", 1)
    sl = pair(parse_profile(text, "p").profile).sl
    assert sl.environment["SWARM_ID_KEY"] == "/id/sl-1-key.pem"
    assert sl.environment["SWARM_ID_CAPATH"] == "/id/ca/capath"
    assert sl.mounts == (Mount(MountType.VOLUME, "sl-identity", "/id", read_only=True),)


def test_a_relative_bind_is_refused() -> None:
    task = replace(TASK, shared=(Mount(MountType.BIND, "model", "/tmp/test/model"),))
    with pytest.raises(LocalError, match="absolute path, found 'model'"):
        pair(task=task)


@pytest.mark.parametrize("value", ["True", "true", "1", "YES"])
def test_loopback_is_recognised(value: str) -> None:
    task = replace(TASK, environment={"SWARM_LOOPBACK": value})
    assert not pair(task=task).ml.takes_part
    assert pair().ml.takes_part


def test_the_profile_names_the_sn_before_the_command_line() -> None:
    assert sn_address(profile(), "1.2.3.4", 5) == ("172.1.1.1", 30304)
    text = PROFILE.replace("        host: 172.1.1.1\n        port: 30304", "        host: null")
    assert sn_address(parse_profile(text, "p").profile, "1.2.3.4", 5) == ("1.2.3.4", 5)
    assert sn_address(parse_profile(text, "p").profile, "1.2.3.4", None) == ("1.2.3.4", 30304)
    with pytest.raises(LocalError, match="SW7004"):
        sn_address(parse_profile(text, "p").profile, "", None)
    text = PROFILE.replace("service: null", "service: api.sn-1.swarm")
    assert sn_address(parse_profile(text, "p").profile, "", None) == ("api.sn-1.swarm", 443)


def test_proxies_are_build_arguments() -> None:
    assert build_proxies(profile()) == {"http_proxy": ""}


def task_record(kind: str, *body: str, **changes: Any) -> dict[str, Any]:
    head = {"name": "t", "type": kind, "prereq": "p", "outcome": "image", "body": list(body)}
    return {**head, **changes}


RUN = (
    "Command: model/x.py --title 'two words'",
    "Entrypoint: python3 -u",
    "WorkingDir: /w",
    "Envvars: [{A: '010'}, {B: null}]",
    "PrivateContent: null",
    "SharedContent: [{Src: vol, Tgt: /s, MType: VOLUME}]",
)


def test_a_run_task_is_understood() -> None:
    found = understand(task_record("RUN_SWARM", *RUN), {"outcome": "user-env"}, profile(), HOST)
    assert isinstance(found, RunTask)
    assert found.command == ("model/x.py", "--title", "two words")
    assert found.entrypoint == ("python3", "-u")
    assert found.environment == {"A": "010", "B": ""}
    assert found.image == "user-env"
    assert found.shared == (Mount(MountType.VOLUME, "vol", "/s"),)


def test_a_build_task_is_understood() -> None:
    lines = ("BuildContext: vol", "BuildType: INLINE", "BuildSteps: ['FROM x', 'RUN y']")
    found = understand(task_record("MAKE_USER_CONTAINER", *lines), None, profile(), HOST)
    assert found == BuildRequest("image", ("FROM x", "RUN y"), "vol", {"http_proxy": ""})


def test_a_pull_is_understood() -> None:
    rules = Rules(logins="/logins")
    host = replace(HOST, rules=rules)
    for organisation in ("reg.example:5000/team/", "reg.example:5000/team"):
        head = ("Tag: '2.1'", "RepoName: tool", f"OrgAndReg: {organisation}")
        found = understand(task_record("PULL_IMAGE", *head, "Auth: null"), None, profile(), host)
        repository = "reg.example:5000/team/tool"
        assert found == PullRequest("t", "image", repository, "2.1", None, "/logins")
        assert found.reference == f"{repository}:2.1" and found.registry == "reg.example:5000"
    by_file = understand(task_record("PULL_IMAGE", *head, "Auth: c.json"), None, profile(), host)
    assert isinstance(by_file, PullRequest) and by_file.login == "c.json"
    login = "Auth: {Username: me, Password: secret}"
    by_name = understand(task_record("PULL_IMAGE", *head, login), None, profile(), host)
    assert isinstance(by_name, PullRequest) and by_name.login == Login("me", "secret")


def test_content_is_understood() -> None:
    steps = "OpsList: [{Operation: EXTRACT, Target: 'https://h/x.zip', Options: [Out: a]}]"
    rules = Rules(files="/srv")
    host = replace(HOST, rules=rules)
    for kind, volumes in (("BUILDCONTENT", ("image",)), ("SWARMCONTENT", ("image-0",))):
        record = task_record("MAKE_SWARM_USER_CONTENT", f"ContentType: {kind}", steps)
        found = understand(record, None, profile(), host)
        assert isinstance(found, ContentRequest)
        assert found.volumes == volumes
        assert found.steps == (Step("EXTRACT", "https://h/x.zip", "a"),)
        assert found.rules == rules and found.user == "1000:1000"
        assert found.proxies == {"http_proxy": ""}


def test_what_cannot_be_done_is_said() -> None:
    lines = ("BuildContext: vol", "BuildType: REMOTE", "BuildSteps: ['FROM x']")
    with pytest.raises(LocalError, match="REMOTE is not available yet"):
        understand(task_record("MAKE_USER_CONTAINER", *lines), None, profile(), HOST)
    with pytest.raises(LocalError, match="its Prereq p does not exist"):
        understand(task_record("RUN_SWARM", *RUN), None, profile(), HOST)
    broken = [line.replace("'two words'", "'two words") for line in RUN]
    with pytest.raises(LocalError, match="SW7013: task t: Command"):
        understand(task_record("RUN_SWARM", *broken), {"outcome": "x"}, profile(), HOST)
    relative = [line.replace("/w", "ww") for line in RUN]
    with pytest.raises(LocalError, match="WorkingDir must be an absolute path"):
        understand(task_record("RUN_SWARM", *relative), {"outcome": "x"}, profile(), HOST)
    with pytest.raises(RemoteError, match="SW8010"):
        understand(task_record("RUN_SWARM", "Command: x"), {"outcome": "x"}, profile(), HOST)
