"""Commit latency of 1, 2 and 4 network nodes, as real processes, beside what the machine can do.

    python benchmarks/bench_ledger.py [--nodes 1 2 4] [--rate 20] [--seconds 8]

One JSON line a case. A transaction is signed, posted over HTTPS to one of the nodes (all in turn),
ordered by all of them, written to their disks (SQLite, synchronous=FULL), and answered with its
verdict; `p50_ms` and `p99_ms` are what the client sees. `open` sends at a fixed rate, `closed` the
next one when the last is answered.

`raw_ms` is measured in the same run: the signatures and durable writes of one commit on one node,
one after the other, 2n + 1 verifications, 3 signatures (P-256) and 3 commits of 300 bytes. `ratio`
is p50 over that. `api_ms` is the median of a request that touches no ledger. `cpu_ms` is the
processor time that one node spends on a commit, its API included; `load` the machine's load average
at the end: on a busy machine the wall-clock figures tell about the others.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from swarm.api.client import ApiClient
from swarm.identity import Role, verify_signature
from tests import pki
from tests.processes import Daemon, Processes, until

WORKERS = 8  # clients of the open case; each waits for its answer


def percentile(values: list[float], share: float) -> float:
    """Nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def median_ms(action: Callable[[], object], times: int) -> float:
    """Median duration in milliseconds."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        spent.append((time.perf_counter() - began) * 1000)
    return statistics.median(spent)


def raw_cost(directory: Path, ca: pki.Authority) -> Callable[[int], float]:
    """What the machine needs for the unavoidable work of one commit, by number of nodes."""
    identity = pki.identity(directory / "raw", Role.SN, ca, name="raw")
    data = os.urandom(150)
    signature = identity.sign(data)
    key = identity.public_key_der
    db = sqlite3.connect(directory / "raw.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE raw (value BLOB)")
    value = os.urandom(300)
    sign = median_ms(lambda: identity.sign(data), 200)
    verify = median_ms(lambda: verify_signature(key, data, signature), 200)
    write = median_ms(lambda: db.execute("INSERT INTO raw VALUES (?)", (value,)), 200)
    db.close()
    print(
        json.dumps(
            {
                "what": "ledger.raw",
                "sign_ms": round(sign, 3),
                "verify_ms": round(verify, 3),
                "durable_write_ms": round(write, 3),
            }
        ),
        flush=True,
    )
    return lambda n: (2 * n + 1) * verify + 3 * sign + (3 if n > 1 else 1) * write


TASK = "bench"


class Load:
    """Writes a line of a task again and again, which leaves the state as large as it was, and
    notes how long each took."""

    def __init__(self, clients: list[ApiClient], label: str) -> None:
        self.clients = clients
        self.label = label
        self.spent: list[float] = []
        self.errors: list[str] = []
        self._lock = threading.Lock()
        self._number = 0

    def one(self, client: ApiClient) -> None:
        """Submit one and wait for its verdict."""
        with self._lock:
            self._number += 1
            line = f"{self.label}-{self._number}"
        began = time.perf_counter()
        try:
            client.submit("task.append", {"task": TASK, "index": 1, "lines": [line]})
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            return
        self.spent.append((time.perf_counter() - began) * 1000)

    def closed(self, seconds: float) -> None:
        """One after the other."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.one(self.clients[self._number % len(self.clients)])

    def open(self, rate: float, seconds: float) -> None:
        """At a fixed rate: worker k sends the k-th, k+WORKERS-th, … at its due time."""
        began = time.monotonic() + 0.2
        total = int(rate * seconds)
        pause = threading.Event()

        def worker(first: int) -> None:
            for number in range(first, total, WORKERS):
                wait = began + number / rate - time.monotonic()
                if wait > 0:
                    pause.wait(wait)
                self.one(self.clients[first % len(self.clients)])

        threads = [threading.Thread(target=worker, args=(k,)) for k in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def report(
    what: str, nodes: list[Daemon], load: Load, run: Callable[[], None], raw: float, api: float
) -> None:
    """Run one case and print its line."""
    cpu = sum(node.cpu_seconds() for node in nodes)
    began = time.perf_counter()
    run()
    took = time.perf_counter() - began
    cpu = sum(node.cpu_seconds() for node in nodes) - cpu
    done = len(load.spent)
    if not done:
        raise SystemExit(f"nothing was committed: {load.errors[:3]}")
    p50 = percentile(load.spent, 0.5)
    line = {
        "what": what,
        "n": len(nodes),
        "committed": done,
        "errors": len(load.errors),
        "per_s": round(done / took, 1),
        "p50_ms": round(p50, 2),
        "p99_ms": round(percentile(load.spent, 0.99), 2),
        "raw_ms": round(raw, 3),
        "ratio": round(p50 / raw, 1),
        "api_ms": round(api, 2),
        "cpu_ms": round(cpu * 1000 / done / len(nodes), 2),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(line), flush=True)


def bench(count: int, rate: float, seconds: float) -> None:
    """One network of `count` nodes."""
    with tempfile.TemporaryDirectory() as name, Processes(Path(name)) as run:
        ca = pki.authority(Path(name))
        raw = raw_cost(Path(name), ca)(count)
        nodes = [run.sn("sn1", ca)]
        for number in range(2, count + 1):
            nodes.append(run.sn(f"sn{number}", ca, sentinel=nodes[0]))
        identity = run.identity(ca, Role.SWCI, "bench")
        clients = [
            ApiClient(identity, [(node.host, node.port)], learn=False)
            for _ in range(max(1, WORKERS // count))
            for node in nodes
        ]
        status = clients[0].status
        until(lambda: len(status()["validators"]) == count, 30, f"{count} validators")
        for client in clients:
            client.status()
        task = {"name": TASK, "type": "RUN_SWARM", "author": "bench", "prereq": "ROOTTASK"}
        clients[0].submit("task.create", {**task, "outcome": TASK})
        api = median_ms(clients[0].is_up, 50)
        warm = Load(clients, "warm")
        warm.closed(1.0)
        try:
            load = Load(clients, "closed")
            report("ledger.closed", nodes, load, lambda: load.closed(seconds), raw, api)
            steady = Load(clients, "open")
            label = f"ledger.open.{rate:g}/s"
            report(label, nodes, steady, lambda: steady.open(rate, seconds), raw, api)
        finally:
            for client in clients:
                client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    for count in options.nodes:
        bench(count, options.rate, options.seconds)


if __name__ == "__main__":
    main()
