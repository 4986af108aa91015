"""What the merge methods' arithmetic costs: one JSON line for each, without any exchange.

`ns_per_value` is processor time for each value of the model, all members together: a model of 25
million float32 values costs 25 ms for each nanosecond, spread over the members. `mix` methods have
the distances in it. Weights are equal in the first lines, unequal in the others.

    python benchmarks/bench_methods.py [--n 4 8] [--mb 16]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from swarm.merge import methods
from swarm.merge.mean import Segment
from swarm.merge.methods.distances import Distances

CHUNK = 512 << 10  # bytes that are reduced at a time, as in an exchange
REPEATS = 3


def measure(name: str, inputs: Sequence[memoryview], weights: Sequence[int]) -> float:
    """Processor seconds of one merge; the best of some, as others use the machine, too."""
    size = len(inputs[0])
    layout, out = [Segment(0, size, "float32")], memoryview(bytearray(size))
    times = []
    for _ in range(REPEATS):
        method = methods.make(name, {}, layout, weights)
        start = time.process_time()
        if isinstance(method, methods.MixingWeights):
            distances = Distances(layout, len(inputs))
            for at in range(0, size, CHUNK):
                distances.add([data[at : at + CHUNK] for data in inputs], at)
            method.settle(distances.matrix)
        for at in range(0, size, CHUNK):
            method.reduce([data[at : at + CHUNK] for data in inputs], out[at : at + CHUNK], at)
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Measure all methods."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--mb", type=int, default=16, help="of each input")
    args = parser.parse_args()
    for count in args.n:
        rng = np.random.default_rng(count)
        values = (args.mb << 20) // 4
        inputs = [
            memoryview(rng.standard_normal(values, np.float32).tobytes()) for _ in range(count)
        ]
        for weights in ([1] * count, list(range(1, count + 1))):
            for name in methods.BUILT_IN:
                if methods.check(name, {}, count):
                    continue  # too few members for it
                seconds = measure(name, inputs, weights)
                line = {
                    "benchmark": "methods",
                    "method": name,
                    "n": count,
                    "weights": "equal" if len(set(weights)) == 1 else "unequal",
                    "ns_per_value": round(seconds / values * 1e9, 2),
                }
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
