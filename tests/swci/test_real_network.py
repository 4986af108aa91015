"""The command interface as its users have it: a process of its own, against real network nodes,
real operators and real trainings, as processes on loopback.

`real-session.txt` is what a whole script prints, with uids, times and ports under names, and
without what a wait tells on its way. `SWARM_REWRITE=1` writes it as it is now.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from swarm.api.client import ApiClient
from swarm.identity import Role
from tests import pki
from tests.processes import Daemon, Processes, free_port, until
from tests.swci.terminal import Terminal

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
GOLDEN = HERE / "real-session.txt"
PATIENCE = 120.0  # seconds
CONTRACT = "defaultbb.cqdb.sml.hpe"
RUNNER = "defaulttaskbb.taskdb.sml.hpe"

TRAIN = """\
import numpy as np
from swarmlearning.numpy import SwarmCallback
swarm = SwarmCallback(
    syncFrequency=1, minPeers=2, totalEpochs=2, adsValData=1.0,
    lossFunction=lambda weights, data: float(weights["w"].mean()),
    metricFunction=lambda weights, data: 1 - float(weights["w"].mean()) / 2,
)
weights = swarm.on_train_begin({"w": np.ones(4, np.float32)})
for epoch in range(2):
    weights = swarm.on_batch_end({"w": weights["w"] / 2})
    swarm.on_epoch_end()
