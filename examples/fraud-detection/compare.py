"""What the swarm is worth: its model, and one of each bank alone, on all banks' test sets.

    python compare.py user1 user2 user3

Only an experiment can do this, as no bank shows its payments to the others.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "model"))

import fraud_detection as program

EPOCHS = 8


def alone(directory: Path) -> dict[str, np.ndarray]:
    """The weights that a bank reaches with its own payments."""
    x, y = program.load(directory / "train.csv")
    weights = program.untrained()
    for _ in range(EPOCHS):
        for batch in program.batches(x, y):
            weights = program.step(weights, *batch)
    return weights


def compare(directories: list[Path]) -> dict[str, float]:
    """Accuracy on the union of the test sets: of each bank alone, and of the swarm's model."""
    tests = [program.load(directory / "test.csv") for directory in directories]
    union = tuple(np.concatenate(parts) for parts in zip(*tests, strict=True))
    found = {f"{one.name} alone": program.accuracy(alone(one), union) for one in directories}
    with np.load(directories[0] / "model.npz") as swarm:
        found["swarm"] = program.accuracy(swarm, union)
    return found


if __name__ == "__main__":
    for who, value in compare([Path(name) for name in sys.argv[1:]]).items():
        print(f"{who:<12} {value:.3f}")
