"""Network nodes, operators with pairs of learner and program as processes, and commands."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from swarm.api.client import ApiClient
from swarm.identity import Role
from swarmlearning.swci import answers
from swci.commands import language
from swci.output import LinesOutput
from swci.session import Session
from tests import pki
from tests.processes import Daemon, Processes, free_port

BOUND = 90.0  # seconds for a task; never reached when things work

# A training of a few steps. Files in its directory make it wait (`hold`) or fail (`crash`).
PROGRAM = """\
import os, sys, time
from pathlib import Path
import numpy as np
from swarmlearning.numpy import SwarmCallback

def passes(name):
    print("waits for the end of", name, flush=True)
    while Path(name).exists():
        time.sleep(0.02)

if Path("crash").exists():
    sys.exit("no data here")
passes("hold")
value = float(Path("value").read_text())
weights = {"w": np.full(1000, value, np.float32)}
swarm = SwarmCallback(syncFrequency=1, minPeers=int(os.environ["MIN_PEERS"]),
                      trainingContract=os.environ["CONTRACT"], totalEpochs=1)
weights = swarm.on_train_begin(weights)
passes("hold-in-training")
for step in range(int(os.environ["STEPS"])):
    weights = swarm.on_batch_end(weights)
weights = swarm.on_train_end(weights)
np.save("result.npy", weights["w"])
"""


class Operator:
    """One operator with its pairs. Each pair has a directory, which is the program's own."""

    def __init__(self, swarm: Swarm, name: str, runner: str, values: tuple[float, ...]) -> None:
        self.name = name
        self.directory = swarm.directory / name
        self.pairs = [self.directory / f"user{i}" for i in range(len(values))]
        for pair, value in zip(self.pairs, values, strict=True):
            pair.mkdir(parents=True)
            (pair / "program.py").write_text(PROGRAM)
            (pair / "value").write_text(str(value))
        files = pki.environment(self.directory / "cert", Role.SL, swarm.ca, name=name)
        (self.directory / "profile.yaml").write_text(
            yaml.safe_dump(profile(name, runner, files, self.pairs))
        )
        sn = swarm.sns[len(swarm.operators) % len(swarm.sns)]
        self.daemon = swarm.run.start(
            name,
            "swop",
            {
                **pki.environment(self.directory / "cert", Role.SWOP, swarm.ca, name=name),
                "SWOP_PROFILE": "profile.yaml",
                "USR_DIR": str(self.directory),
                "SN_NODE_IP": sn.host,
                "SN_API_SERVER_PORT": str(sn.port),
                "SWARM_NODE_NAME": name,
                "SWARM_RUNTIME": "PROCESS",
                "SWARM_DATA_DIR": str(self.directory / "data"),
            },
        )
        self.daemon.wait_for("Waiting for new Task…")
        line = self.daemon.wait_for(rf"Enrolled as {name} ")
        self.uid = line.split("(")[1].split(")")[0]

    def mark(self, name: str, *pairs: int) -> None:
        """Put a file into the directories of some pairs (of all, if none is named)."""
        for index in pairs or range(len(self.pairs)):
            (self.pairs[index] / name).touch()

    def clear(self, name: str, *pairs: int) -> None:
        for index in pairs or range(len(self.pairs)):
            (self.pairs[index] / name).unlink()

    def result(self, pair: int = 0) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.load(self.pairs[pair] / "result.npy")
        return found

    def has(self, outcome: str) -> bool:
        """Whether it has prepared what images stand for."""
        return any((self.directory / "data" / "environments").glob(f"{outcome}*.json"))


def profile(
    group: str, runner: str, files: Mapping[str, str], pairs: list[Path]
) -> dict[str, object]:
    identity = [
        {"attribute": {"aType": kind, "mType": "BIND", "src": files[f"SWARM_ID_{kind}"],
                       "tgt": f"/swarm/{kind.lower()}"}}
        for kind in ("KEY", "CERT", "CAPATH")
    ]  # fmt: skip
    nodes = [
        {"slnodedef": {
            "idx": index, "identity": identity, "slhostip": "127.0.0.1", "slport": free_port(),
            "slhostname": None, "privatedata": {"src": str(pair), "mType": "BIND"},
            "slenvvars": [{"SWARM_LISTEN": "127.0.0.1"}], "usrhostname": None, "usrenvvars": None,
        }}
        for index, pair in enumerate(pairs)
    ]  # fmt: skip
    return {
        "groupname": group, "taskrunner": runner, "policyuri": None, "network": None,
        "resourcemgr": {"mgrtype": "PROCESS"},
        "apisrv": {"locator": {"host": None, "port": None, "service": None}},
        "envvars": None, "nodes": nodes,
    }  # fmt: skip


