"""How long a merge takes, against the limit that TLS and numpy set: one JSON line each.

    what = "round"     a whole round as a program's callback sees it: weights out of the framework,
                       real learners, real network node, merged weights back in (see `trainings`)
    what = "exchange"  the exchange alone in as many processes, with its hashing, without a ledger
    what = "floor"     the plain algorithm and what is demanded beyond it: files, digests, the look
                       for NaN; no ledger, no frames, no membership (see `floor`)
    what = "methods"   the exchange by the mean and by others, one after the other in the same run,
                       with 4 learners

`limit_…` is the plain algorithm (see `limit`) in the same run, half of its rounds before and half
after: differences between runs are larger than those looked for. Seconds are medians; CPU seconds
are sums over all processes, of one round and of saving its result after it. Where all processes
share few cores, as here, work of one delays the others, and the CPU seconds say what the rest of
the machine did to the seconds.

`bytes_per_learner` is what one sends on average, `bytes_optimum` is 2·M·(n-1)/n. `learner_mb` is
the largest resident memory of a learner, and `program_extra` by how many models that of a program
grew while it merged. The files lie on disk where its cache takes them, else in shared memory, which
is slower for files.

    python benchmarks/bench_merge.py [--sizes 1.6 100 500] [--n 2 4 8] [--rounds 12] [--what …]
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing as mp
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import trainings
from benchmarks.floor import Floor
from benchmarks.limit import Limit
from benchmarks.trainings import peak_rss
from swarm.identity import Identity
from swarm.learner import reading
from swarm.merge import blocks
from swarm.merge.dial import Dialler, Member
from swarm.merge.exchange import Buffers, Exchange, Key, Law, Window
from swarm.merge.mean import Segment
from swarm.merge.server import Server
from swarmlearning import tensors
from swarmlearning.tensors import Layout
from tests import pki

WARM_UP = 1  # rounds that are not counted
WHAT = ["round", "exchange", "floor", "methods"]
LARGE = 200e6  # bytes of a model of which half as many rounds are measured
ON_DISK = 3 << 30  # bytes of files that the disk's cache takes without writing them out at once
METHODS = ("mean", "coordmedian", "geomedian")
METHODS_AT = 4  # learners


def limit_process(job: Job, index: int, pipe: Any) -> None:
    _plain(Limit(job.identity(index), index, vector(job, index)), job, pipe)


def floor_process(job: Job, index: int, pipe: Any) -> None:
    _plain(Floor(job.identity(index), index, vector(job, index)), job, pipe)


def _plain(limit: Limit, job: Job, pipe: Any) -> None:
    pipe.send(limit.port)
    limit.connect(pipe.recv())

    def once(number: int) -> int:
        limit.round()
        return 2 * job.size * (job.count - 1) // job.count

    measure(job, pipe, once)


# ---------------------------------------------------------------------------------- the exchange


def exchange_process(job: Job, index: int, pipe: Any) -> None:
    identity = job.identity(index)
    server = Server(identity, lambda contract, uid: fingerprints.get(uid))
    port = server.start("127.0.0.1", 0)
    layout = Layout([("weights", "float32", (job.size // 4,))])
    trained = tensors.allocate(layout)
    trained.write({"weights": vector(job, index)})
    runs = [Segment(0, layout.size, "float32")]
    merged = tensors.allocate(layout)
    pipe.send((port, identity.fingerprint))
    addresses = pipe.recv()
    fingerprints = {uid_of(i): address[1] for i, address in enumerate(addresses)}
    dialler, window = Dialler(identity), Window()
    exchanges: list[Exchange] = []

    def once(number: int) -> int:
        leaves = reading.read(trained.data, runs).leaves
        job.roots[index * 32 : index * 32 + 32] = list(blocks.root(leaves))
        job.barrier.wait()  # in place of the ledger's check-in
        members = [
            Member(
                uid_of(i),
                uid_of(i),
                "127.0.0.1",
                port,
                fingerprint,
                10_000,
                bytes(job.roots[i * 32 : i * 32 + 32]),
            )
            for i, (port, fingerprint) in enumerate(addresses)
        ]
        done = threading.Event()
        exchange = Exchange(
            Key("bench", number, 0),
            uid_of(index),
            members,
            Buffers(trained.data, leaves, merged.data, runs),
            dialler,
            lambda result: done.set(),
            law=Law(job.methods[number % len(job.methods)]),
            window=window,
        )
        server.offer(exchange)
        exchange.start()
        done.wait()
        exchanges.append(exchange)
        return exchange.bytes_sent

    def settle() -> int:
        """Between rounds, off the clock: all others have what they need from here."""
        exchange = exchanges.pop()
        while not exchange.delivered():
            time.sleep(0.001)
        job.barrier.wait()
        exchange.abort()
        return exchange.bytes_sent

    measure(job, pipe, once, settle)


def uid_of(index: int) -> str:
    return f"sl-{index:03}"


# ------------------------------------------------------------------------------------- processes


class Job:
    """What all processes of one measurement know."""

    def __init__(self, folder: Path, size: int, count: int, rounds: int) -> None:
        self.folder, self.size, self.count, self.rounds = folder, size, count, rounds
        self.methods = ["mean"]  # of exchanges, in turn
        self.barrier: Barrier = mp.get_context("fork").Barrier(count)
        self.roots = mp.get_context("fork").Array("B", 32 * count, lock=False)
        self.capath = folder / "ca" / "capath"
        self.files = [
            pki.files(folder / str(i), f"SL-{i}", AUTHORITY.get(folder)) for i in range(count)
        ]

    def identity(self, index: int) -> Identity:
        files = self.files[index]
        return Identity.load(files.cert, files.key, capath=self.capath)


class Authorities:
    """One CA for each directory."""

    def __init__(self) -> None:
        self._made: dict[Path, pki.Authority] = {}

    def get(self, folder: Path) -> pki.Authority:
        if folder not in self._made:
            self._made[folder] = pki.authority(folder, 1)
        return self._made[folder]


AUTHORITY = Authorities()


def vector(job: Job, index: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(index).random(job.size // 4, dtype=np.float32)


def measure(
    job: Job, pipe: Any, once: Callable[[int], int], settle: Callable[[], int] | None = None
) -> None:
    """Run the rounds in step with the others; send start, end, bytes, CPU, and peak memory."""
    gc.collect()
    for number in range(job.rounds + WARM_UP):
        job.barrier.wait()
        start, cpu = time.monotonic(), time.process_time()
        sent = once(number)
        end, cpu = time.monotonic(), time.process_time() - cpu
        job.barrier.wait()
        if settle:
            sent = settle()
            job.barrier.wait()
        if number >= WARM_UP:
            pipe.send((start, end, sent, cpu))
    pipe.send(peak_rss("self"))


class Measured(NamedTuple):
    """Rounds of `job.count` processes: seconds and CPU seconds of each."""

    seconds: list[float]
    cpu: list[float]
    sent: int  # bytes, on average
    peak: int  # bytes, the largest

    def __add__(self, other: Any) -> Measured:
        most = (max(self.sent, other.sent), max(self.peak, other.peak))
        return Measured(self.seconds + other.seconds, self.cpu + other.cpu, *most)


def run(job: Job, target: Callable[[Job, int, Any], None]) -> Measured:
    """Run `target` in `job.count` processes; they get all that each of them sends first."""
    fork = mp.get_context("fork")
    pipes, processes = [], []
    for index in range(job.count):
        here, there = fork.Pipe()
        process = fork.Process(target=target, args=(job, index, there), daemon=True)
        process.start()
        pipes.append(here)
        processes.append(process)
    addresses = [pipe.recv() for pipe in pipes]
    for pipe in pipes:
        pipe.send(addresses)
    seconds, cpu, sent = [], [], 0
    for _ in range(job.rounds):
        marks = [pipe.recv() for pipe in pipes]
        seconds.append(max(mark[1] for mark in marks) - min(mark[0] for mark in marks))
        sent = sum(mark[2] for mark in marks) // len(marks)
        cpu.append(sum(mark[3] for mark in marks))
    peak = max(pipe.recv() for pipe in pipes)
    for process in processes:
        process.join()
    return Measured(seconds, cpu, sent, peak)


# ------------------------------------------------------------------------------------------ main


@contextmanager
def workspace(needed: int) -> Iterator[Path]:
    """A directory for `needed` bytes of files: on disk when they are few, else in shared memory."""
    memory = Path("/dev/shm")
    room = shutil.disk_usage(memory).free if memory.is_dir() and needed > ON_DISK else 0
    with tempfile.TemporaryDirectory(dir=memory if room > 1.5 * needed else None) as path:
        yield Path(path)


def compare(size: int, count: int, rounds: int, what: list[str]) -> None:
    """Measure one size and number of learners, and print the lines."""
    median = statistics.median
    with workspace(2 * size * count) as folder:
        job = Job(folder, size, count, -(-rounds // 2))
        limit = run(job, limit_process)
        lines: list[dict[str, Any]] = []
        if "round" in what:
            (folder / "net").mkdir()
            found = trainings.run(folder / "net", size, count, rounds)
            shutil.rmtree(folder / "net")
            lines.append(
                {
                    "what": "round",
                    "seconds": median(found.seconds),
                    "cpu_seconds": found.cpu,
                    "learner_mb": found.peak / 1e6,
                    "program_extra": found.grown / size,
                }
            )
        if "exchange" in what:
            alone = run(job, exchange_process)
            lines.append(
                {
                    "what": "exchange",
                    "seconds": median(alone.seconds),
                    "cpu_seconds": median(alone.cpu),
                    "bytes_per_learner": alone.sent,
                    "bytes_optimum": 2 * size * (count - 1) // count,
                }
            )
        if "floor" in what:
            floor = run(job, floor_process)
            lines.append(
                {
                    "what": "floor",
                    "seconds": median(floor.seconds),
                    "cpu_seconds": median(floor.cpu),
                }
            )
        limit += run(job, limit_process)
    own = {"limit_seconds": median(limit.seconds), "limit_cpu_seconds": median(limit.cpu)}
    for line in lines:
        show(line.pop("what"), count, size, **line, **own, **ratios(line, own))


def ratios(line: dict[str, Any], limit: dict[str, float]) -> dict[str, float]:
    """How a measurement compares with the limit."""
    return {
        "ratio_to_limit": line["seconds"] / limit["limit_seconds"],
        "cpu_ratio": line["cpu_seconds"] / limit["limit_cpu_seconds"],
    }


def show(what: str, count: int, size: int, **values: Any) -> None:
    """Print one line."""
    short = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"what": what, "n": count, "model_mb": size / 1e6, **short}), flush=True)


def compare_methods(size: int, count: int, rounds: int) -> None:
    """Measure methods of both kinds against the mean, in turn, and print a line for each."""
    with workspace(2 * size * count) as folder:
        job = Job(folder, size, count, rounds * len(METHODS))
        job.methods = list(METHODS)
        found = run(job, exchange_process)
    # Round 0 warms up, so the first one that is counted is by the second method.
    turns = {
        method: slice((i - WARM_UP) % len(METHODS), None, len(METHODS))
        for i, method in enumerate(METHODS)
    }
    seconds = {method: statistics.median(found.seconds[turn]) for method, turn in turns.items()}
    cpu = {method: statistics.median(found.cpu[turn]) for method, turn in turns.items()}
    for method in METHODS:
        values = {
            "method": method,
            "seconds": seconds[method],
            "cpu_seconds": cpu[method],
            "ratio_to_mean": seconds[method] / seconds["mean"],
            "cpu_ratio": cpu[method] / cpu["mean"],
        }
        show("methods", count, size, **values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[1.6, 100, 500], help="MB")
    parser.add_argument("--n", type=int, nargs="+", default=[2, 4, 8], help="learners")
    parser.add_argument("--rounds", type=int, default=12, help="rounds to take the median of")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    args = parser.parse_args()
    # Ended from outside, it still removes its files and processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for megabytes in args.sizes:
        for count in args.n:
            size = int(megabytes * 1e6) // 64 * 64
            rounds = args.rounds if size < LARGE else -(-args.rounds // 2)
            if set(args.what) - {"methods"}:
                compare(size, count, rounds, args.what)
            if "methods" in args.what and count == METHODS_AT:
                compare_methods(size, count, rounds)


if __name__ == "__main__":
    main()
