"""The operator at work: real processes, the real state machine, and no network between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import RemoteError
from swop import daemon as daemon_module
from swop.daemon import Daemon
from swop.plan import Host, Program
from swop.process_runtime import ProcessRuntime
from swop.profile import parse_profile
from swop.reach import read_reach
from swop.rules import Rules
from swop.runtime import LOG_LIMIT, RunState
from tests.content.web import serve
from tests.swop.fake_api import FakeNetwork
from tests.swop.programs import eventually
from tests.swop.test_profile import PROFILE

# Stand-ins for the SL: it ends with 0 when its ML wrote "bye", as the real one does.
WAITS_FOR_BYE = (
    "import os, time\nwhile not os.path.exists(os.environ['SWARM_LINK'] + '/bye'): time.sleep(0.02)"
)
GOOD_ML = (
    "import os; print('trained'); open('model', 'w').write('m');"
    "open(os.environ['SWARM_LINK'] + '/bye', 'w')"
)
FOREVER = "import time; print('up', flush=True); time.sleep(300)"


class StandInRuntime(ProcessRuntime):
    """PROCESS, with a program in the SL's place."""

    learner = WAITS_FOR_BYE

    def start(self, program: Program) -> None:
        if program.role == "SL":
            program = replace(program, entrypoint=("python3", "-c"), command=(self.learner,))
        super().start(program)


class Operator:
    """A daemon in a thread."""

    def __init__(self, network: FakeNetwork, name: str, directory: Path, **options: Any) -> None:
        self.network, self.name = network, name
        self.user = directory / "user"
        self.user.mkdir(parents=True, exist_ok=True)
        for file in ("sl-1-key.pem", "sl-1-cert.pem", "ca/capath/ca.pem"):
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            (directory / file).touch()
        text = PROFILE.replace("/certs/", f"{directory}/").replace("/data/user1", str(self.user))
        self.profile = parse_profile(text, "p.yaml").profile
        self.uid = network.world.uid(name)
        self.runtime = StandInRuntime(self.uid, directory / "data")
        self.runtime.learner = options.pop("learner", WAITS_FOR_BYE)
        self.daemon = Daemon(
            name=name,
            host=Host(
                self.uid, "127.0.0.1", 30304, containers=False, rules=options.pop("rules", Rules())
            ),
            profile=self.profile,
            runtime=self.runtime,
            api=network.as_member(name),
            **options,
        )
        self.thread = threading.Thread(target=self.daemon.run, daemon=True)

    def start(self) -> Operator:
        self.thread.start()
        self.network.until(self._is_enrolled)
        return self

    def _is_enrolled(self) -> bool:
        node = self.network.record("nodes", self.uid)
        return node is not None and node["active"]

    def stop(self) -> None:
        self.daemon.stop()
        self.thread.join(15)
        assert not self.thread.is_alive()

    def crash(self) -> None:
        """End without a word, as by SIGKILL; what was started goes on."""
        self.daemon._leave = lambda: None  # type: ignore[method-assign]
        self.stop()

    def pair(self) -> Any:
        """This operator's pair on the ledger."""
        peers = self.network.runner()["peers"].values()
        return next((peer for peer in peers if peer["swop"] == self.uid), None)

    def pair_is(self, state: str) -> bool:
        pair = self.pair()
        return pair is not None and pair["state"] == state


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork("swop-1", "swop-2")


@pytest.fixture
def operators(network: FakeNetwork, tmp_path: Path) -> Iterator[Any]:
    """Makes running operators and ends them."""
    made: list[Operator] = []

    def make(name: str = "swop-1", **options: Any) -> Operator:
        made.append(Operator(network, name, tmp_path / name, **options))
        return made[-1].start()

    yield make
    for operator in made:
        operator.stop()
        names = [found.name for found in operator.runtime.adopt()]
        operator.runtime.remove(names)


