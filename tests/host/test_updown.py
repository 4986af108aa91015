"""`up` and `down` with a runtime in memory: order, again, changes, failures, strangers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from swarm.errors import LocalError
from swarm.host import record
from swarm.host.hostfile import ReadHost, parse_host
from swarm.host.plan import Node, make_plan
from swarm.host.record import Started
from swarm.host.updown import Host

TEXT = """\
name: host-1
address: 127.0.0.1
certificates: {directory: cert, index: 1}
network_node: {}
operator: {learners: [{port: 16000}]}
"""


@dataclass
class FakeRuntime:
    """Nodes that are nothing but a handle."""

    runs: dict[str, str] = field(default_factory=dict)
    data: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    refuse: str = ""
    dies: str = ""
    count: int = 0

    def start(self, node: Node) -> str:
        self.calls.append(f"start {node.name}")
        if node.name == self.refuse:
            raise LocalError("SW9003", "docker container create: no")
        self.data.add(node.name)
        self.count += 1
        if node.name != self.dies:
            self.runs[node.name] = f"run {self.count}"
        return self.runs.get(node.name, "gone")

    def running(self, name: str) -> str:
        return self.runs.get(name, "")

    def has_data(self, node: Node) -> bool:
        return node.name in self.data

    def tail(self, name: str, lines: int) -> str:
        return f"log of {name}"

    def stop(self, node: Started, remove: bool) -> None:
        self.calls.append(f"stop {node.name}{' and remove its data' if remove else ''}")
        self.runs.pop(node.name, None)
        if remove:
            self.data.discard(node.name)


class Desk:
    """A host of the fake runtime, with a clock that only waiting moves."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.runtime = FakeRuntime()
        self.said: list[str] = []
        self.time = 0.0
        self.ready: Callable[[Node, float], str] = lambda node, elapsed: ""
        self.host = Host(
            self.runtime,
            lambda node, elapsed: self.ready(node, elapsed),
            self.said.append,
            lambda: self.time,
            self._pause,
        )

    def _pause(self, seconds: float) -> None:
        self.time += seconds

    def up(self, text: str = TEXT, *, restart: bool = False) -> list[str]:
        """What was called, and what was said."""
        read = ReadHost(self.path / "swarm.yaml", parse_host(text, "swarm.yaml"))
        self.said.clear()
        self.runtime.calls.clear()
        with record.exclusive("host-1") as own:
            self.host.up(read, make_plan(read, own), limit=30, restart=restart)
        return self.runtime.calls + self.said

    def down(self, *, remove: bool = False) -> list[str]:
        known = record.read("host-1")
        assert known is not None
        self.said.clear()
        self.runtime.calls.clear()
        self.host.down(known, remove=remove)
        return self.runtime.calls + self.said


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "nodes"))
    return Desk(tmp_path)


UP = [
    "start host-1-sn",
    "start host-1-swop",
    "host-1-sn: starting",
    "host-1-sn: ready after 0.0 s",
    "host-1-swop: starting",
    "host-1-swop: ready after 0.0 s",
]


def test_up_and_down(desk: Desk) -> None:
    assert desk.up() == UP
    profile = record.directory("host-1") / "usr/profile.yaml"
    assert "slport: 16000" in profile.read_text()
    assert (record.directory("host-1") / "host.json").stat().st_mode & 0o777 == 0o600
    assert record.directory("host-1").stat().st_mode & 0o777 == 0o700
    assert record.recorded() == ["host-1"]
    assert desk.down() == [
        "stop host-1-swop",
        "stop host-1-sn",
        "host-1-swop: stopping",
        "host-1-sn: stopping",
    ]
    assert record.read("host-1") is None
    assert not profile.exists()


def test_up_again_changes_nothing(desk: Desk) -> None:
    desk.up()
    assert desk.up() == ["host-1-sn: runs already", "host-1-swop: runs already"]


def test_up_starts_what_has_ended(desk: Desk) -> None:
    desk.up()
    del desk.runtime.runs["host-1-swop"]
    assert desk.up()[:2] == ["stop host-1-swop", "start host-1-swop"]
    assert desk.up() == ["host-1-sn: runs already", "host-1-swop: runs already"]


def test_changed_settings_are_told_and_applied_when_asked(desk: Desk) -> None:
    desk.up()
    other = TEXT.replace("port: 16000", "port: 16001")
    with pytest.raises(LocalError) as caught:
        desk.up(other)
    assert str(caught.value) == (
        "SW9032: host-1-swop: contents of the profile: changed; apply them with "
        "`swarm up --restart`, or `swarm down` and `swarm up`"
    )
    assert desk.runtime.calls == []
    assert "16000" in (record.directory("host-1") / "usr/profile.yaml").read_text()
    assert desk.up(other, restart=True) == [
        "stop host-1-swop",
        "start host-1-swop",
        "host-1-swop: stopping, as its settings changed",
        "host-1-sn: runs already",
        "host-1-swop: starting",
        "host-1-swop: ready after 0.0 s",
    ]
    assert desk.up(other)[-1] == "host-1-swop: runs already"


