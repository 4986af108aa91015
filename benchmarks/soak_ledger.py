"""What the ledger takes in the long run: memory, disk, idle processor, catching up, starting.

    python benchmarks/soak_ledger.py [--transactions 100000] [--rate 200] [--only memory …]

One JSON line a figure; nodes are processes over the real mesh. Cases:

- `soak.memory`: resident memory of each of 4 nodes while so many transactions are committed at
  `--rate`; `first_mb` after the first tenth, `last_mb` at the end, `grown` their ratio, `disk_mb`
  the data directory at the end. With `--tasks` so many tasks of 20 lines exist beforehand.
- `soak.idle`: share of a core, in per cent, that each of 4 nodes takes when nothing happens, over
  30 s (`/proc/PID/stat`).
- `soak.rounds`: bytes that a training round adds to the data directory with 2 and 8 learners, each
  operation in a block of its own (`alone`) and those of a step in one (`together`), certificates of
  4 validators.
- `soak.catch_up`: seconds from the start of a joiner's process until it is ready, with `--behind`
  blocks of one transaction to fetch and verify from 4 nodes; `join_s` is the same without them.
- `soak.start`: seconds from the start of a node's process until it is ready, with `--own` blocks of
  its own; `empty_s` the same with next to none.

Takes about `--transactions` / `--rate` seconds, and some minutes for the long chains.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_ledger import Network, network, say
from benchmarks.chains import Chain
from swarm.identity import Identity, Role, node_uid
from swarm.ledger import directory
from tests import pki
from tests.ledger.net import genesis_for
from tests.processes import Daemon, Processes, until

CASES = ("memory", "idle", "rounds", "catch_up", "start")
IDLE_SECONDS = 30.0
ROUNDS = 40
PATIENCE = 300.0
CONTRACT = "defaultbb.cqdb.sml.hpe"
NODE = {
    "host": "10.0.0.1", "port": 30304, "p2p": [], "peer_id": "", "parent": "", "validator": False,
    "runner": "", "pairs": 0, "contract": "", "version": "",
}  # fmt: skip


def resident_mb(sn: Daemon) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{sn.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def size_of(path: Path) -> int:
    """Bytes of all files in a directory."""
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())


def data_of(sn: Daemon) -> Path:
    return Path(sn.env["SWARM_DATA_DIR"])


def identity_of(sn: Daemon) -> Identity:
    env = sn.env
    return Identity.load(
        Path(env["SWARM_ID_CERT"]), Path(env["SWARM_ID_KEY"]), capath=Path(env["SWARM_ID_CAPATH"])
    )


# ---------------------------------------------------------------------- memory and processor


def memory(transactions: int, rate: float, tasks: int) -> None:
    """Commit so many, and look at the memory now and then."""
    with network(4) as net:
        for number in range(tasks):
            task = {"name": f"t{number}", "type": "RUN_SWARM", "author": "A", "prereq": "ROOTTASK"}
            net.client.submit("task.create", {**task, "outcome": "o"})
            lines = ["x" * 60] * 20
            net.client.submit("task.append", {"task": f"t{number}", "index": 1, "lines": lines})
        slices = 20
        samples = []
        began = time.perf_counter()
        errors = done = 0
        p99 = 0.0
        for _ in range(slices):
            _, figures = net.measure(rate, transactions / slices / rate)
            done += figures["committed"]
            errors += figures["errors"]
            p99 = max(p99, figures["p99_ms"])
            samples.append([resident_mb(sn) for sn in net.nodes])
            print(
                json.dumps({"done": done, "mb": [round(mb, 1) for mb in samples[-1]]}), flush=True
            )
        first, last = samples[1], samples[-1]
        say(
            "soak.memory",
            n=len(net.nodes),
            tasks=tasks,
            committed=done,
            errors=errors,
            blocks=net.chain()[1],
            per_s=done / (time.perf_counter() - began),
            worst_p99_ms=p99,
            first_mb=max(first),
            last_mb=max(last),
            grown=max(b / a for a, b in zip(first, last, strict=True)),
            disk_mb=size_of(data_of(net.nodes[0])) / 2**20,
        )


def idle() -> None:
    """Four nodes, and nothing to do."""
    with network(4) as net:
        quiet = threading.Event()
        quiet.wait(10)  # what the last transactions left behind
        before = [sn.cpu_seconds() for sn in net.nodes]
        began = time.perf_counter()
        quiet.wait(IDLE_SECONDS)  # the measurement itself takes time
        took = time.perf_counter() - began
        shares = [
            100 * (sn.cpu_seconds() - cpu) / took for sn, cpu in zip(net.nodes, before, strict=True)
        ]
        say("soak.idle", n=4, seconds=took, percent=max(shares), all=[round(s, 2) for s in shares])


# ---------------------------------------------------------------------- bytes of a round


class Training:
    """A contract with so many learners, on a ledger of four validators without processes."""

    def __init__(self, path: Path, learners: int) -> None:
        ca = pki.authority(path)
        nodes = [pki.identity(path / f"sn{k}", Role.SN, ca, name=str(k)) for k in range(4)]
        genesis = genesis_for(nodes[0])
        sites = [(path / f"data{k}", node) for k, node in enumerate(nodes)]
        for k, (place, _) in enumerate(sites):
            directory.create(place, genesis, founder=not k)
        self.chain = Chain(sites)
        self.data = sites[0][0]
        for k, node in enumerate(nodes[1:], 1):
            own = {"uid_name": "", "type": "SN", "validator": True, "name": f"sn{k}"}
            self.do([(node, "node.enroll", {**NODE, **own})])
        self.learners = {}
        for k in range(learners):
            identity = pki.identity(path / f"sl{k}", Role.SL, ca, name=str(k))
            self.learners[node_uid(identity.fingerprint, f"sl{k}")] = identity
        parent = node_uid(nodes[0].fingerprint)
        for k, (uid, identity) in enumerate(self.learners.items()):
            own = {"uid_name": f"sl{k}", "type": "SL", "parent": parent, "contract": CONTRACT}
            self.do([(identity, "node.enroll", {**NODE, **own})])
            rules = {
                "min_peers": learners, "merge_method": "mean", "merge_args": {},
                "sync_frequency": 100, "adaptive": False,
            }  # fmt: skip
            where = {"contract": CONTRACT, "uid": uid, "name": f"sl{k}", "host": "10.0.0.1"}
            enroll = {**where, "port": 30305, "rules": rules, "mode": "snapshot"}
            self.do([(identity, "contract.enroll", enroll)])

    def do(self, acts: list[tuple[Identity, str, dict[str, Any]]]) -> None:
        """One block; every operation must be accepted."""
        outcome = self.chain.block(*(self.chain.transaction(*act) for act in acts))
        assert all(verdict.ok for verdict in outcome.verdicts), outcome.verdicts

    def round(self, together: bool) -> None:
        """All check in, hold the same result, and report."""
        contract = self.chain.app.state.get("contracts", CONTRACT)
        assert contract is not None
        number, last = contract["round"], contract["last"]
        here = {"contract": CONTRACT, "round": number}
        checkin = {
            **here, "weight": 10_000, "samples": 1000, "root": os.urandom(32), "schema": bytes(32),
            "size": 1 << 20, "base": last["digest"] if last else None, "done": False,
            "tensors": ["dense/kernel float32 784x128", "dense/bias float32 128"],
        }  # fmt: skip
        merged = {
            **here, "attempt": 0, "digest": os.urandom(32),
            "shards": [os.urandom(32) for _ in self.learners],
        }  # fmt: skip
        report = {**here, "loss": "0.123456", "metric": "0.987654", "epochs": 1, "total_epochs": 9}
        steps = (("round.checkin", checkin), ("round.merged", merged), ("round.report", report))
        for op, args in steps:
            acts = [(who, op, {**args, "uid": uid}) for uid, who in self.learners.items()]
            if op == "round.merged":  # decided by more than half; the rest come too late to matter
                acts = acts[: len(acts) // 2 + 1]
            for part in [acts] if together else [[act] for act in acts]:
                self.do(part)

    def size(self) -> int:
        """Bytes of the database with everything in it."""
        self.chain.stores[0]._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return size_of(self.data)


def rounds() -> None:
    """Bytes of a round, after the first ones."""
    for learners in (2, 8):
        for together in (False, True):
            with tempfile.TemporaryDirectory() as name:
                training = Training(Path(name), learners)
                for _ in range(ROUNDS // 2):
                    training.round(together)
                before = training.size()
                height = training.chain.app.height
                for _ in range(ROUNDS):
                    training.round(together)
                say(
                    "soak.rounds",
                    learners=learners,
                    blocks="together" if together else "alone",
                    blocks_a_round=(training.chain.app.height - height) / ROUNDS,
                    bytes_a_round=(training.size() - before) // ROUNDS,
                )
                training.chain.close()


# ---------------------------------------------------------------------- long chains


def extend(nodes: list[Daemon], member: Identity, blocks: int) -> None:
    """Give ended nodes so many further blocks of one transaction."""
    chain = Chain([(data_of(sn), identity_of(sn)) for sn in nodes])
    for number in range(blocks):
        args = {"task": "bench", "index": 1, "lines": [f"line {number}"]}
        chain.block(chain.transaction(member, "task.append", args))
    chain.close()


def restart(run: Processes, nodes: list[Daemon]) -> None:
    for sn in nodes:
        sn.start()
    for sn in nodes:
        run.ready(sn, PATIENCE)


def join(net: Network, name: str) -> float:
    """Seconds until a new node is ready."""
    began = time.perf_counter()
    net.run.sn(name, net.ca, sentinel=net.nodes[0], wait=PATIENCE).terminate()
    return time.perf_counter() - began


def catch_up(behind: int) -> None:
    """A fifth node joins a long ledger."""
    with network(4) as net:
        quick = join(net, "early")
        for sn in net.nodes:
            sn.kill()
        extend(net.nodes, net.member, behind)
        restart(net.run, net.nodes)
        until(lambda: len(net.client.status()["peers"]) == 3, 60, "they are connected")
        took = join(net, "late")
        say("soak.catch_up", blocks=behind, ready_s=took, join_s=quick, blocks_per_s=behind / took)


def start(own: int) -> None:
    """A node alone starts on a long ledger."""
    with network(1) as net:
        (sn,) = net.nodes

        def seconds() -> float:
            sn.kill()
            began = time.perf_counter()
            restart(net.run, [sn])
            return time.perf_counter() - began

        empty = min(seconds() for _ in range(3))
        sn.kill()
        extend([sn], net.member, own)
        restart(net.run, [sn])
        full = min(seconds() for _ in range(3))
        mb = size_of(data_of(sn)) / 2**20
        say("soak.start", blocks=own, ready_s=full, empty_s=empty, disk_mb=mb)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--transactions", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--tasks", type=int, default=0)
    parser.add_argument("--behind", type=int, default=10_000)
    parser.add_argument("--own", type=int, default=100_000)
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    options = parser.parse_args()
    if "idle" in options.only:
        idle()
    if "rounds" in options.only:
        rounds()
    if "catch_up" in options.only:
        catch_up(options.behind)
    if "start" in options.only:
        start(options.own)
    if "memory" in options.only:
        memory(options.transactions, options.rate, options.tasks)


if __name__ == "__main__":
    main()
