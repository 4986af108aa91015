"""`swarm up`, `swarm down`: the command lines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from swarm.errors import LocalError, RemoteError
from swarm.host import record
from swarm.host.hostfile import FILE_NAME, read_host
from swarm.host.plan import make_plan
from swarm.host.probes import Probes, first_that_answers
from swarm.host.runtimes import runtime_of
from swarm.host.updown import Host

WAIT_SECONDS = 180.0


def say(text: str) -> None:
    """Tell at once, also into a pipe."""
    print(text, flush=True)


def add_file(parser: argparse.ArgumentParser) -> None:
    """The host's file."""
    parser.add_argument(
        "-f", "--file", type=Path, default=Path(FILE_NAME), metavar="FILE",
        help=f"the host's file (default: {FILE_NAME})",
    )  # fmt: skip


def up(argv: Sequence[str]) -> int:
    """Execute `swarm up`; the exit status. Raises LocalError, UsageError."""
    parser = argparse.ArgumentParser(
        prog="swarm up",
        description="Start what a host's file describes; what runs already is left as it is.",
    )
    add_file(parser)
    parser.add_argument(
        "--wait", type=_seconds, default=WAIT_SECONDS, metavar="SECONDS",
        help="how long each node may take to become ready (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--restart", action="store_true", help="stop and start nodes whose settings changed"
    )
    parser.add_argument(
        "--show", action="store_true", help="only print the commands that would be executed"
    )
    args = parser.parse_args(argv)
    read = read_host(args.file)
    own, node = record.directory(read.host.name), read.host.network_node
    if args.show:
        for planned in make_plan(read, own).nodes:
            print(planned.command)
        return 0
    with record.exclusive(read.host.name):
        plan = make_plan(read, own, first_that_answers(node.join) if node else "")
        with Probes(read, plan) as probe:
            host = Host(runtime_of(read.host.runtime), probe, say)
            try:
                host.up(read, plan, limit=args.wait, restart=args.restart)
            except RemoteError as fault:
                raise LocalError(fault.code, fault.cause) from fault
            except KeyboardInterrupt:
                say("interrupted: nothing that this call started is left")
                return 130
    return 0


def down(argv: Sequence[str]) -> int:
    """Execute `swarm down`; the exit status. Raises LocalError."""
    parser = argparse.ArgumentParser(
        prog="swarm down",
        description="Stop what `swarm up` started on this host, and nothing else.",
    )
    add_file(parser)
    parser.add_argument("--name", help="the host's name, instead of its file")
    parser.add_argument(
        "--remove-data", action="store_true",
        help="remove ledger and logs, too: the next `swarm up` begins anew",
    )  # fmt: skip
    args = parser.parse_args(argv)
    name = args.name or read_host(args.file).host.name
    if args.name and args.name not in record.recorded():
        known = ", ".join(record.recorded()) or "none"
        raise LocalError("SW9035", f"--name {name} (hosts that were started here: {known})")
    with record.exclusive(name):
        known_host = record.read(name)
        if known_host is None:
            say(f"{name}: nothing that `swarm up` started is left")
            record.forget(name)
            return 0

        host = Host(runtime_of(known_host.runtime), lambda node, elapsed: "", say)
        host.down(known_host, remove=args.remove_data)
    return 0


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds from 0 to 86400")
    return value