def run_task(network: FakeNetwork, operator: Operator, code: str, extra: str = "") -> None:
    """Register a RUN_SWARM whose program is `code` and assign it."""
    (operator.user / "program.py").write_text(code)
    lines = [
        "Command: program.py",
        "Entrypoint: python3",
        "WorkingDir: /tmp/test",
        f"Envvars: [{extra}]",
        "PrivateContent: /tmp/test/",
        "SharedContent: null",
    ]
    network.task("train", "RUN_SWARM", lines, prereq="build")
    network.assign("train", peers=1)


def build(network: FakeNetwork) -> None:
    steps = ["BuildContext: null", "BuildType: INLINE", "BuildSteps:", "- FROM x"]
    network.task("build", "MAKE_USER_CONTAINER", steps)
    network.assign("build")
    network.until(lambda: network.runner()["state"] in ("COMPLETE", "ERROR"))


@pytest.fixture
def built(network: FakeNetwork, operators: Any) -> Operator:
    """An operator that has executed the build task."""
    operator: Operator = operators()
    build(network)
    assert network.runner()["state"] == "COMPLETE", network.runner()
    network.reset()
    return operator


def test_a_build_task_says_that_it_checked_the_local_environment(
    network: FakeNetwork, operators: Any
) -> None:
    operator = operators()
    build(network)
    mine = network.runner()["swops"][operator.uid]
    assert "No image was built under PROCESS" in mine["text"]
    assert "recorded as build-outcome" in mine["text"]
    said = [args["text"] for _, op, args in network.log if op == "runner.status"]
    assert said[0] == "Profile validated"


def test_training_to_the_end_and_reset(network: FakeNetwork, built: Operator) -> None:
    run_task(network, built, GOOD_ML)
    network.until(lambda: network.runner()["state"] == "COMPLETE")
    assert built.pair()["text"].startswith("training finished; last lines of its log:\n")
    assert (built.user / "model").read_text() == "m"
    network.until(lambda: network.runner()["swops"][built.uid]["state"] == "COMPLETE")
    assert len(built.runtime.adopt()) == 2, "they stay until RESET, for their logs"
    network.reset()
    eventually(lambda: not built.runtime.adopt())


def test_a_program_that_crashes_fails_its_peer_at_once(
    network: FakeNetwork, built: Operator
) -> None:
    code = "print('line\t1'); print('x' * 5000); raise SystemExit(3)"
    begin = time.monotonic()
    run_task(network, built, code)
    network.until(lambda: network.runner()["state"] == "ERROR")
    assert time.monotonic() - begin < 10
    text = built.pair()["text"]
    assert text.startswith("the ML program exited with code 3; last lines of its log:\n")
    assert text.endswith("xxx")
    assert len(text) <= LOG_LIMIT
    # Its SL does not go on without it.
    sl = next(f.name for f in built.runtime.adopt() if f.role == "SL")
    eventually(lambda: built.runtime.status(sl).state is RunState.EXITED)