class Swarm:
    """The network, and what a command interface sees of it."""

    def __init__(self, run: Processes, directory: Path, network_nodes: int = 2) -> None:
        self.run = run
        self.directory = directory
        self.ca = pki.authority(directory)
        self.sns: list[Daemon] = [run.sn("sn1", self.ca)]
        for number in range(2, network_nodes + 1):
            self.sns.append(run.sn(f"sn{number}", self.ca, sentinel=self.sns[0]))
        self.operators: list[Operator] = []
        identity = run.identity(self.ca, Role.SWCI, "operator")
        self._client: ApiClient | None = None

        def connect(host: str, port: int) -> ApiClient:
            self._client = run.close_later(ApiClient(identity, [(host, port)]))
            return self._client

        self._session = Session(language(), connect, user_directory=directory, env={})
        self.say(f"CREATE CONTEXT c WITH IP {self.sns[0].host} {self.sns[0].port}")
        self.say("SWITCH CONTEXT c")

    @property
    def client(self) -> ApiClient:
        assert self._client is not None
        return self._client

    def operator(self, name: str, runner: str, *values: float) -> Operator:
        """Start an operator with a pair for each value."""
        self.operators.append(Operator(self, name, runner, values))
        return self.operators[-1]

    def say(self, command: str) -> list[str]:
        """Give a command that succeeds; its lines."""
        ok, lines = self.try_to(command)
        assert ok, (command, lines)
        return lines

    def try_to(self, command: str) -> tuple[bool, list[str]]:
        out = LinesOutput()
        outcome = self._session.execute(command, out)
        return outcome.ok, out.lines

    def task(self, name: str, kind: str, prereq: str, body: Mapping[str, Any]) -> None:
        """Register and finalize a task, from a file, as people do it."""
        value = {"Name": name, "TaskType": kind, "Author": "test", "Prereq": prereq,
                 "Outcome": name, "Body": dict(body)}  # fmt: skip
        stream = io.StringIO()
        yaml.safe_dump(value, stream)
        (self.directory / f"{name}.yaml").write_text(stream.getvalue())
        self.say(f"CREATE TASK FROM {name}.yaml")
        self.say(f"FINALIZE TASK {name}")

    def build_task(self, name: str) -> None:
        steps = {"BuildContext": None, "BuildType": "INLINE", "BuildSteps": ["FROM x"]}
        self.task(name, "MAKE_USER_CONTAINER", "ROOTTASK", steps)

    def run_task(self, name: str, prereq: str, **variables: object) -> None:
        """The program, with a contract of its own unless the variables say otherwise."""
        wanted = {"CONTRACT": name, "STEPS": 2, **variables}
        self.say(f"CREATE CONTRACT {wanted['CONTRACT']}")
        self.task(
            name, "RUN_SWARM", prereq,
            {"Command": "program.py", "Entrypoint": "python3", "WorkingDir": "/tmp/test",
             "Envvars": [{key: str(value)} for key, value in wanted.items()],
             "PrivateContent": "/tmp/test", "SharedContent": None},
        )  # fmt: skip

    def status(self, runner: str, name: str) -> str:
        """One field of GET TASKRUNNER STATUS."""
        found = answers.field(self.say(f"GET TASKRUNNER STATUS {runner}"), name)
        assert found is not None, name
        return found

    def ended(self, runner: str) -> str:
        """Wait for the end of a task; its state."""
        self.wait(runner, lambda record: record["state"] in ("COMPLETE", "ERROR"))
        return self.status(runner, "TASK_STATE")

    def wait(self, runner: str, condition: Any) -> dict[str, Any]:
        """Wait until a condition on the taskrunner's record holds."""
        return self.watch(f"taskrunners/{runner}", condition)

    def watch(self, key: str, condition: Any) -> dict[str, Any]:
        own = self._session.context().height  # an older record may be from before our command
        watch = self.client.watch([key])
        try:
            met = watch.wait(
                lambda w: w.height >= own and w.records[key] and condition(w.records[key]), BOUND
            )
            assert met, watch.records[key]
            record: dict[str, Any] = watch.records[key]
            return record
        finally:
            watch.close()

    def close(self) -> None:
        """End the operators in order: they take their programs along."""
        for operator in self.operators:
            if operator.daemon.alive():
                operator.daemon.terminate(20)
        self._session.close()
