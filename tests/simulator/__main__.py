"""Run worlds of replicas in which everything goes wrong, and check that nothing comes of it.

Each seed is one world: the production consensus core and the production state machine (or, with
--double, a small key-value one, about twice as fast), a network, disks and clocks with faults, and
liars among the validators, never more of anything than the fault model tolerates. After every step
the simulator checks agreement, validity, certificates, equal state digests, that no honest node
signs two values or votes against its lock, and that each acknowledged transaction is in the log
exactly once; after the faults end, that everything is committed within 90 virtual seconds, and that
nobody but liars was accused.

A seed always gives the same world. What fails is printed with the command that runs it again.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.simulator.judge import Broken
from tests.simulator.ledgers import KvLedger, real_ledger
from tests.simulator.profiles import DIRECTED, FAULTS
from tests.simulator.world import World

CHUNK = 50
MOST_NODES = 10
EXAMPLES = """
examples:
  python -m tests.simulator --seeds 1000 --double --jobs 2
  python -m tests.simulator --seeds 200 --nodes 4-7 --faults loss,crash,torn
  python -m tests.simulator --seeds 100 --profile ladder
  python -m tests.simulator --trace 42 --double | less
"""


@dataclass(frozen=True)
class Choice:
    """What kind of worlds to run."""

    double: bool
    profile: str
    nodes: tuple[int, ...]
    without: tuple[str, ...]
    words: str  # the options that choose it, for running a seed again

    def world(self, seed: int, *, trace: bool = False) -> World:
        """The world of a seed."""
        return World(
            seed,
            self.profile or None,
            ledger=KvLedger if self.double else real_ledger,
            sizes=self.nodes,
            without=self.without,
            log=print if trace else None,
        )


def run(choice: Choice, first: int, count: int) -> tuple[Counter[str], list[str], float]:
    """Figures, failures, and the CPU seconds that a row of seeds took."""
    began, total, failures = time.process_time(), Counter[str](), []
    for seed in range(first, first + count):
        world = choice.world(seed)
        try:
            total.update(world.run())
        except Broken as error:
            again = f"python -m tests.simulator --trace {seed}{choice.words}"
            failures.append(f"{error}\n    again: {again}")
        except Exception:
            print(f"seed {seed}{choice.words} raised", file=sys.stderr)
            raise
    return total, failures, time.process_time() - began


def explore(
    choice: Choice, first: int, count: int, jobs: int
) -> Iterator[tuple[Counter[str], list[str], float]]:
    """`run` on all seeds, in chunks, in as many processes."""
    rows = [(at, min(CHUNK, first + count - at)) for at in range(first, first + count, CHUNK)]
    if jobs == 1:
        for at, size in rows:
            yield run(choice, at, size)
        return
    with ProcessPoolExecutor(jobs) as pool:
        waiting = [pool.submit(run, choice, at, size) for at, size in rows]
        for future in waiting:
            yield future.result()


def numbers(text: str) -> tuple[int, ...]:
    """`4`, `1,4,7` or `2-5`."""
    found: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        found += range(int(low), int(high or low) + 1)
    if not found or not all(1 <= n <= MOST_NODES for n in found):
        raise ValueError(f"numbers of validators are 1 to {MOST_NODES}")
    return tuple(found)


def left_out(text: str) -> tuple[str, ...]:
    """The faults that `--faults` does not select."""
    if text in ("all", "none"):
        return () if text == "all" else tuple(FAULTS)
    chosen = [name for name in text.split(",") if name]
    strange = set(chosen) - set(FAULTS)
    if strange:
        raise ValueError(f"no such fault: {', '.join(sorted(strange))}")
    return tuple(name for name in FAULTS if name not in chosen)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    width = max(map(len, [*FAULTS, *DIRECTED]))
    rows = [f"  {name:{width}}  {text}" for name, text in FAULTS.items()]
    named = [
        textwrap.fill(f"  {name:{width}}  {aim}", 98, subsequent_indent=" " * (width + 4))
        for name, (aim, _) in DIRECTED.items()
    ]
    result = argparse.ArgumentParser(
        prog="python -m tests.simulator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["faults:", *rows, "", "profiles, each with an aim:", *named, EXAMPLES]),
    )
    add = result.add_argument
    add("--seeds", type=int, default=200, metavar="N", help="how many worlds (200)")
    add("--from", type=int, default=0, dest="first", metavar="K", help="the first seed (0)")
    add("--nodes", default="", metavar="LIST", help="numbers of validators: 4 or 1,4,7 or 2-5")
    add("--faults", default="all", metavar="LIST", help="these alone, by name; all; or none")
    add("--profile", default="", choices=list(DIRECTED), metavar="NAME", help="a directed profile")
    add("--double", action="store_true", help="order for the key-value double, which is faster")
    add("--jobs", type=int, default=1, metavar="J", help="processes to run in (1)")
    add("--trace", type=int, metavar="SEED", help="run this seed alone and print what happens")
    return result


def main() -> int:
    """Parse, run, report; 1 when a seed failed."""
    options = parser().parse_args()
    try:
        nodes, without = numbers(options.nodes) if options.nodes else (), left_out(options.faults)
    except ValueError as error:
        parser().error(str(error))
    words = "".join(
        f" --{name} {value}"
        for name in ("profile", "nodes", "faults")
        if (value := getattr(options, name)) and value != "all"
    )
    words += " --double" if options.double else ""
    choice = Choice(options.double, options.profile, nodes, without, words)
    if options.trace is not None:
        return trace(choice, options.trace)
    total: Counter[str] = Counter()
    bad, spent = 0, 0.0
    for figures, failures, seconds in explore(choice, options.first, options.seeds, options.jobs):
        total.update(figures)
        bad += len(failures)
        spent += seconds
        for failure in failures:
            print(failure, flush=True)
    figures_text = ", ".join(f"{value:,} {name}" for name, value in total.items())
    speed = f"{spent:.1f} CPU seconds, {options.seeds / spent:.0f} seeds a CPU second"
    print(f"{options.seeds} seeds, {bad} bad; {figures_text}; {speed}")
    return 1 if bad else 0


def trace(choice: Choice, seed: int) -> int:
    """Print the event log of one world."""
    try:
        print(f"fine: {choice.world(seed, trace=True).run()}")
    except Broken as error:
        print(f"BROKEN: {error}")
        return 1
    except BrokenPipeError:  # the reader has seen enough; nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
