"""`python -m swop` beside a real network node: killed, restarted, stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from swarm.api.client import ApiClient
from swarm.identity import Role
from swarm.ledger.state import DEFAULT_CONTRACT, DEFAULT_RUNNER
from tests import pki
from tests.content.web import serve
from tests.processes import Daemon, Processes, free_port
from tests.swop.programs import eventually
from tests.swop.test_profile import PROFILE

pytestmark = pytest.mark.slow

WAITS_THEN_CRASHES = (
    "import os, time\nprint('started')\n"
    "while not os.path.exists('go'): time.sleep(0.02)\n"
    "print('the end')\nraise SystemExit(9)\n"
)


class Site:
    """One SN, one operator, and a command interface's client."""

    def __init__(self, run: Processes, directory: Path) -> None:
        self.run = run
        self.ca = pki.authority(directory, 1)
        self.sn = run.sn("sn1", self.ca)
        self.client: ApiClient = run.client(self.ca, self.sn)
        self.user = directory / "user"
        self.user.mkdir()
        self._write_profile(directory)
        self.settings = {
            **pki.environment(directory / "cert" / "swop1", Role.SWOP, self.ca, name="swop1"),
            "SWOP_PROFILE": "profile.yaml",
            "USR_DIR": str(directory),
            "SN_NODE_IP": self.sn.host,
            "SN_API_SERVER_PORT": str(self.sn.port),
            "SWARM_NODE_NAME": "swop1",
            "SWARM_RUNTIME": "PROCESS",
            "SWOP_STREAM_LOGS": "True",
            "SWARM_DATA_DIR": str(directory / "swop-data"),
            "SWOP_CONTENT_HOSTS": "127.0.0.1",
        }
        self.swop: Daemon = run.start("swop1", "swop", self.settings)
        self.swop.wait_for("Waiting for new Task…")

    def _write_profile(self, directory: Path) -> None:
        files = pki.environment(directory / "cert" / "sl1", Role.SL, self.ca, name="sl1")
        text = PROFILE.replace("/certs/sl-1-key.pem", files["SWARM_ID_KEY"])
        text = text.replace("/certs/sl-1-cert.pem", files["SWARM_ID_CERT"])
        text = text.replace("/certs/ca/capath", files["SWARM_ID_CAPATH"])
        text = text.replace("/data/user1", str(self.user))
        text = text.replace(
            "host: 172.1.1.1\n        port: 30304", "host: null\n        port: null"
        )
        text = text.replace("slhostip: 172.1.1.1", "slhostip: 127.0.0.1")
        text = text.replace("slport: 16000", f"slport: {free_port()}")
        (directory / "profile.yaml").write_text(text)

    def task(self, name: str, kind: str, prereq: str, *lines: str) -> None:
        head = {"name": name, "type": kind, "author": "a", "prereq": prereq, "outcome": name}
        self.client.submit("task.create", head)
        self.client.submit("task.append", {"task": name, "index": 1, "lines": list(lines)})
        self.client.submit("task.finalize", {"task": name})

    def assign(self, task: str) -> None:
        args = {"runner": DEFAULT_RUNNER, "task": task, "peers": 1, "target": "*"}
        self.client.submit("runner.assign", args)

    def train(self, code: str, shared: str = "null") -> None:
        """Build, then run `code` as the ML program."""
        steps = ("BuildContext: null", "BuildType: INLINE", "BuildSteps:", "- FROM x")
        self.task("build", "MAKE_USER_CONTAINER", "ROOTTASK", *steps)
        self.assign("build")
        assert self.end()["state"] == "COMPLETE"
        self.client.submit("runner.reset", {"runner": DEFAULT_RUNNER})
        (self.user / "program.py").write_text(code)
        self.task(
            "train",
            "RUN_SWARM",
            "build",
            "Command: program.py",
            "Entrypoint: python3",
            "WorkingDir: /tmp/test",
            "Envvars: null",
            "PrivateContent: /tmp/test",
            f"SharedContent: {shared}",
        )
        self.assign("train")

    def train_again(self, code: str) -> None:
        """Another program, in a contract that is new again."""
        self.client.submit("runner.reset", {"runner": DEFAULT_RUNNER})
        self.client.submit("contract.reset", {"contract": DEFAULT_CONTRACT})
        (self.user / "program.py").write_text(code)
        self.assign("train")

    def wait(self, condition: Any, timeout: float = 40.0) -> dict[str, Any]:
        """Wait until a condition on the taskrunner holds."""
        key = f"taskrunners/{DEFAULT_RUNNER}"
        watch = self.client.watch([key])
        try:
            met = watch.wait(lambda w: w.records[key] and condition(w.records[key]), timeout)
            assert met, watch.records[key]
            record: dict[str, Any] = watch.records[key]
            return record
        finally:
            watch.close()

    def end(self) -> dict[str, Any]:
        return self.wait(lambda record: record["state"] in ("COMPLETE", "ERROR"))

    def programs(self) -> list[psutil.Process]:
        """Living processes of this operator's pairs."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SWARM_PROGRAM") and self._is_ours(process):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _is_ours(self, process: psutil.Process) -> bool:
        return str(self.user.parent) in process.environ().get("SWARM_ID_KEY", process.cwd())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Processes(tmp_path) as run:
        site = Site(run, tmp_path)
        yield site
        if site.swop.alive():
            site.swop.terminate()
        assert site.programs() == []


def pair_runs(record: dict[str, Any]) -> bool:
    return any(peer["state"] == "RUNNING" for peer in record["peers"].values())


def test_a_program_that_crashes_before_its_first_sync(site: Site) -> None:
    site.train("print('about to fail')\nraise ValueError('no data')\n")
    record = site.end()
    assert record["state"] == "ERROR"
    (peer,) = record["peers"].values()
    assert peer["text"].startswith("the ML program exited with code 1; last lines of its log:")
    assert "ValueError: no data" in peer["text"]


TRAINS = (
    "import logging, os, sys\nimport numpy as np\n"
    "from swarmlearning import link\nfrom swarmlearning.session import Session\n"
    "from swarmlearning.settings import Settings\n"
    "session = Session(link.directory(), logging.getLogger('x'))\n"
    "session.open(Settings(1, 1))\nweights = {'w': np.zeros(9, np.float32)}\n"
    "session.sync(weights, weightage=1, samples=1, epochs=1)\n"
)
ENDS = (
    "for merged in session.finish(weights, weightage=1, epochs=1):\n"
    "    session.report(merged.round, 0.5, 0.5, 1, 1)\n"
    "session.bye()\n"
)


def test_the_learner_may_outlive_its_program(site: Site) -> None:
    site.train(TRAINS + ENDS)
    assert ended(site) == ("COMPLETE", "training finished")
    site.train_again(TRAINS + "sys.exit(9)\n")
    assert ended(site) == ("ERROR", "the ML program exited with code 9")
    site.train_again(TRAINS + "sys.exit(0)\n")
    text = "the ML program ended with exit code 0, but not at the end of a swarm training"
    assert ended(site) == ("ERROR", text)


def ended(site: Site) -> tuple[str, str]:
    """State and text of the only pair at the task's end, without the end of its log."""
    (peer,) = site.end()["peers"].values()
    return peer["state"], peer["text"].partition(";")[0]


