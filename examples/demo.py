"""Two hosts train MNIST as one swarm, on this machine: `make demo`.

Issues certificates, starts two network nodes and two operators, runs the example's script, and ends
with a table of what was reached. Whatever happens, Ctrl-C included, nothing is left running.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import two_hosts
from docker_hosts import DockerHosts
from ordering import EthereumOrdering
from rich.console import Console
from rich.table import Table
from two_hosts import CONTRACT, RUNNER, Host, StepFailed, TwoHosts, free_ports

from swarm.api.client import ApiClient
from swarm.audit import model, record
from swarm.audit.remote import Remote
from swarm.errors import SwarmFault
from swarm.identity import Identity

LAST_LINES = 3  # of each ML program's log
TAG = "demo-"  # begins the name of every node of the demonstration
console = Console(highlight=False, soft_wrap=True)


class Interrupted(Exception):
    """A signal asked the demonstration to end."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--runtime", choices=("process", "docker"), default="process")
    parser.add_argument("--orderer", choices=("embedded", "ethereum"), default="embedded")
    parser.add_argument(
        "--directory",
        type=Path,
        default=two_hosts.REPOSITORY / "demo",
        help="where the two hosts' files go; what an earlier demonstration left there is removed",
    )
    arguments = parser.parse_args()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    if arguments.orderer == "ethereum" and arguments.runtime == "docker":
        # Containers would need the node on an address that every host of this machine can reach.
        console.print("[red]ORDERER=ethereum runs with RUNTIME=process only[/]")
        return 2
    try:
        demonstrate(arguments.runtime, arguments.directory.resolve(), arguments.orderer)
    except Interrupted as cause:
        console.print(f"[yellow]stopped: {cause}; nothing is left running[/]")
        return 130
    except (StepFailed, SwarmFault, OSError) as fault:
        console.print(f"[red]the demonstration failed:[/] {fault}", markup=True)
        console.print(f"logs: {arguments.directory.resolve()}")
        return 1
    return 0


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(signal.Signals(signum).name)


def demonstrate(runtime: str, directory: Path, orderer: str = "embedded") -> None:
    """Run all steps; stops every node in the end, in order."""
    started = time.monotonic()
    shutil.rmtree(directory, ignore_errors=True)
    say = _Progress(started)
    if runtime == "docker":
        say("preparing the Docker engine: images and two networks")
        environment: Any = DockerHosts(directory, TAG)
    else:
        environment = LoopbackHosts(directory)
    with ExitStack() as stack:
        hosts = stack.enter_context(environment)
        swarm = TwoHosts(hosts, runtime=runtime, tag=TAG, say=say)
        if orderer == "ethereum":
            swarm.ledger_flags = stack.enter_context(EthereumOrdering(directory, say)).flags
        script: subprocess.Popen[str] | None = None
        try:
            say("for each host: MNIST digits of its own, certificates; exchanging CA certificates")
            swarm.prepare()
            for host in hosts:
                environment.adapt(host)
            for host in hosts:
                say(f"starting network node {swarm.name('sn', host)} on {host.address}")
                swarm.network_node(host)
            for host in hosts:
                say(f"starting operator {swarm.name('swop', host)}")
                swarm.operator(host)
            with Observer(hosts, say) as observer:
                say("running the script examples/mnist/swci/swci-init")
                script = swarm.command_interface()
                if status := two_hosts.follow(script, say.quote):
                    raise StepFailed(f"the script ended with status {status}")
                observer.show_last_lines()
                table = results(hosts, observer)
            console.print(table)
            say(f"done in {time.monotonic() - started:.0f} s")
        finally:
            _stop(swarm, script, say)


def _stop(swarm: TwoHosts, script: subprocess.Popen[str] | None, say: _Progress) -> None:
    # A second Ctrl-C must not leave nodes behind: the clean-up is bounded, and finishes.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    say("stopping all nodes")
    if script is not None:
        two_hosts.stop_process(script)
    swarm.stop()


class _Progress:
    """Timestamped lines, so that something is seen all the time."""

    def __init__(self, started: float) -> None:
        self._started = started

    def __call__(self, text: str) -> None:
        elapsed = time.monotonic() - self._started
        console.print(f"[dim]{elapsed:6.1f} s[/]  {text}")

    def quote(self, line: str) -> None:
        console.print(f"          │ {line}", markup=False)


