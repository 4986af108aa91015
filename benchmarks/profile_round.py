"""Where a round's time goes: two tables for docs/explanation/performance.md, from a real run.

    python benchmarks/profile_round.py [--size 100] [--n 4] [--rounds 8] [--write]

With --write they replace what lies between the page's markers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import trainings
from benchmarks.bench_merge import Job, limit_process, run, workspace

PAGE = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "performance.md"
BEGIN, END = "<!-- profile: begin -->", "<!-- profile: end -->"

WORK = {
    "receive": "receive and decrypt",
    "send": "encrypt and send",
    "read": "digests of the own contribution, look for NaN",
    "check": "check the others' contributions against their digests",
    "digest": "digests of the result",
    "reduce": "reduce",
    "write": "save the result, after the round",
}


def timeline(
    rounds: Sequence[Sequence[trainings.Round]], learners: Sequence[Sequence[dict[str, float]]]
) -> dict[str, float]:
    """Step -> median seconds, over all rounds and members; every step begins where one ended."""
    steps: dict[str, list[float]] = {}
    for number, marks in enumerate(rounds):
        for mark, spent in zip(marks, (rows[number] for rows in learners), strict=True):
            moments = {
                "copy in: weights out of the framework, into shared memory": (
                    mark.began,
                    mark.written,
                ),
                "read: digests, look for NaN": (spent["at asked"], spent["at read"]),
                "ledger: check-in, until the roster is closed": (
                    spent["at read"],
                    spent["at started"],
                ),
                "exchange: send, receive, reduce": (spent["at started"], spent["at merged"]),
                "ledger: report the digest, until the round is decided": (
                    spent["at merged"],
                    spent["at told"],
                ),
                "copy out: merged weights into the framework": (mark.answered, mark.ended),
            }
            for step, (start, end) in moments.items():
                steps.setdefault(step, []).append(end - start)
    return {step: statistics.median(values) for step, values in steps.items()}


def tables(size: int, count: int, rounds: int) -> str:
    """Both tables, as Markdown."""
    with workspace(2 * size * count) as folder:
        limit = run(Job(folder, size, count, rounds), limit_process)
        (folder / "net").mkdir()
        found = trainings.run(
            folder / "net", size, count, rounds, module="benchmarks.profiled_learner"
        )
    learners = [json.loads(report)[trainings.WARM_UP :] for report in found.reports]
    steps = timeline(found.rounds, learners)
    whole = statistics.median(found.seconds)
    lines = [
        f"{count} learners, {size / 1e6:.0f} MB, {rounds} rounds, medians. "
        f"The whole round: {1000 * whole:.0f} ms; the plain algorithm in the same run: "
        f"{1000 * statistics.median(limit.seconds):.0f} ms. Its CPU time: "
        f"{1000 * statistics.median(limit.cpu):.0f} ms in all processes together.",
        "",
        "| step, as one member sees it | ms | share |",
        "|---|---:|---:|",
    ]
    total = sum(steps.values())
    lines += [f"| {step} | {1000 * s:.0f} | {s / total:.0%} |" for step, s in steps.items()]
    lines += ["", "| CPU time of a round, all processes | ms | share |", "|---|---:|---:|"]
    work = cpu(learners, found.cpu)
    all_work = sum(work.values())
    lines += [f"| {name} | {1000 * s:.0f} | {s / all_work:.0%} |" for name, s in work.items()]
    return "\n".join(lines)


def cpu(learners: Sequence[Sequence[dict[str, float]]], whole: float) -> dict[str, float]:
    """Work -> CPU seconds of a round, of all processes together."""
    rounds = len(learners[0])
    found = {
        text: sum(row.get(key, 0.0) for rows in learners for row in rows) / rounds
        for key, text in WORK.items()
    }
    spent = sum(row["total"] for rows in learners for row in rows) / rounds
    found["learners: threads, ledger, all else"] = spent - sum(found.values())
    found["programs (copy in, copy out) and network node"] = whole - spent
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=float, default=100, help="MB")
    parser.add_argument("--n", type=int, default=4, help="learners")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--write", action="store_true", help="into the page")
    args = parser.parse_args()
    text = tables(int(args.size * 1e6) // 64 * 64, args.n, args.rounds)
    print(text)
    if args.write:
        before, rest = PAGE.read_text().split(BEGIN)
        _, after = rest.split(END)
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
