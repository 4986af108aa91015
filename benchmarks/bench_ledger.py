"""What the ledger takes: network nodes as processes over the real mesh, beside the unavoidable.

    python benchmarks/bench_ledger.py [--seconds 8] [--only raw steady fast flood dead wan anvil]

One JSON line a case. A transaction is signed beforehand, posted over HTTPS to one of the nodes (all
in turn, over kept connections), ordered by all of them, written to their disks (SQLite,
synchronous=FULL), and answered with its verdict; `p50_ms` and `p99_ms` count from when it was due
to its answer. The nodes and the source share the machine's cores: `source_cpu` is the share of a
core that the source takes, `cpu_ms` the processor time that one node spends on a transaction, its
API included, `load` the load average at the end. On a busy machine wall-clock figures tell about
the others.

- `ledger.raw`: signatures and durable writes of one commit on one node, one after the other: 2n + 1
  verifications, 3 signatures (P-256) and 3 commits of 300 bytes. `ratio` is p50 over that.
- `ledger.open.20/s` with 1 and 4 nodes; `ledger.open.300/s` with 4.
- `ledger.flood.valid`, `ledger.flood.garbage`: 20/s of one member while another one floods all
  nodes at full speed over many connections. `ratio` is p50 over the same without the flood.
- `ledger.dead`: the proposer is killed under 20/s; the longest gap between answers, and p50 after
  it over p50 before.
- `ledger.wan`: 4 replicas in one process in virtual time, 30 ms one way: no noise.
- `chain.instant`, `chain.1s`: sending 300 bytes to a local `anvil` and waiting for the receipt,
  with a block for each transaction and with one a second, where anvil can be had. `ratio` is the
  ledger's p50 over it.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.load import Result, Source, requests
from swarm.api.client import ApiClient
from swarm.identity import Role, verify_signature
from swarm.ledger.block import Block
from tests import pki
from tests.processes import Daemon, Processes, until

CASES = ("raw", "steady", "fast", "flood", "dead", "wan", "anvil")
TASK = "bench"
WAN_ONE_WAY = 0.03  # seconds
WAN_COMMITS = 40
APPENDS = 40  # to a chain with instant blocks; a tenth of that to one with slow blocks


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


def say(what: str, **figures: Any) -> None:
    """Print a line; durations are rounded to hundredths."""
    rounded = {k: round(v, 2) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps({"what": what, **rounded, "load": round(os.getloadavg()[0], 1)}), flush=True)


def raw_cost(directory: Path) -> Callable[[int], float]:
    """What the machine needs for the unavoidable work of one commit, by number of nodes."""
    identity = pki.identity(directory / "raw", Role.SN, pki.authority(directory), name="raw")
    data, value, key = os.urandom(150), os.urandom(300), identity.public_key_der
    signature = identity.sign(data)
    db = sqlite3.connect(directory / "raw.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE raw (value BLOB)")
    sign = median_ms(lambda: identity.sign(data), 200)
    verify = median_ms(lambda: verify_signature(key, data, signature), 200)
    write = median_ms(lambda: db.execute("INSERT INTO raw VALUES (?)", (value,)), 200)
    db.close()
    say("ledger.raw", sign_ms=sign, verify_ms=verify, durable_write_ms=write)
    return lambda n: (2 * n + 1) * verify + 3 * sign + (3 if n > 1 else 1) * write


class Network:
    """Running nodes, a member that sends to them, and what that costs."""

    def __init__(self, run: Processes, ca: pki.Authority, nodes: list[Daemon]) -> None:
        self.run = run
        self.ca = ca
        self.nodes = nodes
        self.client: ApiClient = run.client(ca, *nodes)
        self.member = run.identity(ca, Role.SWCI, "member")
        self._number = 0
        status = self.client.status
        until(lambda: len(status()["validators"]) == len(nodes), 60, "all are validators")
        task = {"name": TASK, "type": "RUN_SWARM", "author": "bench", "prereq": "ROOTTASK"}
        self.client.submit("task.create", {**task, "outcome": TASK})
        self.client.submit("task.append", {"task": TASK, "index": 1, "lines": ["-", "-"]})

    def chain(self) -> tuple[bytes, int]:
        """Chain id and height."""
        status = self.client.status()
        return bytes.fromhex(status["chain"]), status["height"]

    def prepare(self, count: int) -> list[bytes]:
        """Transactions that leave the state as large as it was."""
        first, self._number = self._number, self._number + count
        lines = [
            {"task": TASK, "index": 1, "lines": [f"line {n}"]} for n in range(first, first + count)
        ]
        return requests(self.member, *self.chain(), "task.append", lines)

    def source(self, nodes: list[Daemon] | None = None) -> Source:
        """64 connections of the member in all."""
        chosen = nodes or self.nodes
        return Source(self.member, [(n.host, n.port) for n in chosen], 64 // len(chosen))

    def measure(self, rate: float, seconds: float, source: Source | None = None) -> Any:
        """Send at a rate; returns the result, and figures for the line."""
        own = source or self.source()
        made = self.prepare(int(rate * seconds))
        alive = [node for node in self.nodes if node.alive()]
        height = self.chain()[1]
        before = {node.name: node.cpu_seconds() for node in alive}
        result = own.run(made, rate)
        alive = [node for node in alive if node.alive()]
        cpu = sum(node.cpu_seconds() - before[node.name] for node in alive) / len(alive)
        if source is None:
            own.close()
        if not result.spent:
            raise SystemExit(f"nothing was committed: {result.statuses} {result.sample!r}")
        return result, {
            "n": len(self.nodes),
            "committed": len(result.spent),
            "errors": result.errors,
            "blocks": self.chain()[1] - height,
            "per_s": len(result.spent) / result.seconds,
            "p50_ms": percentile(result.spent, 0.5),
            "p99_ms": percentile(result.spent, 0.99),
            "cpu_ms": cpu * 1000 / len(result.spent),
            "source_cpu": result.cpu / result.seconds,
        }


@contextmanager
def network(count: int) -> Iterator[Network]:
    """A network of `count` nodes."""
    with tempfile.TemporaryDirectory() as name, Processes(Path(name)) as run:
        ca = pki.authority(Path(name))
        nodes = [run.sn("sn1", ca, wait=120)]
        for number in range(2, count + 1):
            nodes.append(run.sn(f"sn{number}", ca, sentinel=nodes[0], wait=120))
        made = Network(run, ca, nodes)
        made.measure(20, 1)  # first requests load modules
        yield made


def steady(net: Network, seconds: float, raw: float) -> float:
    """20 transactions a second; returns p50."""
    _, figures = net.measure(20, seconds)
    say("ledger.open.20/s", **figures, raw_ms=raw, ratio=figures["p50_ms"] / raw)
    return float(figures["p50_ms"])


def flood(net: Network, seconds: float, quiet: float) -> None:
    """20/s of a member beside one that floods."""
    for kind in ("valid", "garbage"):
        files = pki.files(net.run.directory / "cert" / kind, f"SWCI-{kind}", net.ca)
        chain, height = net.chain()
        command = [sys.executable, str(Path(__file__).with_name("flood.py"))]
        command += [str(files.cert), str(files.key), str(net.ca.capath), chain.hex(), str(height)]
        command += [kind, str(seconds + 1), *(f"{n.host}:{n.port}" for n in net.nodes)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as flooder:
            assert flooder.stdout is not None
            if flooder.stdout.readline() != "ready\n":
                raise SystemExit("the flood did not begin")
            _, figures = net.measure(20, seconds)
            answer = json.loads(flooder.stdout.readline())
        limited = net.client.status()["limited"].get(f"SWCI-{kind}", 0)
        ratio = figures["p50_ms"] / quiet
        figures |= {"quiet_ms": quiet, "ratio": ratio, "flooder": answer, "limited": limited}
        say(f"ledger.flood.{kind}", **figures)


def proposer(net: Network) -> Daemon:
    """The node that proposed the last block."""
    answer = net.client._get(f"/v1/blocks?after={net.chain()[1] - 1}").value
    block = Block.decode(base64.b64decode(answer["blocks"][-1][0]))
    names = {v["uid"]: v["name"] for v in net.client.status()["validators"]}
    return next(node for node in net.nodes if node.name == names[block.header.proposer])


def dead(net: Network, seconds: float, healthy: float) -> None:
    """The proposer dies at once; the others go on."""
    victim = proposer(net)
    source = net.source([node for node in net.nodes if node is not victim])
    kill = threading.Timer(seconds / 3, victim.kill)
    kill.start()
    result, figures = net.measure(20, seconds, source)
    kill.join()
    source.close()
    gaps = longest_gaps(result)
    after = [
        ms for ms, at in zip(result.spent, result.answered_at, strict=True) if at > seconds / 2 + 1
    ]
    figures |= {"p50_after_ms": percentile(after, 0.5), "gap_ms": gaps[0], "next_gap_ms": gaps[1]}
    say("ledger.dead", **figures, ratio=percentile(after, 0.5) / healthy)


def longest_gaps(result: Result) -> list[float]:
    """Milliseconds between consecutive answers, the longest first."""
    times = result.answered_at
    return sorted(((b - a) * 1000 for a, b in pairwise(times)), reverse=True)


def wan() -> None:
    """Commits over links of 30 ms, in virtual time."""
    from tests.ledger.test_cost import virtual_latencies

    with tempfile.TemporaryDirectory() as name:
        spent = virtual_latencies(Path(name), WAN_ONE_WAY, WAN_COMMITS)
    say("ledger.wan", n=4, one_way_ms=WAN_ONE_WAY * 1000, committed=len(spent),
        p50_ms=percentile(spent, 0.5), p99_ms=percentile(spent, 0.99))  # fmt: skip


def chains(ledger: float) -> None:
    """The same appends to an Ethereum node."""
    from tests.ethereum import anvil, npm

    for name, block_time in (("instant", 0.0), ("1s", 1.0)):
        try:
            with anvil.Anvil(block_time=block_time) as node:
                spent = [append(node) for _ in range(APPENDS // 10 if block_time else APPENDS)]
        except npm.NotObtainable as reason:
            say(f"chain.{name}", left_out=str(reason))
            continue
        p50 = percentile(spent, 0.5)
        say(f"chain.{name}", committed=len(spent), p50_ms=p50, p99_ms=percentile(spent, 0.99),
            ledger_ms=ledger, ratio=ledger / p50)  # fmt: skip


def append(node: Any) -> float:
    """Milliseconds from sending 300 bytes to the receipt; the node itself signs."""
    sender, to = node_accounts(node)
    data = "0x" + os.urandom(300).hex()
    began = time.perf_counter()
    name = ask(node, "eth_sendTransaction", {"from": sender, "to": to, "data": data})
    pause = threading.Event()
    while ask(node, "eth_getTransactionReceipt", name) is None:
        pause.wait(0.002)
    return (time.perf_counter() - began) * 1000


def node_accounts(node: Any) -> tuple[str, str]:
    """Two accounts that the node holds the keys of."""
    first, second, *_ = ask(node, "eth_accounts")
    return first, second


def ask(node: Any, method: str, *parameters: Any) -> Any:
    """One JSON-RPC call."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    connection.request("POST", "/", json.dumps(call), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer["result"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    options = parser.parse_args()
    seconds, only = options.seconds, set(options.only)
    with tempfile.TemporaryDirectory() as name:
        raw = raw_cost(Path(name))
    quiet = 0.0
    if "steady" in only:
        with network(1) as net:
            steady(net, seconds, raw(1))
    if only & {"steady", "fast", "flood", "dead", "anvil"}:
        with network(4) as net:
            quiet = steady(net, seconds, raw(4))
            if "fast" in only:
                say("ledger.open.300/s", **net.measure(300, 2 * seconds)[1])
            if "flood" in only:
                flood(net, seconds, quiet)
            if "dead" in only:
                dead(net, 1.5 * seconds, quiet)
    if "wan" in only:
        wan()
    if "anvil" in only:
        chains(quiet)


if __name__ == "__main__":
    main()
