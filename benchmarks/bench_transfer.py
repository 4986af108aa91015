"""What `transferDtype` saves and costs in whole rounds, as programs see them: one JSON line each.

`shared_mb` is what the program and its learner share, and the vector that travels; a learner sends
2·shared_mb·(n-1)/n in a round. `write` and `load` are the parts of a round in which the program
hands its weights in, rounded, and takes the merged ones, widened. Seconds are medians; the types
take turns, so that other load meets all of them. Loopback is faster than any line: what a line of
`--mbit` takes longer for the bytes is `line_seconds`, computed.

    python benchmarks/bench_transfer.py [--sizes 100] [--n 2] [--rounds 5] [--turns 3] [--mbit 1000]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import trainings
from swarmlearning.narrow import TRANSFER
from swarmlearning.tensors import Layout


def measure(size: int, count: int, rounds: int, turns: int, mbit: float) -> None:
    """Measure one size and number of learners, and print a line for each type."""
    kinds = ["", *TRANSFER]
    found: dict[str, list[trainings.Outcome]] = {kind: [] for kind in kinds}
    memory = Path("/dev/shm")
    for _ in range(turns):
        for kind in kinds:
            with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
                settings = {"transferDtype": kind} if kind else {}
                found[kind].append(trainings.run(Path(folder), size, count, rounds, **settings))
    shared = {kind: Layout.of(trainings.model(size, 0), kind).size for kind in kinds}
    for kind, outcomes in found.items():
        marks = [mark for one in outcomes for round_ in one.rounds for mark in round_]
        sent = 2 * shared[kind] * (count - 1) / count
        line = {
            "what": "transfer",
            "transferDtype": kind or None,
            "n": count,
            "model_mb": size / 1e6,
            "shared_mb": round(shared[kind] / 1e6, 2),
            "seconds": round(statistics.median(s for one in outcomes for s in one.seconds), 4),
            "write": round(statistics.median(m.written - m.began for m in marks), 4),
            "load": round(statistics.median(m.ended - m.answered for m in marks), 4),
            "line_seconds": round(sent * 8 / (mbit * 1e6), 4),
            "program_grows_mb": round(max(one.grown for one in outcomes) / 1e6, 1),
            "learner_peak_mb": round(max(one.peak for one in outcomes) / 1e6, 1),
        }
        print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[100], help="MB")
    parser.add_argument("--n", type=int, nargs="+", default=[2], help="learners")
    parser.add_argument("--rounds", type=int, default=5, help="of each training")
    parser.add_argument("--turns", type=int, default=3, help="trainings with each type")
    parser.add_argument("--mbit", type=float, default=1000.0, help="megabits a second of a line")
    args = parser.parse_args()
    for megabytes in args.sizes:
        for count in args.n:
            size = int(megabytes * 1e6) // 64 * 64
            measure(size, count, args.rounds, args.turns, args.mbit)


if __name__ == "__main__":
    main()