def test_a_program_that_ends_well_before_its_first_sync_fails_its_peer(
    network: FakeNetwork, built: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swop.operator.SL_LEAVES", 1.0)
    run_task(network, built, "print('did nothing')")
    network.until(lambda: network.runner()["state"] == "ERROR")
    assert "but not at the end of a swarm training" in built.pair()["text"]
    assert built.pair()["text"].endswith("did nothing")


def test_a_program_in_loopback_completes_alone(network: FakeNetwork, built: Operator) -> None:
    run_task(network, built, "print('alone')", extra="SWARM_LOOPBACK: 'True'")
    network.until(lambda: network.runner()["state"] == "COMPLETE")


def test_an_sl_that_crashes_fails_the_peer(network: FakeNetwork, operators: Any) -> None:
    operator = operators(learner="print('sl says why'); raise SystemExit(5)")
    build(network)
    network.reset()
    run_task(network, operator, FOREVER)
    network.until(lambda: network.runner()["state"] == "ERROR")
    text = operator.pair()["text"]
    assert text.startswith("the SL exited with code 5")
    assert text.endswith("sl says why")
    ml = next(f.name for f in operator.runtime.adopt() if f.role == "ML")
    eventually(lambda: operator.runtime.status(ml).state is RunState.EXITED)


def test_reset_stops_and_removes(network: FakeNetwork, built: Operator) -> None:
    run_task(network, built, FOREVER)
    network.until(lambda: built.pair_is("RUNNING"))
    network.reset()
    eventually(lambda: not built.runtime.adopt())


def test_kept_programs_are_stopped_and_stay(network: FakeNetwork, operators: Any) -> None:
    operator = operators(keep=True)
    build(network)
    network.reset()
    run_task(network, operator, FOREVER)
    network.until(lambda: operator.pair_is("RUNNING"))
    network.reset()

    def both_ended() -> bool:
        found = operator.runtime.adopt()
        states = [operator.runtime.status(item.name).state for item in found]
        return states == [RunState.EXITED] * 2

    eventually(both_ended)


def test_a_missing_environment_fails_the_task_with_its_name(
    network: FakeNetwork, operators: Any
) -> None:
    operator = operators()
    steps = ["BuildContext: null", "BuildType: INLINE", "BuildSteps:", "- FROM x"]
    network.task("build", "MAKE_USER_CONTAINER", steps)
    run_task(network, operator, GOOD_ML)
    network.until(lambda: network.runner()["state"] == "ERROR")
    assert "SW7009: build-outcome" in network.runner()["text"]


def test_a_pull_without_an_engine_says_so(network: FakeNetwork, operators: Any) -> None:
    operator = operators()
    lines = ["Tag: latest", "RepoName: x", "OrgAndReg: y/", "Auth: null"]
    network.task("pull", "PULL_IMAGE", lines)
    network.assign("pull")
    network.until(lambda: network.runner()["state"] == "COMPLETE")
    text = network.runner()["swops"][operator.uid]["text"]
    assert text.startswith("No image was pulled under PROCESS : the local environment")
    assert operator.runtime.has_image("pull-outcome")


def test_content_for_each_node_and_the_end_at_a_reset(network: FakeNetwork, operators: Any) -> None:
    rules = Rules(reach=read_reach(True, "127.0.0.1", "X"))
    operator = operators(rules=rules)
    with serve() as site:
        site.files["/set.csv"] = b"1,2"
        site.hangs.add("/hangs")

        def assign(name: str, path: str) -> None:
            step = [
                "- Operation: DOWNLOAD",
                f"  Target: {site.url(path)}",
                "  Options: [Out: data/]",
            ]
            body = ["ContentType: SWARMCONTENT", "OpsList:", *step]
            network.task(name, "MAKE_SWARM_USER_CONTENT", body)
            network.assign(name)

        assign("set", "/set.csv")
        network.until(lambda: network.runner()["state"] == "COMPLETE")
        volume = operator.runtime.data / "volumes" / "set-outcome-0"
        assert (volume / "data" / "set.csv").read_bytes() == b"1,2"
        assert "made set-outcome-0: 1 files" in network.runner()["swops"][operator.uid]["text"]
        network.reset()

        assign("slow", "/hangs")
        eventually(lambda: "/hangs" in site.asked)
        network.reset()
        # It is given up, and the operator takes the next task at once.
        assign("again", "/set.csv")
        network.until(lambda: network.runner()["state"] == "COMPLETE")
        names = {path.name for path in (operator.runtime.data / "volumes").iterdir()}
        assert names == {"set-outcome-0", "again-outcome-0"}
        assert list((operator.runtime.data / "filling").iterdir()) == []


def test_content_that_takes_too_long_fails_with_the_reason(
    network: FakeNetwork, operators: Any
) -> None:
    rules = Rules(task_seconds=1, reach=read_reach(True, "127.0.0.1", "X"))
    operators(rules=rules)
    with serve() as site:
        site.hangs.add("/hangs")
        step = f"- {{Operation: EXTRACT, Target: {site.url('/hangs')}, Options: null}}"
        body = ["ContentType: BUILDCONTENT", "OpsList:", step]
        network.task("slow", "MAKE_SWARM_USER_CONTENT", body)
        network.assign("slow")
        network.until(lambda: network.runner()["state"] == "ERROR")
    assert "SW7020: not done within 1 s (SWOP_TASK_MAX_SECONDS)" in network.runner()["text"]


def test_stopping_leaves_the_network_and_nothing_behind(
    network: FakeNetwork, built: Operator
) -> None:
    run_task(network, built, FOREVER)
    network.until(lambda: built.pair_is("RUNNING"))
    begin = time.monotonic()
    built.stop()
    assert time.monotonic() - begin < 10
    assert not network.record("nodes", built.uid)["active"]
    assert network.runner()["state"] == "ERROR", "the task hears of it at once"
    assert built.runtime.adopt() == []


def test_a_killed_operator_finds_its_programs_again(
    network: FakeNetwork, built: Operator, operators: Any
) -> None:
    code = (
        "import os, time\n"
        "while not os.path.exists('go'): time.sleep(0.02)\n"
        "open(os.environ['SWARM_LINK'] + '/bye', 'w')"
    )
    run_task(network, built, code)
    network.until(lambda: built.pair_is("RUNNING"))
    before = {found.name for found in built.runtime.adopt()}
    built.crash()

    again = operators()
    assert {found.name for found in again.runtime.adopt()} == before
    (again.user / "go").touch()
    network.until(lambda: network.runner()["state"] == "COMPLETE")
    assert again.pair()["text"].startswith("training finished")


def test_a_crash_that_nobody_saw_is_reported_after_the_restart(
    network: FakeNetwork, built: Operator, operators: Any
) -> None:
    code = (
        "import os, time\n"
        "while not os.path.exists('go'): time.sleep(0.02)\n"
        "print('the end'); raise SystemExit(9)"
    )
    run_task(network, built, code)
    network.until(lambda: built.pair_is("RUNNING"))
    ml = next(f.name for f in built.runtime.adopt() if f.role == "ML")
    built.crash()
    (built.user / "go").touch()
    eventually(lambda: built.runtime.status(ml).state is RunState.EXITED)

    again = operators()
    network.until(lambda: network.runner()["state"] == "ERROR")
    assert again.pair()["text"].startswith("the ML program exited with code 9")
    assert again.pair()["text"].endswith("the end")


def test_what_an_earlier_operation_left_goes_at_the_start(
    network: FakeNetwork, built: Operator, operators: Any
) -> None:
    run_task(network, built, FOREVER)
    network.until(lambda: built.pair_is("RUNNING"))
    built.crash()
    network.reset()
    assert len(built.runtime.adopt()) == 2
    again = operators()
    eventually(lambda: not again.runtime.adopt())


def test_it_keeps_trying_to_reach_its_sn(
    network: FakeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(daemon_module, "CONNECT_SECONDS", 0.0)
    operator = Operator(network, "swop-1", tmp_path)
    operator.daemon._api.down_for = 2  # type: ignore[attr-defined]
    with caplog.at_level("INFO"):
        operator.start()
        operator.stop()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[1:4] == [
        "Failed to connect to the API Server. Retrying 1 of 60",
        "Failed to connect to the API Server. Retrying 2 of 60",
        "API-Server is UP!",
    ]


def test_an_evicted_operator_ends_without_a_farewell(network: FakeNetwork, tmp_path: Path) -> None:
    operator = Operator(network, "swop-1", tmp_path / "swop-1")
    faults: list[RemoteError] = []

    def run() -> None:
        try:
            operator.daemon.run()
        except RemoteError as fault:
            faults.append(fault)

    operator.thread = threading.Thread(target=run, daemon=True)
    operator.start()
    network.do("swci-1", "node.evict", {"uid": operator.uid})
    operator.thread.join(15)
    assert faults[0].code == "SW4015"
    assert "swop-1 was evicted at height" in faults[0].cause
    assert "node.leave" not in [op for _, op, _ in network.log]
