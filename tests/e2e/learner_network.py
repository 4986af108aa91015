"""A network node and learners that are forked and may fail: what the tests of faults share."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from swarm.api.client import ApiClient
from swarm.identity import Role
from swci.commands import language
from swci.script import run_lines
from swci.session import Session
from tests import pki
from tests.e2e import faulty_learner as faulty
from tests.learner.processes import Network, Sl
from tests.learner.program import BOUND, CONTRACT
from tests.processes import until

Arrays = dict[str, NDArray[np.float32]]
MIB = 1 << 20
SIZE = 12 * MIB  # of the model: three shards of eight chunks
QUIET = 1.0  # seconds that a round of SIZE takes at most on a machine with nothing else to do


class Forked:
    """A learner below the parent, as far as `subprocess.Popen` is used."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._end = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return 0 if self._ended(0) else None

    def wait(self, timeout: float = 30.0) -> int:
        assert self._ended(timeout), f"{self.pid} still runs"
        return 0

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._end, number)

    def _ended(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(timeout * 1000))


class Learners(Network):
    """One network node, and learners that are forked. `listen`: where the node listens."""

    def __init__(self, tmp: Path, listen: str = "127.0.0.1") -> None:
        self._listen = listen
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.faulty_learner", "--parent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        super().__init__(tmp)
        operator = pki.identity(tmp / "operator", Role.SWCI, self.ca, name="operator")
        self.operator = Session(
            language(),
            lambda host, port: ApiClient(operator, [(host, port)]),
            user_directory=tmp,
            env={},
        )
        self.command(f"CREATE CONTEXT c WITH IP 127.0.0.1 {self.api_port}")
        self.command("SWITCH CONTEXT c")

    def run(self, module: str, env: dict[str, str], name: str) -> Any:
        if module != "swarm.learner":
            return super().run(module, {**env, "SWARM_LISTEN": self._listen}, name)
        log = Path(env["SWARM_LINK"]) / f"{name}.log"
        self._in.write(json.dumps({"env": env, "log": str(log)}) + "\n")
        self._in.flush()
        process: Any = Forked(int(self._out.readline()))
        self.processes.append(process)
        return process

    def command(self, line: str) -> str:
        """What the command interface prints."""
        out = io.StringIO()
        assert run_lines(self.operator, [line], out).ok, out.getvalue()
        return out.getvalue()

    def status(self) -> str:
        return self.command(f"GET CONTRACT STATUS {CONTRACT}")

    def close(self) -> None:
        self.operator.close()
        super().close()
        self._in.close()
        self._parent.wait(30)

    @property
    def _in(self) -> IO[str]:
        assert self._parent.stdin is not None
        return self._parent.stdin

    @property
    def _out(self) -> IO[str]:
        assert self._parent.stdout is not None
        return self._parent.stdout


def weights(value: float, size: int = SIZE) -> Arrays:
    """A model; different members' are made different."""
    return {"kernel": np.full(size // 4, value, np.float32)}


def moment(sl: Sl) -> float:
    """Wait for the learner's fault; when it was."""
    path = sl.folder / faulty.MOMENT
    until(path.exists, BOUND, f"{sl.name} fails")
    return float(path.read_text())


def go_on(sl: Sl) -> None:
    """Let a learner go on that waits to be told."""
    (sl.folder / faulty.GO_ON).touch()


def stopped(sl: Sl) -> bool:
    """The process has been stopped by a signal."""
    stat = Path(f"/proc/{sl.process.pid}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0] == "T"


class Trial:
    """Three learners, a round in peace, and one of them that fails in the next."""

    def __init__(self, network: Learners, sls: Sequence[Sl], size: int = SIZE) -> None:
        self.network = network
        self.sls = list(sls)
        self.size = size
        self.number = 0  # of the round
        for sl in self.sls:
            sl.program.send_open(min_peers=2)
        for sl in self.sls:
            sl.program.receive("opened")
            sl.program.write(weights(0, size))
        start = time.monotonic()
        self.round(self.sls)
        # How much slower than a quiet machine this one is: what takes work is given as much longer.
        self.slowness = max(1.0, (time.monotonic() - start) / QUIET * SIZE / size)

    def begin(self, *sls: Sl) -> None:
        """These programs have trained, and bring their weights."""
        for sl in sls:
            sl.program.send_sync(weights(self.value(sl), self.size))

    def value(self, sl: Sl) -> float:
        """What a learner's weights are in this round."""
        return 10 * self.number + self.sls.index(sl)

    def end(self, sls: Sequence[Sl], merged_from: Sequence[Sl] = ()) -> float:
        """These get the same bytes: their mean, or that of others; returns the time then."""
        answers = [sl.program.merged() for sl in sls]
        now = time.monotonic()
        givers = merged_from or sls
        mean = float(np.mean([self.value(sl) for sl in givers]))
        for message, merged in answers:
            assert message["peers"] == len(givers)
            assert merged["kernel"].tobytes() == answers[0][1]["kernel"].tobytes()
            assert merged["kernel"][0] == merged["kernel"][-1] == mean
            assert message["round"] == self.number
        for sl, (message, _) in zip(sls, answers, strict=True):
            sl.program.report(message["round"])
        self.number += 1
        return now

    def round(self, sls: Sequence[Sl]) -> None:
        """A round in which nothing happens."""
        self.begin(*sls)
        self.end(sls)

    def survive(
        self,
        culprit: Sl,
        since: float,
        deadline: float,
        *words: str,
        merged_from: Sequence[Sl] = (),
    ) -> None:
        """The others end the round in time, all say whose fault it was, and training goes on."""
        others = [sl for sl in self.sls if sl is not culprit]
        took = self.end(others, merged_from) - since
        assert took <= deadline + 2.0 * self.slowness, (took, self.slowness)
        self.named(culprit, *words)
        self.bounded(others)
        # Who lives on comes back at once; the next round shall be that of the others.
        culprit.process.send_signal(signal.SIGTERM)
        culprit.process.wait(BOUND)
        self.round(others)

    def named(self, culprit: Sl, *words: str) -> None:
        """Its name, with these words, is in the status and in the logs of the others."""

        def in_status() -> bool:
            lines = [line for line in self.network.status().split("\n") if "FAULT : " in line]
            return any(all(word in line for word in (culprit.name, *words)) for line in lines)

        until(in_status, BOUND, f"the status has {culprit.name}, {words}")
        for sl in self.sls:
            if sl is not culprit:
                until(lambda sl=sl: self._logged(sl, culprit, words), BOUND, f"{sl.name}'s log")

    def _logged(self, sl: Sl, culprit: Sl, words: Sequence[str]) -> bool:
        lines = [line for line in sl.log.read_text().split("\n") if "WARNING" in line]
        return any(all(word in line for word in (culprit.name, *words)) for line in lines)

    def bounded(self, sls: Sequence[Sl]) -> None:
        """No learner has needed more memory than the model allows."""
        peaks = {sl.name: sl.memory() for sl in sls}
        assert max(peaks.values()) < 60_000_000 + 2.2 * self.size, peaks
