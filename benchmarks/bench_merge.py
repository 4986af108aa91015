"""How long a merge takes, against the limit that TLS and numpy set: one JSON line each.

    what = "exchange"  the real exchange in as many processes, hashing included, without a ledger
    what = "methods"   the exchange by the mean and by others, one after the other in the same run,
                       with 4 learners
    what = "round"     real learners and a real network node: from the programs' sync to the last
                       program's answer

`limit_seconds` is a plain reduce-scatter and all-gather over TLS 1.3 connections, certificates on
both sides, between as many processes: no hashes, no membership, no failure handling. It is measured
in the same run, as differences between runs are larger than those looked for. `bytes_per_learner`
is what a learner sends; the optimum is 2·M·(n-1)/n. `peak_rss_mb` is the largest of all processes.
Seconds are medians. Vectors lie in shared memory where there is room.

    python benchmarks/bench_merge.py [--sizes 1.6 100 500] [--n 2 4 8] [--rounds 5] [--what …]
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing as mp
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from swarm.identity import Identity
from swarm.learner import reading
from swarm.merge import blocks
from swarm.merge.dial import Dialler, Member, prepare_accepted
from swarm.merge.exchange import Buffers, Exchange, Key, Law, Window
from swarm.merge.mean import Segment
from swarm.merge.server import Server
from swarmlearning import tensors
from swarmlearning.tensors import Layout
from tests import pki
from tests.learner.processes import Network

PIECE = 32 << 10  # elements at a time in the limit's mean: stays in cache
WARM_UP = 1  # rounds that are not counted
WHAT = ["exchange", "methods", "round"]
METHODS = ("mean", "coordmedian", "geomedian")
METHODS_AT = 4  # learners


# ------------------------------------------------------------------------------------- the limit


class Limit:
    """One process of the plain algorithm: all connections open before the clock starts."""

    def __init__(self, identity: Identity, index: int, vector: np.ndarray[Any, Any]) -> None:
        self.identity, self.index, self.vector = identity, index, vector
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]

    def connect(self, ports: list[int]) -> None:
        count = len(ports)
        self.edges = [i * len(self.vector) // count for i in range(count + 1)]
        self.incoming: dict[int, Any] = {}
        self.outgoing: dict[int, Any] = {}
        context = self.identity.server_context()

        def accept() -> None:
            for _ in range(count - 1):
                sock, _ = self.listener.accept()
                secure = prepare_accepted(sock, context)
                secure.do_handshake()
                secure.settimeout(None)
                self.incoming[secure.recv(1)[0]] = secure

        thread = threading.Thread(target=accept)
        thread.start()
        client = self.identity.client_context()
        for other in range(count):
            if other != self.index:
                plain = socket.create_connection(("127.0.0.1", ports[other]))
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.outgoing[other] = client.wrap_socket(plain)
                self.outgoing[other].sendall(bytes([self.index]))
        thread.join()
        mine = self.edges[self.index + 1] - self.edges[self.index]
        self.received = {i: np.empty(mine, np.float32) for i in self.incoming}

    def round(self) -> None:
        count = len(self.edges) - 1
        mine = self.part(self.index)
        self.everywhere(
            [lambda i=i: fill(self.incoming[i], self.received[i]) for i in self.incoming]
            + [lambda j=j: self.outgoing[j].sendall(view(self.part(j))) for j in self.outgoing]
        )
        for at in range(0, len(mine), PIECE):
            piece = mine[at : at + PIECE]
            for other in self.received.values():
                np.add(piece, other[at : at + PIECE], out=piece)
            np.multiply(piece, np.float32(1 / count), out=piece)
        self.everywhere(
            [lambda i=i: fill(self.incoming[i], self.part(i)) for i in self.incoming]
            + [lambda j=j: self.outgoing[j].sendall(view(mine)) for j in self.outgoing]
        )

    def part(self, index: int) -> np.ndarray[Any, Any]:
        return self.vector[self.edges[index] : self.edges[index + 1]]

    def everywhere(self, jobs: list[Callable[[], None]]) -> None:
        threads = [threading.Thread(target=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def view(array: np.ndarray[Any, Any]) -> memoryview:
    return memoryview(array).cast("B")


def fill(sock: Any, array: np.ndarray[Any, Any]) -> None:
    target = view(array)
    at = 0
    while at < len(target):
        at += sock.recv_into(target[at:])


def limit_process(job: Job, index: int, pipe: Any) -> None:
    limit = Limit(job.identity(index), index, vector(job, index))
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
    trained = tensors.create(job.folder / f"trained-{index}", layout)
    trained.views()["weights"][:] = vector(job, index)
    runs = [Segment(0, layout.size, "float32")]
    merged = tensors.create(job.folder / f"merged-{index}", layout)
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
    """Run the rounds in step with the other processes; send start, end, bytes and peak memory."""
    gc.collect()
    for number in range(job.rounds + WARM_UP):
        job.barrier.wait()
        start = time.monotonic()
        sent = once(number)
        end = time.monotonic()
        job.barrier.wait()
        if settle:
            sent = settle()
            job.barrier.wait()
        if number >= WARM_UP:
            pipe.send((start, end, sent))
    pipe.send(peak_rss("self"))


def peak_rss(pid: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def run(job: Job, target: Callable[[Job, int, Any], None]) -> dict[str, float]:
    """As `run_all`, with the median of all rounds' seconds."""
    seconds, found = run_all(job, target)
    return {"seconds": statistics.median(seconds), **found}


