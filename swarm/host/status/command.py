"""`swarm status`: draws the screen again and again, or prints it once."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.live import Live

from swarm.host.asker import add_options, asker_of
from swarm.host.status.gather import Network
from swarm.host.status.overview import Overview, overview, utc_now
from swarm.host.status.screen import draw

EVERY_SECONDS = 2.0
PIPE_WIDTH = 120  # columns where the output is no terminal


def main(argv: Sequence[str]) -> int:
    """Execute `swarm status`; 1 when no network node answers. Raises LocalError, UsageError."""
    args = _parser().parse_args(argv)
    identity, places = asker_of(args)
    network = Network(identity, places, utc_now)
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    try:
        if args.json or args.once or not console.is_terminal:
            return show_once(overview(network.look()), console, as_json=args.json)
        follow(network, console, args.every)
    except KeyboardInterrupt:
        return 0  # how one leaves it
    finally:
        network.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swarm status",
        description="Show the network: nodes, taskrunners, contracts, rounds, and what each of "
        "them waits for. Refreshes until Ctrl-C; prints once where the output is no terminal.",
    )
    add_options(parser)
    parser.add_argument("--once", action="store_true", help="print once, and end")
    parser.add_argument("--json", action="store_true", help="print once, for programs")
    parser.add_argument(
        "--every", type=_seconds, default=EVERY_SECONDS, metavar="SECONDS",
        help="time between two looks (default: %(default)g)",
    )  # fmt: skip
    return parser


def show_once(view: Overview, console: Console, *, as_json: bool) -> int:
    """Print a screen; the exit status."""
    if as_json:
        print(json.dumps(asdict(view), indent=2))
    else:
        console.print(draw(view, console.width))
    return 1 if view.problem else 0


def follow(network: Network, console: Console, every: float) -> None:
    """Draw until interrupted. Without an answer, what was seen last stays, below the reason."""
    seen: Overview | None = None
    pause = threading.Event()  # nobody sets it: waiting on it can be interrupted everywhere
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            view = overview(network.look())
            if view.problem and seen is not None:
                view = stale(seen, view)
            elif not view.problem:
                seen = view
            live.update(draw(view, console.width), refresh=True)
            pause.wait(every)


def stale(seen: Overview, view: Overview) -> Overview:
    """The last screen that was seen, with why there is no newer one."""
    why = f"{view.problem} (below: as it was at {seen.at})"
    return Overview(**{**vars(seen), "problem": why, "warnings": view.warnings})


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.5 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds from 0.5 to 3600")
    return value
