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
import tensorflow as tf

EPOCHS = 8


def compare(directories: list[Path]) -> dict[str, float]:
    """Accuracy on the union of the test sets: of each bank alone, and of the swarm's model."""
    tests = [program.load(directory / "test.csv") for directory in directories]
    x, y = (np.concatenate(parts) for parts in zip(*tests, strict=True))

    def accuracy(model: tf.keras.Model) -> float:
        return float(model.evaluate(x, y, batch_size=512, verbose=0)[1])

    found = {}
    for directory in directories:
        model = program.build_model()
        program.train(model, *program.load(directory / "train.csv"), EPOCHS)
        found[f"{directory.name} alone"] = accuracy(model)
    swarm = directories[0] / "model.keras"
    if swarm.is_file():
        found["swarm"] = accuracy(tf.keras.models.load_model(swarm))
    return found


if __name__ == "__main__":
    for who, value in compare([Path(name) for name in sys.argv[1:]]).items():
        print(f"{who:<12} {value:.3f}")