class LoopbackHosts:
    """Two hosts that are two directories and two sets of free ports on loopback."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> list[Host]:
        ports = free_ports(6)
        return [
            Host(
                index=index,
                address="127.0.0.1",
                directory=_made(self._directory / f"host-{index}"),
                p2p_port=ports.pop(),
                api_port=ports.pop(),
                learner_port=ports.pop(),
            )
            for index in (1, 2)
        ]

    def adapt(self, host: Host) -> None:
        """Plain processes need nothing beyond what the guide says."""

    def __exit__(self, *exc: object) -> None:
        """Directories stay, with logs and models."""


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


class Observer:
    """Watches the ledger through each host's own network node while the script runs."""

    def __init__(self, hosts: list[Host], say: _Progress) -> None:
        self._hosts = hosts
        self._say = say
        self._lock = threading.Lock()
        self._texts: dict[str, str] = {}
        self._round = -1
        self.history: dict[int, dict[str, Any]] = {}
        self.clients: list[ApiClient] = []

    def __enter__(self) -> Observer:
        for host in self._hosts:
            where = [(host.address, host.api_port)]
            self.clients.append(ApiClient(_operator(host), where, learn=False))
        keys = [f"taskrunners/{RUNNER}", f"contracts/{CONTRACT}"]
        self._watch = self.clients[0].watch(keys)
        self._watch.on_change(self._changed)
        return self

    def __exit__(self, *exc: object) -> None:
        self._watch.close()
        for client in self.clients:
            client.close()

    def _changed(self, watch: Any) -> None:
        runner = watch.records.get(f"taskrunners/{RUNNER}") or {}
        contract = watch.records.get(f"contracts/{CONTRACT}") or {}
        with self._lock:
            for name, peer in runner.get("peers", {}).items():
                self._texts[name] = f"{peer['state']}: {peer['text']}"
            for entry in contract.get("history", []):
                if entry["round"] not in self.history:
                    self.history[entry["round"]] = entry
                    self._say(
                        f"[green]round {entry['round']} merged[/] from "
                        f"{len(entry['roster'])} learners in {_seconds(entry):.2f} s"
                    )

    def show_last_lines(self) -> None:
        """The end of each ML program's log, as its operator reported it to the ledger."""
        for name, text in sorted(self._texts.items()):
            lines = [line for line in text.splitlines() if line.strip()]
            self._say(f"last log lines of {name}:")
            for line in lines[-LAST_LINES:]:
                self._say.quote(line)


def _operator(host: Host) -> Identity:
    """The identity with which a host's SWCI works."""
    cert = host.workspace / "cert"
    names = [cert / f"swci-{host.index}-{kind}.pem" for kind in ("cert", "key")]
    return Identity.load(*names, capath=host.capath)


def proven(host: Host, model_file: Path) -> str:
    """Export the record of the training, and check it and the model as an outsider would."""
    identity = _operator(host)
    with Remote(identity, host.address, host.api_port) as ledger:
        if ledger.genesis.order is not None:
            return "no: no certificates here"  # the order is the other network's word
        made = record.export(ledger, CONTRACT)
    path = host.workspace / "record.json"
    record.write(made, path)
    summary = record.check(record.read(path), identity.trust.ca_ders)
    wrong = model.difference(model.read_keras(model_file), summary["model"], summary["result"])
    if wrong:
        raise StepFailed(f"{model_file} is not the recorded result: {wrong}")
    return os.path.relpath(path)


def _seconds(entry: dict[str, Any]) -> float:
    return float(entry["at_ms"] - entry["started_ms"]) / 1000


def results(hosts: list[Host], observer: Observer) -> Table:
    """What each node reached, and what each ledger says; a column for each host."""
    merge = statistics.median(_seconds(entry) for entry in observer.history.values())
    # Both are asked for one height, so that equal digests mean equal ledgers.
    height = max(client.status()["height"] for client in observer.clients)
    table = Table(title="MNIST: two hosts, one swarm", title_justify="left")
    table.add_column("")
    columns = []
    for host, client in zip(hosts, observer.clients, strict=True):
        table.add_column(f"host-{host.index}", overflow="fold")
        result = json.loads((host.user / "result.json").read_text())
        client.table("nodes", min_height=height)
        ledger = client.status()
        columns.append(
            [
                f"{result['accuracy']:.4f}",
                str(len(observer.history)),
                # An Ethereum network's blocks count whole seconds; the program has measured, too.
                f"{merge or result['median_merge_seconds']:.2f} s",
                os.path.relpath(host.user / result["model"]),
                result["weights_sha256"][:16],
                proven(host, host.user / result["model"]),
                str(ledger["height"]),
                ledger["digest"][:16],
            ]
        )
    titles = [
        "test accuracy",
        "rounds merged",
        "median merge time",
        "model file",
        "model weights (SHA-256)",
        "rounds and model proven",
        "ledger height",
        "ledger state digest",
    ]
    for title, *values in zip(titles, *columns, strict=True):
        table.add_row(title, *values)
    return table


if __name__ == "__main__":
    sys.exit(main())
