"""`python -m tests.simulator --seeds N [--from K] [--double]`: explore, print failing seeds."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulator.judge import Broken
from tests.simulator.ledgers import KvLedger, RealLedger
from tests.simulator.world import World


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--double", action="store_true", help="the key-value double")
    parser.add_argument("--from", type=int, default=0, dest="first")
    options = parser.parse_args()
    began = time.process_time()
    total: Counter[str] = Counter()
    bad = 0
    for seed in range(options.first, options.first + options.seeds):
        try:
            total.update(World(seed, ledger=KvLedger if options.double else RealLedger).run())
        except Broken as error:
            bad += 1
            print(error, flush=True)
    spent = time.process_time() - began
    print(
        f"{options.seeds} seeds, {bad} bad, {options.seeds / spent:.0f} a CPU second, {dict(total)}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
