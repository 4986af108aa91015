"""Whole rounds, as programs see them: real learners, a real network node, a program for each.

A program is a process with `SwarmCallback` and weights in numpy arrays, the framework that costs
least beside what is measured. A round is what `on_batch_end` takes when it merges: weights out of
the framework, check-in, merge, decision, weights back into it.
"""

from __future__ import annotations

import json
import logging
import multiprocessing as mp
import os
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from swarm.identity import Role
from swarmlearning.callback import SwarmCallbackBase
from swarmlearning.settings import SLPlatforms
from tests import pki
from tests.learner.processes import Network
from tests.learner.program import CONTRACT
from tests.processes import free_port, until

PATIENCE = 300.0  # seconds for any one round
TENSORS = 24  # of a model
WARM_UP = 3  # rounds that are not counted: after the first two, files are made
TICKS = os.sysconf("SC_CLK_TCK")

Array = NDArray[Any]


class Round(NamedTuple):
    """One round of one program. Times are of the monotonic clock, in seconds."""

    began: float
    written: float  # the weights are in the shared memory
    answered: float
    ended: float  # the merged weights are in the framework


class Outcome(NamedTuple):
    """What `run` measured."""

    rounds: list[list[Round]]  # of each round, of each program
    seconds: list[float]  # of each round, from the first program's begin to the last one's end
    cpu: float  # seconds in a round and after it: learners, programs and network node
    grown: int  # bytes by which the resident memory of a program with its model grew, at most
    peak: int  # bytes resident, the largest learner
    reports: list[str]  # of `profiled_learner`s


class Plain(SwarmCallbackBase):
    """A callback whose framework keeps weights in numpy arrays and computes nothing."""

    platforms = (SLPlatforms.NUMPY,)

    def __init__(self, model: dict[str, Array], **settings: Any) -> None:
        self.model = model
        self.written = self.answered = 0.0
        super().__init__(**settings)

    def merge(self, hook: Callable[[], None]) -> Round:
        """One round, by a hook that merges."""
        write = self._session._write

        def timed(arrays: Mapping[str, Array]) -> None:
            write(arrays)
            self.written = time.monotonic()

        began = time.monotonic()
        with mock.patch.object(self._session, "_write", timed):
            hook()
        return Round(began, self.written, self.answered, time.monotonic())

    def _verifyAndSetPlatformContext(self, params: Mapping[str, Any]) -> None:
        """Nothing to check."""

    def _getValidationDataForAdaptiveSync(self, valData: Any, valBatchSize: int | None) -> Any:
        return (None,) * 5

    def _saveModelWeightsToDict(self) -> dict[str, Array]:
        return self.model

    def _loadModelWeightsFromDict(self, inDict: Mapping[str, Array]) -> None:
        self.answered = time.monotonic()
        for name, array in inDict.items():
            np.copyto(self.model[name], array)