def test_a_node_that_is_not_in_the_file_any_more(desk: Desk) -> None:
    desk.up()
    less = TEXT.partition("operator")[0]
    with pytest.raises(LocalError, match="host-1-swop: is not in the file any more"):
        desk.up(less)
    desk.up(less, restart=True)
    assert set(desk.runtime.runs) == {"host-1-sn"}
    assert desk.down()[-1] == "host-1-sn: stopping"


def test_another_runtime_is_a_change_of_everything(desk: Desk) -> None:
    desk.up()
    docker = TEXT.replace("address", "runtime: docker\ndocker: {network: n}\naddress")
    with pytest.raises(LocalError, match="runtime: process → docker"):
        desk.up(docker, restart=True)


@pytest.mark.parametrize("how", ["refuse", "dies", "late"])
def test_a_failed_start_leaves_nothing(desk: Desk, how: str) -> None:
    if how == "late":
        desk.ready = lambda node, elapsed: "it has not enrolled yet" * (node.name == "host-1-swop")
    else:
        setattr(desk.runtime, how, "host-1-swop")
    with pytest.raises(LocalError) as caught:
        desk.up()
    assert caught.value.code == {"refuse": "SW9003", "dies": "SW9005", "late": "SW9034"}[how]
    if how == "late":
        assert "is not ready after 30 s: it has not enrolled yet" in str(caught.value)
    assert desk.runtime.calls[-2:] == [
        "stop host-1-swop and remove its data",
        "stop host-1-sn and remove its data",
    ]
    assert "--- the last lines of host-1-swop ---\nlog of host-1-swop\n---" in desk.said
    assert not desk.runtime.runs
    assert not desk.runtime.data
    assert record.recorded() == []


def test_a_failed_start_spares_what_ran_before(desk: Desk) -> None:
    desk.up()
    del desk.runtime.runs["host-1-swop"]
    desk.runtime.dies = "host-1-swop"
    with pytest.raises(LocalError, match="SW9005"):
        desk.up()
    assert set(desk.runtime.runs) == {"host-1-sn"}
    assert "stop host-1-swop" in desk.runtime.calls  # and its data stay
    assert "stop host-1-sn" not in desk.runtime.calls
    desk.runtime.dies = ""
    assert desk.up()[-3:] == ["host-1-sn: runs already", *UP[-2:]]


def test_an_interrupted_start_leaves_nothing(desk: Desk) -> None:
    def interrupted(node: Node, elapsed: float) -> str:
        raise KeyboardInterrupt

    desk.ready = interrupted
    with pytest.raises(KeyboardInterrupt):
        desk.up()
    assert not desk.runtime.runs
    assert record.recorded() == []


def test_waiting_is_told_now_and_then(desk: Desk) -> None:
    desk.ready = lambda node, elapsed: (
        "" if elapsed > 28 else "blocks are fetched" if elapsed > 3 else "the ledger is opened"
    )
    desk.up(TEXT.partition("operator")[0])
    waits = [line for line in desk.said if "waiting" in line]
    assert waits == [
        "host-1-sn: waiting: the ledger is opened",
        "host-1-sn: waiting: blocks are fetched",
        "host-1-sn: waiting: blocks are fetched",
    ]
    assert desk.said[-1] == "host-1-sn: ready after 28.2 s"


def test_strangers_are_left_alone(desk: Desk) -> None:
    desk.runtime.runs["host-1-sn"] = "by hand"
    with pytest.raises(LocalError, match="SW9033: host-1-sn runs"):
        desk.up()
    assert desk.runtime.calls == []
    del desk.runtime.runs["host-1-sn"]
    desk.up()
    desk.runtime.runs["host-1-sn"] = "by hand"  # ours ended, and somebody started another one
    assert desk.down() == [
        "stop host-1-swop",
        "host-1-swop: stopping",
        "host-1-sn: left alone, as it was started by somebody else since",
    ]
    assert desk.runtime.runs == {"host-1-sn": "by hand"}


def test_an_up_that_was_cut_off_leaves_no_orphan(desk: Desk) -> None:
    """Killed between the start and the note of its handle."""
    desk.up()
    known = record.read("host-1")
    assert known is not None
    swop = known.nodes[1]
    record.write(known.with_node(Started(swop.component, swop.name, "", swop.settings)))
    assert desk.up()[-1] == "host-1-swop: runs already"
    assert "stop host-1-swop" in desk.down()


def test_down_removes_data_when_asked(desk: Desk) -> None:
    desk.up()
    desk.runtime.runs.clear()
    assert desk.down(remove=True)[2:] == [
        "host-1-swop: has ended already",
        "host-1-sn: has ended already",
    ]
    assert not desk.runtime.data


def test_one_at_a_time(desk: Desk) -> None:
    with record.exclusive("host-1"), pytest.raises(LocalError, match="SW9036"):
        desk.up()


def test_a_damaged_record(desk: Desk) -> None:
    desk.up()
    (record.directory("host-1") / "host.json").write_text("{")
    with pytest.raises(LocalError, match="SW9037"):
        desk.up()