swarm.on_train_end(weights)
"""
CRASH = "raise SystemExit(7)  # before it has said a word to its learner\n"
HOLD = TRAIN.partition("for epoch")[0] + "import time\ntime.sleep(600)\n"


class Site:
    """Two network nodes, an operator with two pairs, and one that listens elsewhere."""

    def __init__(self, run: Processes, directory: Path) -> None:
        self.run, self.directory = run, directory
        self.learner_ports: list[int] = []  # of the first operator's pairs
        self.ca = pki.authority(directory, 1)
        self.sn1 = run.sn("sn1", self.ca, wait=PATIENCE)
        self.sn2 = run.sn("sn2", self.ca, sentinel=self.sn1, wait=PATIENCE)
        self.client: ApiClient = run.client(self.ca, self.sn1)
        self.client.submit("runner.create", {"name": "second"})
        self.swop1 = self._operator("swop1", RUNNER, self.sn1, [0, 1])
        self.swop2 = self._operator("swop2", "second", self.sn2, [0])
        for swop in (self.swop1, self.swop2):
            swop.wait_for("Waiting for new Task…", PATIENCE)
        self.swci = {
            **pki.environment(directory / "cert" / "swci1", Role.SWCI, self.ca, name="swci1"),
            "USR_DIR": str(directory / "usr"),
            "SWARM_HOME": str(directory / "home"),
        }
        self._tasks(directory / "usr" / "taskdefs")

    def _operator(self, name: str, runner: str, sn: Daemon, pairs: list[int]) -> Daemon:
        place = self.directory / name
        place.mkdir()
        nodes = [self._pair(place, f"{name}-{index}", index) for index in pairs]
        profile = {
            "groupname": name, "taskrunner": runner, "policyuri": None,
            "resourcemgr": {"mgrtype": "DOCKER", "accessinfo": {"accesstype": "FROMENV"}},
            "network": "host-1-net",
            "apisrv": {"locator": {"host": None, "port": None, "service": None}},
            "envvars": None,
            "nodes": nodes,
        }  # fmt: skip
        (place / "profile.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
        settings = {
            **pki.environment(self.directory / "cert" / name, Role.SWOP, self.ca, name=name),
            "SWOP_PROFILE": "profile.yaml",
            "USR_DIR": str(place),
            "SN_NODE_IP": sn.host,
            "SN_API_SERVER_PORT": str(sn.port),
            "SWARM_NODE_NAME": name,
            "SWARM_RUNTIME": "PROCESS",
            "SWARM_DATA_DIR": str(place / "data"),
        }
        return self.run.start(name, "swop", settings)

    def _pair(self, place: Path, name: str, index: int) -> dict[str, Any]:
        files = pki.environment(self.directory / "cert" / name, Role.SL, self.ca, name=name)
        private = place / f"user{index}"
        private.mkdir()
        for program, code in (("train", TRAIN), ("crash", CRASH), ("hold", HOLD)):
            (private / f"{program}.py").write_text(code)
        identity = [
            {"attribute": {"aType": kind, "mType": "BIND", "src": files[f"SWARM_ID_{kind}"],
                           "tgt": f"/certs/{kind}"}}
            for kind in ("KEY", "CERT", "CAPATH")
        ]  # fmt: skip
        port = free_port()
        if place.name == "swop1":
            self.learner_ports.append(port)
        about = {
            "idx": index, "identity": identity, "slhostip": "127.0.0.1", "slport": port,
            "slhostname": f"sl{index}", "privatedata": {"src": str(private), "mType": "BIND"},
            "slenvvars": None, "usrhostname": f"user{index}", "usrcontaineropts": None,
            "usrenvvars": None,
        }  # fmt: skip
        return {"slnodedef": about}

    def _tasks(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        head = {"Author": "me", "Prereq": "ROOTTASK"}
        build = {"BuildContext": None, "BuildType": "INLINE", "BuildSteps": ["FROM python"]}
        tasks = {"build": {**head, "TaskType": "MAKE_USER_CONTAINER", "Body": build}}
        for program in ("train", "crash", "hold"):
            body = {
                "Command": f"{program}.py", "Entrypoint": "python3", "WorkingDir": "/tmp/test",
                "Envvars": None, "PrivateContent": "/tmp/test", "SharedContent": None,
            }  # fmt: skip
            tasks[program] = {**head, "Prereq": "build", "TaskType": "RUN_SWARM", "Body": body}
        for name, task in tasks.items():
            text = yaml.safe_dump({"Name": name, "Outcome": name, **task}, sort_keys=False)
            (folder / f"{name}.yaml").write_text(text)

    def script(self, lines: str, *, status: int = 0, output: str = "text", typed: str = "") -> str:
        """What a start-up script prints, and the lines that are typed after it."""
        (self.directory / "usr" / "swci-init").write_text(lines)
        done = subprocess.run(
            [sys.executable, "-m", "swci", f"--output={output}"],
            env={**os.environ, **self.swci},
            cwd=HERE.parents[1],
            input=typed,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def documents(self, *lines: str, status: int = 0) -> list[dict[str, Any]]:
        """What programs get for these lines, typed after the script that chooses a node."""
        typed = "\n".join(lines) + "\n"
        shown = self.script(self.beginning, status=status, output="json", typed=typed)
        return [json.loads(line) for line in shown.splitlines()]

    @property
    def beginning(self) -> str:
        return f"CREATE CONTEXT c WITH IP 127.0.0.1 {self.sn1.port}\nSWITCH CONTEXT c\n"

    def named(self, text: str) -> str:
        """With names in place of what differs from run to run."""
        for uid, node in self.client.table("nodes").items():
            text = text.replace(uid, f"<uid of {node['name']}>")
            text = re.sub(rf"(?<=,){node['port']}(?=,)", "<port>", text)
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "<time>", text)
        text = re.sub(r"after \d+\.\d s", "after <n> s", text)
        text = re.sub(r"OPERATION_ID : [0-9a-f]{16}", "OPERATION_ID : <id>", text)
        text = re.sub(r"block \d+", "block <n>", text)
        text = re.sub(r"model [0-9a-f]{64}", "model <digest>", text)
        text = re.sub(r"(swop\d-\w+-[su]-\d)-\w+", r"\1", text)
        text = re.sub(r"\n {8}[^\n]*", "", text)  # logs of programs
        # One failure ends the task; the other pair may have been quick enough, too.
        text = re.sub(r"(    swop\d-\w+-s-)\d( : [^\n]*\n)(?:\1\d[^\n]*\n)?", r"\1<n>\2", text)
        text = re.sub(r"is (ASSIGNED|RUNNING) with task", "is <at work> with task", text)
        text = re.sub(r"PEER COUNT : \d", "PEER COUNT : <n>", text)  # they leave about now
        # The task is complete with its pairs; their operator says so of itself in its next act.
        text = re.sub(r"(,\d,)(RUNNING|COMPLETE)\n", r"\1<at its end>\n", text)
        text = re.sub(
            r"(SWOP_PEER_STATUS : )(RUNNING|COMPLETE)(\n *SWOP_PEER_STATUS_DESC : )[^\n]*",
            r"\1<at its end>\3<of its pairs>",
            text,
        )
        text = text.replace(str(self.sn1.port), "<sn1>").replace(str(self.sn2.port), "<sn2>")
        waiting = r"(WAITING FOR TASKRUNNER[^\n]*\n)(?:    [^\n]*\n)*?(    (?:TASKRUNNER|WARNING))"
        return re.sub(waiting, r"\1\2", text)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Processes(tmp_path) as run:
        site = Site(run, tmp_path)
        yield site
        if site.swop1.alive():
            site.swop1.terminate()


@pytest.mark.timeout(600)
def test_sessions(site: Site) -> None:
    """One site for all of it: nodes take longer to start than all these sessions."""
    who_is_listed(site)
    whole_script(site)
    at_the_prompt(site)
    what_died_is_not_listed(site)


def whole_script(site: Site) -> None:
    lines = [line for line in GOLDEN.read_text().splitlines() if line.startswith("> ")]
    script = "\n".join(line[2:] for line in lines) + "\n"
    script = script.replace("<sn1>", str(site.sn1.port)).replace("<sn2>", str(site.sn2.port))
    found = site.named(site.script(script))
    expected = "\n".join(lines) + "\n\n" + found
    if os.environ.get("SWARM_REWRITE") == "1":
        GOLDEN.write_text(expected)
    assert GOLDEN.read_text() == expected


def reported(contract: dict[str, Any] | None) -> int:
    """How many learners have said how good the first merged model is."""
    members = contract["members"].values() if contract else ()
    return sum(member["reported_round"] >= 0 for member in members)


def who_is_listed(site: Site) -> None:
    """In the middle of a training: nodes of all kinds, and whom they talk to.

    In documents, for programs. A failure under EXIT ON FAILURE ends the session with status 1, and
    what follows is not executed.
    """
    told = site.documents(
        "CREATE TASK FROM taskdefs/build.yaml", "FINALIZE TASK build",
        f"ASSIGN TASK build TO {RUNNER} WITH 1 PEERS", f"WAIT FOR TASKRUNNER {RUNNER}",
        f"RESET TASKRUNNER {RUNNER}",
        "CREATE TASK FROM taskdefs/hold.yaml", "FINALIZE TASK hold",
        f"ASSIGN TASK hold TO {RUNNER} WITH ALL PEERS",
    )  # fmt: skip
    assert all(document["ok"] for document in told), told
    assert told[5]["result"]["state"] == "COMPLETE"
    key = f"contracts/{CONTRACT}"
    watch = site.client.watch([key])
    assert watch.wait(lambda w: reported(w.records[key]) == 2, PATIENCE)
    *_, listed, performance = site.documents("LIST NODES", f"PERFDATA {CONTRACT}")
    began = {"loss": 1.0, "metric": 0.5, "epochs": 0, "total_epochs": 2, "sl_admin": False}
    assert [{**row, "uid": ""} for row in performance["result"]] == [{**began, "uid": ""}] * 2
    nodes = {node["name"]: node for node in listed["result"]["nodes"]}
    kinds = {site.named(name): node["type"] for name, node in nodes.items()}
    assert kinds == {
        "sn1": "SENTINEL", "sn2": "SN", "swop1": "SWOP", "swop2": "SWOP",
        "swop1-hold-s-0": "SL", "swop1-hold-s-1": "SL",
    }  # fmt: skip
    uids = {name: nodes[name]["uid"] for name in ("sn1", "sn2")}
    parents = {site.named(name): node["parent"] for name, node in nodes.items()}
    assert parents.pop("swop2") == uids["sn2"]
    assert [parents.pop("sn1"), parents.pop("sn2")] == [None, None]
    assert set(parents.values()) == {uids["sn1"]}
    assert nodes["swop2"]["port"] == nodes["sn2"]["port"] == site.sn2.port
    learners = [node["port"] for node in nodes.values() if node["type"] == "SL"]
    assert sorted(learners) == sorted(site.learner_ports)
    rows = site.script(site.beginning + "list nodes\nEXIT\n").splitlines()
    assert {row.count(",") for row in rows[-7:-1]} == {6}
    site.swop2.kill()
    *_, failed = told = site.documents(
        f"RESET TASKRUNNER {RUNNER}", f"RESET CONTRACT {CONTRACT}", "DELETE TASK hold",
        "DELETE TASK build", "CREATE TASK PULL_IMAGE mine me ROOTTASK image", "EXIT ON FAILURE",
        "GET TASK INFO yours", "DELETE TASK mine",
        status=1,
    )  # fmt: skip
    assert [one["ok"] for one in told] == [True] * (len(told) - 1) + [False]
    assert (failed["command"], failed["error"]["code"]) == ("GET TASK INFO yours", "SW8022")
    assert site.client.record("tasks", "mine") is not None


def at_the_prompt(site: Site) -> None:
    """Completion of live names, Ctrl-C in a wait, lines pasted together."""
    (site.directory / "usr" / "swci-init").write_text("PWD\n")
    with Terminal("swci", site.swci) as terminal:
        terminal.shows("SWCI:1 >")
        terminal.type(f"create context c with ip 127.0.0.1 {site.sn1.port}\r")
        terminal.shows("CONTEXT CREATED : c")
        terminal.type("switch context c\r")
        terminal.shows("DEFAULT CONTEXT SET TO : c")
        terminal.shows("SWCI:3 >")
        terminal.type("get task info mi")
        terminal.shows("mine")  # offered beneath the line
        terminal.type("\t\r")
        terminal.shows("TASK NAME : mine")
        terminal.shows("SWCI:4 >")
        terminal.type(f"wait for ip 127.0.0.1 {free_port()}\r")
        terminal.shows("API Server is DOWN! waiting:")
        terminal.type("\x03")
        terminal.shows("INTERRUPTED : what the network has begun goes on")
        terminal.shows("SWCI:5 >")
        terminal.type("\x1b[200~# both\nlist contracts\ndelete task mine\x1b[201~\r")
        assert "defaultbb.cqdb.sml.hpe" in terminal.shows("Task Deleted : mine")
        terminal.shows("SWCI:7 >")
        terminal.type("EXIT\r")
        assert terminal.ends() == 0
    history = site.directory / "home" / "swci_history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert "+get task info mine" in history.read_text()


def what_died_is_not_listed(site: Site) -> None:
    """An operator that was killed half a minute ago; its record on the ledger stays."""

    def listed() -> list[str]:
        nodes = site.documents("LIST NODES")[-1]["result"]["nodes"]
        return [node["name"] for node in nodes]

    until(lambda: listed() == ["sn1", "sn2", "swop1"], PATIENCE, "swop2 is not listed")
    names = [node["name"] for node in site.client.table("nodes").values() if node["active"]]
    assert "swop2" in names