def model(size: int, number: int) -> dict[str, Array]:
    """`size` bytes of float32 in tensors of unequal lengths, other values for each number."""
    total = size // 4
    edges = [total * i * (i + 1) // (TENSORS * (TENSORS + 1)) for i in range(TENSORS + 1)]
    random = np.random.default_rng(number)
    return {
        f"layer-{i:02}": random.random(edges[i + 1] - edges[i], dtype=np.float32)
        for i in range(TENSORS)
    }


def run(
    folder: Path,
    size: int,
    count: int,
    rounds: int,
    *,
    module: str = "swarm.learner",
    **settings: Any,
) -> Outcome:
    """Run `count` programs for some rounds; `settings` are parameters of their callbacks.

    `module` is what runs as a learner.
    """
    fork = mp.get_context("fork")
    barrier = fork.Barrier(count + 1)
    network = Network(folder)
    network.watch.close()  # it would be one more to be told of each block
    programs = []
    try:
        pipes = []
        for number in range(count):
            link = _learner(network, folder, number, module)
            here, there = fork.Pipe()
            of_all = {"trainingContract": CONTRACT, "minPeers": count, "syncFrequency": 1}
            job = (link, (size, number), rounds, barrier, there, {**of_all, **settings})
            program = fork.Process(target=_program, args=job, daemon=True)
            program.start()
            programs.append(program)
            pipes.append(here)
        spent = [_until_quiet(network)]
        for _ in range(rounds + WARM_UP):
            barrier.wait(PATIENCE)
            barrier.wait(PATIENCE)
            spent.append(_until_quiet(network))
        found = [pipe.recv() for pipe in pipes]
        peak = max(peak_rss(process.pid) for process in network.processes[1:])
        reports = _reports(folder, rounds + WARM_UP)
    except threading.BrokenBarrierError:
        gone = [process.args for process in network.processes if process.poll() is not None]
        raise RuntimeError(f"no round in {PATIENCE:g} s; ended: {gone or 'none'}") from None
    finally:
        network.close()
        for program in programs:
            program.terminate()  # it holds a model, for which the next run needs the memory
            program.join()
    of_rounds = [list(marks) for marks in zip(*(one["rounds"] for one in found), strict=True)]
    return Outcome(
        of_rounds,
        [max(m.ended for m in marks) - min(m.began for m in marks) for marks in of_rounds],
        (spent[-1] - spent[WARM_UP] + sum(one["cpu"] for one in found)) / rounds,
        max(one["grown"] for one in found),
        peak,
        reports,
    )


def _reports(folder: Path, rounds: int) -> list[str]:
    """What profiled learners wrote; they do so after they have told their programs of a round."""
    paths = sorted(folder.glob("sl-*/profile.json"))
    for path in paths:
        until(lambda p=path: len(json.loads(p.read_text())) >= rounds, PATIENCE, f"{path} is whole")
    return [path.read_text() for path in paths]


def peak_rss(pid: int | str) -> int:
    """Most bytes of memory that a process has had at a time."""
    return _memory(pid, "VmHWM")


def _memory(pid: int | str, entry: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith(entry))
    return int(line.split()[1]) * 1024


def _learner(network: Network, folder: Path, number: int, module: str) -> Path:
    """Start one; returns the directory of its link."""
    name, port = f"sl-{number}", str(free_port())
    link = folder / name
    link.mkdir()
    env = {
        **pki.environment(folder / f"id-{number}", Role.SL, network.ca, name=str(number)),
        "SN_NODE_IP": "127.0.0.1",
        "SN_API_SERVER_PORT": str(network.api_port),
        "THIS_NODE_IP": "127.0.0.1",
        "SWARM_LISTEN": "127.0.0.1",
        "SL_FS_PORT": port,
        "SL_LISTEN_PORT": port,
        "SWARM_NODE_NAME": name,
        "SWARM_LINK": str(link),
    }
    network.run(module, env, name)
    return link


def _until_quiet(network: Network) -> float:
    """Wait, as training does, until the learners have done what they do beside it: save the model.

    Returns the seconds that they and the network node have computed so far.
    """
    before = -1.0
    for _ in range(200):
        now = _cpu(network)
        if now - before < 0.02:
            break
        before = now
        time.sleep(0.1)
    return now


def _cpu(network: Network) -> float:
    """Seconds that learners and network node have computed so far."""
    ticks = 0
    for process in network.processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def _program(
    link: Path,
    which: tuple[int, int],
    rounds: int,
    barrier: Barrier,
    pipe: Any,
    parameters: Mapping[str, Any],
) -> None:
    """A process of its own; `which` are the arguments of its `model`."""
    os.environ["SWARM_LINK"] = str(link)
    logger = logging.getLogger("quiet")
    logger.disabled = True
    weights = model(*which)
    before = _memory("self", "VmRSS")
    callback = Plain(weights, logger=logger, **parameters)
    marks, cpu = [], 0.0
    for number in range(rounds + WARM_UP):
        barrier.wait(PATIENCE)
        start = time.process_time()
        marks.append(callback.merge(callback.on_batch_end if number else callback.on_train_begin))
        if number >= WARM_UP:
            cpu += time.process_time() - start
        elif not number:
            callback.on_batch_end()  # only counts; from now on each one merges
        barrier.wait(PATIENCE)
    pipe.send({"rounds": marks[WARM_UP:], "cpu": cpu, "grown": peak_rss("self") - before})
    barrier.wait(PATIENCE)  # nobody leaves: the parent ends the learners, and then this process
