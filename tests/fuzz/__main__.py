"""`python -m tests.fuzz --minutes 10 [--only NAME]`: fuzz all parsers, or some of them.

The time is shared among the targets. With atheris installed (`pip install atheris`, Python 3.11 to
3.13) the search is guided by coverage, and the inputs that took new paths are kept in
`tests/fuzz/corpus`. Without it, inputs are changed at random. Status 1 when anything was found.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.findings import note

if TYPE_CHECKING:
    from tests.fuzz.target import Target

PRODUCT = ["swarm", "sentinel", "swop", "swci", "swarmlearning"]
GUIDED = importlib.util.find_spec("atheris") is not None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", action="append", metavar="NAME", help="may be repeated")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    targets = load()
    unknown = set(options.only or ()) - set(targets)
    if unknown:
        parser.error(f"no target {min(unknown)}; there are {', '.join(targets)}")
    chosen = [targets[name] for name in options.only or targets]
    seconds = max(1, int(60 * options.minutes / len(chosen)))
    search = _guided if GUIDED else _at_random
    if not GUIDED:
        print("atheris is not installed: changing inputs at random, without looking at coverage")
    found = 0
    for target in chosen:
        with tempfile.TemporaryDirectory() as name:
            print(f"{target.name:16} {search(target, seconds, Path(name))}", flush=True)
            for path in sorted(Path(name).glob("*.txt")):
                found += 1
                print(path.read_text(), flush=True)
    print(f"{found} findings" if found else "nothing found")
    return 1 if found else 0


def load() -> Mapping[str, Target]:
    """Import all targets, and with them the product; instrumented where that is possible."""
    if GUIDED:
        import atheris

        with atheris.instrument_imports(include=PRODUCT):
            from tests.fuzz.targets import ALL
    else:
        from tests.fuzz.targets import ALL
    return ALL


def _guided(target: Target, seconds: int, folder: Path) -> str:
    """Search in a child, as libFuzzer ends the process that it runs in."""
    from tests.fuzz import corpus
    from tests.fuzz.target import MAX_INPUT

    work, log = folder / "work", folder / "log"
    work.mkdir()
    for number, data in enumerate([*target.seeds(), *corpus.kept(target.name)]):
        (work / f"seed-{number}").write_bytes(data)
    flags = [f"-max_total_time={seconds}", f"-max_len={MAX_INPUT}", "-timeout=60"]
    flags += ["-rss_limit_mb=4096", f"-artifact_prefix={folder}/", str(work)]
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        _search(target, folder, flags)
    _, status = os.waitpid(child, 0)
    lines = log.read_text(errors="replace").splitlines()
    if status:
        # libFuzzer itself gave up: too slow, too large, or the process died.
        (folder / "died.txt").write_text("\n".join(lines[-60:]))
    found = [path.read_bytes() for path in work.iterdir() if path.name[:5] != "seed-"]
    kept = corpus.keep(target.name, [*corpus.kept(target.name), *found])
    ran = [line for line in lines if line.startswith("Done ")]
    return f"{ran[-1] if ran else 'no result'}; {len(found)} paths, {kept} inputs kept"


def _search(target: Target, folder: Path, flags: list[str]) -> None:
    """Does not return. What is found is noted, one file for each place, and the search goes on."""
    import atheris

    def once(data: bytes) -> None:
        try:
            target.attempt(data)
        except Exception as error:
            note(folder, target.name, data, error)

    atheris.Setup(["tests.fuzz", *flags], once)
    atheris.Fuzz()
    os._exit(1)


def _at_random(target: Target, seconds: int, folder: Path) -> str:
    from tests.fuzz import corpus
    from tests.fuzz.mutate import mutants

    inputs = mutants([*target.seeds(), *corpus.kept(target.name)], str(time.time()))
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = next(inputs)
        count += 1
        try:
            target.attempt(data)
        except Exception as error:
            note(folder, target.name, data, error)
    return f"{count} inputs"


if __name__ == "__main__":
    sys.exit(main())
