"""The benchmark of merges and the profile of a round run, and print what they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BOUND = 300.0  # seconds


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_benchmark_prints_json_lines() -> None:
    what = ["round", "exchange", "floor"]
    options = ("--sizes", "0.2", "--n", "2", "--rounds", "2", "--what", *what)
    lines = [json.loads(line) for line in run("benchmarks/bench_merge.py", *options).splitlines()]
    assert [line["what"] for line in lines] == what
    for line in lines:
        assert line["seconds"] > 0 and line["limit_seconds"] > 0 and line["cpu_ratio"] > 0
    # 0.1 MB each way, and the digests of 192 blocks.
    assert 200_000 < lines[1]["bytes_per_learner"] < 210_000


def test_the_profile_is_what_the_page_shows() -> None:
    text = run("benchmarks/profile_round.py", "--size", "0.2", "--n", "2", "--rounds", "2")
    page = (REPOSITORY / "docs" / "explanation" / "performance.md").read_text()
    shown = page.split("<!-- profile: begin -->")[1].split("<!-- profile: end -->")[0]

    def steps(tables: str) -> list[str]:
        return [line.split("|")[1] for line in tables.splitlines() if line.startswith("|")]

    assert len(steps(text)) == 19 and steps(text) == steps(shown)