def run_all(
    job: Job, target: Callable[[Job, int, Any], None]
) -> tuple[list[float], dict[str, float]]:
    """Run `target` in `job.count` processes; they get all that each of them sends first.

    Returns the seconds of each round, and what else was measured.
    """
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
    seconds, sent = [], 0
    for _ in range(job.rounds):
        marks = [pipe.recv() for pipe in pipes]
        seconds.append(max(end for _, end, _ in marks) - min(start for start, _, _ in marks))
        sent = max(count for _, _, count in marks)
    peak = max(pipe.recv() for pipe in pipes)
    for process in processes:
        process.join()
    return seconds, {"bytes": sent, "peak": peak}


# -------------------------------------------------------------------------------------- a round


def run_round(folder: Path, size: int, count: int, rounds: int) -> dict[str, float]:
    """Real learners with a network node; this process plays all their programs."""
    network = Network(folder)
    try:
        learners = [network.learner(number) for number in range(count)]
        for learner in learners:
            learner.program.send_open(min_peers=count)
        for number, learner in enumerate(learners):
            learner.program.receive("opened")
            values = np.random.default_rng(number).random(size // 4, dtype=np.float32)
            learner.program.write({"weights": values})
        seconds = []
        for number in range(rounds + WARM_UP):
            start = time.monotonic()
            for learner in learners:
                program = learner.program
                program.seq += 1
                message = {"type": "sync", "weightage": 1, "samples": 1, "epochs": 1}
                program.connection.send({**message, "seq": program.seq})
            for learner in learners:
                learner.program.receive("merged")
            if number >= WARM_UP:
                seconds.append(time.monotonic() - start)
        peak = max(learner.memory() for learner in learners)
        return {"seconds": statistics.median(seconds), "peak": peak}
    finally:
        network.close()


# ------------------------------------------------------------------------------------------ main


@contextmanager
def workspace(needed: int) -> Iterator[Path]:
    """A directory in shared memory if `needed` bytes fit well, else on disk."""
    memory = Path("/dev/shm")
    room = shutil.disk_usage(memory).free if memory.is_dir() else 0
    with tempfile.TemporaryDirectory(dir=memory if room > 1.5 * needed else None) as path:
        yield Path(path)


def compare(size: int, count: int, rounds: int, what: list[str]) -> None:
    """Measure one size and number of learners, and print the lines."""
    with workspace(3 * size * count) as folder:
        job = Job(folder, size, count, rounds)
        limit = run(job, limit_process)
        found: dict[str, dict[str, float]] = {}
        if "exchange" in what:
            found["exchange"] = run(job, exchange_process)
            for path in folder.glob("*-[0-9]*"):
                path.unlink()
        if "round" in what:
            (folder / "net").mkdir()
            found["round"] = run_round(folder / "net", size, count, rounds)
        sent = found.get("exchange", limit)["bytes"]
        for name, result in found.items():
            line = {
                "what": name,
                "n": count,
                "model_mb": size / 1e6,
                "seconds": round(result["seconds"], 4),
                "limit_seconds": round(limit["seconds"], 4),
                "ratio_to_limit": round(result["seconds"] / limit["seconds"], 2),
                "bytes_per_learner": int(sent),
                "peak_rss_mb": round(result["peak"] / 1e6, 1),
            }
            print(json.dumps(line), flush=True)


def compare_methods(size: int, count: int, rounds: int) -> None:
    """Measure methods of both kinds against the mean, in turn, and print a line for each."""
    with workspace(3 * size * count) as folder:
        job = Job(folder, size, count, rounds * len(METHODS))
        job.methods = list(METHODS)
        seconds, _ = run_all(job, exchange_process)
        # Round 0 warms up, so the first one that is counted is by the second method.
        of = {
            method: statistics.median(seconds[(i - WARM_UP) % len(METHODS) :: len(METHODS)])
            for i, method in enumerate(METHODS)
        }
        for method, median in of.items():
            line = {
                "what": "methods",
                "method": method,
                "n": count,
                "model_mb": size / 1e6,
                "seconds": round(median, 4),
                "ratio_to_mean": round(median / of["mean"], 2),
            }
            print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[1.6, 100, 500], help="MB")
    parser.add_argument("--n", type=int, nargs="+", default=[2, 4, 8], help="learners")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    args = parser.parse_args()
    # Ended from outside, it still removes its files and processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for megabytes in args.sizes:
        for count in args.n:
            size = int(megabytes * 1e6) // 64 * 64
            if set(args.what) - {"methods"}:
                compare(size, count, args.rounds, args.what)
            if "methods" in args.what and count == METHODS_AT:
                compare_methods(size, count, args.rounds)


if __name__ == "__main__":
    main()