def test_killed_and_restarted_it_finds_its_pair_and_reports_on(site: Site) -> None:
    site.train(WAITS_THEN_CRASHES)
    site.wait(pair_runs)
    before = {process.pid for process in site.programs()}
    assert len(before) >= 2
    site.swop.kill()
    assert {process.pid for process in site.programs()} == before
    site.swop.start()
    site.swop.wait_for("Found pair")
    (site.user / "go").touch()
    (peer,) = site.end()["peers"].values()
    assert peer["text"].startswith("the ML program exited with code 9")
    assert peer["text"].endswith("the end")


READS = (
    "import pathlib, sys, time\n"
    "print(*sorted(path.read_text() for path in pathlib.Path('set').iterdir()), flush=True)\n"
    "raise SystemExit(9)\n"
)


def test_content_that_a_kill_cuts_off_is_made_anew_and_seen_by_programs(site: Site) -> None:
    with serve() as web:
        web.files = {"/a.csv": b"one", "/b.csv": b"two"}
        web.hangs.add("/b.csv")
        steps = [
            f"- {{Operation: DOWNLOAD, Target: {web.url(p)}, Options: null}}" for p in web.files
        ]
        body = ("ContentType: BUILDCONTENT", "OpsList:", *steps)
        site.task("set", "MAKE_SWARM_USER_CONTENT", "ROOTTASK", *body)
        site.assign("set")
        eventually(lambda: "/b.csv" in web.asked)
        volumes = site.user.parent / "swop-data" / "volumes"
        assert filling_processes(web.port)
        site.swop.kill()
        eventually(lambda: not filling_processes(web.port))  # it does not outlive the operator
        assert list(volumes.iterdir()) == []
        web.hangs.clear()
        site.swop.start()
        record = site.end()
    assert record["state"] == "COMPLETE"
    (swop,) = record["swops"].values()
    assert swop["text"] == "Content Task Completed : made set: 2 files, 6 bytes"
    assert list((volumes.parent / "filling").iterdir()) == []

    site.client.submit("runner.reset", {"runner": DEFAULT_RUNNER})
    site.train(READS, "[{Src: set, Tgt: /tmp/test/set, MType: VOLUME}]")
    (peer,) = site.end()["peers"].values()
    assert peer["text"].endswith("one two")


def filling_processes(port: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if f":{port}/" in process.environ().get("SWARM_CONTENT_JOB", ""):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_stopped_it_leaves_and_takes_its_pairs_along(site: Site) -> None:
    site.train(WAITS_THEN_CRASHES)
    site.wait(pair_runs)
    begin = time.monotonic()
    assert site.swop.terminate(timeout=10.0) == 0
    assert time.monotonic() - begin < 10
    assert site.programs() == []
    record = site.end()
    assert record["state"] == "ERROR"
    nodes = site.client.table("nodes").values()
    assert not next(node for node in nodes if node["type"] == "SWOP")["active"]


def test_evicted_it_says_so_ends_its_pairs_and_itself(site: Site) -> None:
    site.train(WAITS_THEN_CRASHES)
    site.wait(pair_runs)
    nodes = site.client.table("nodes")
    (uid,) = [uid for uid, node in nodes.items() if node["type"] == "SWOP"]
    answer = site.client.submit("node.evict", {"uid": uid})
    assert answer.result["evicted"]
    assert site.swop.process.wait(20) != 0
    site.swop.wait_end()
    assert f"was evicted at height {answer.height} by the votes of" in site.swop.log
    assert site.programs() == []
    assert site.end()["state"] == "ERROR"
