"""Card fraud, learnt by banks that have seen very different kinds of it.

A logistic regression in plain numpy: no framework, so the program gives its weights to the callback
as a dictionary of arrays, and goes on with the ones that come back.

Environment (all paths relative to the working directory, or absolute):

    DATA_DIR     holds this bank's train.csv and test.csv (data.py writes them)
    SCRATCH_DIR  gets result.json and model.npz
    MAX_EPOCHS   default 8
    MIN_PEERS    how many nodes a merge needs; default 3
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from swarmlearning.numpy import SwarmCallback

BATCH_SIZE = 32
BATCHES = 64  # of an epoch
SYNC_FREQUENCY = 64  # batches between two merges
LEARNING_RATE = 0.05


def main() -> None:
    data_dir = Path(os.environ.get("DATA_DIR", "."))
    scratch_dir = Path(os.environ.get("SCRATCH_DIR", "."))
    max_epochs = int(os.environ.get("MAX_EPOCHS", "8"))
    min_peers = int(os.environ.get("MIN_PEERS", "3"))

    x_train, y_train = load(data_dir / "train.csv")
    x_test, y_test = load(data_dir / "test.csv")
    print(f"{len(x_train)} payments, {int(y_train.sum())} of them fraud", flush=True)

    swarm = SwarmCallback(
        syncFrequency=SYNC_FREQUENCY,
        minPeers=min_peers,
        mergeMethod="mean",
        adsValData=(x_test, y_test),
        lossFunction=cross_entropy,
        metricFunction=accuracy,
        totalEpochs=max_epochs,
    )
    weights = swarm.on_train_begin(untrained())
    for _ in range(max_epochs):
        for x, y in batches(x_train, y_train):
            weights = swarm.on_batch_end(step(weights, x, y))
        swarm.on_epoch_end()
    weights = swarm.on_train_end(weights)

    scratch_dir.mkdir(parents=True, exist_ok=True)
    np.savez(scratch_dir / "model.npz", **weights)
    swarm.logger.info("Saved the trained model - %s", scratch_dir / "model.npz")
    result = {
        "accuracy": round(accuracy(weights, (x_test, y_test)), 4),
        "loss": round(cross_entropy(weights, (x_test, y_test)), 4),
        "rounds": swarm.roundsMerged,
        "weights_sha256": digest(weights),
    }
    draft = scratch_dir / "result.part"
    draft.write_text(json.dumps(result, indent=2) + "\n")
    draft.replace(scratch_dir / "result.json")  # whoever watches for it finds all of it
    print(json.dumps(result), flush=True)


def load(path):
    """Payments and labels of a CSV file."""
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return table[:, :-1], table[:, -1]


def untrained():
    return {"w": np.zeros(30), "b": np.array(0.0)}


def probability(weights, x):
    """That a payment is fraud."""
    return 1 / (1 + np.exp(-(x @ weights["w"] + weights["b"])))


def step(weights, x, y):
    """New weights after one step of gradient descent on one batch."""
    wrong = (probability(weights, x) - y) / len(y)
    return {
        "w": weights["w"] - LEARNING_RATE * (x.T @ wrong),
        "b": weights["b"] - LEARNING_RATE * wrong.sum(),
    }


def batches(x, y):
    """An epoch of batches that are half fraud, however few frauds there are.

    Drawing gives every bank equally many batches, too, so that merges come at the same pace.
    """
    rng = np.random.default_rng()
    honest, fraud = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    for _ in range(BATCHES):
        drawn = [rng.choice(kind, BATCH_SIZE // 2) for kind in (honest, fraud)]
        chosen = np.concatenate(drawn)
        yield x[chosen], y[chosen]


def cross_entropy(weights, data):
    x, y = data
    p = np.clip(probability(weights, x), 1e-12, 1 - 1e-12)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


def accuracy(weights, data):
    x, y = data
    return float(np.mean((probability(weights, x) > 0.5) == y))


def digest(weights):
    """SHA-256 over all weights: equal on all nodes that ended with the same model."""
    return hashlib.sha256(weights["w"].tobytes() + weights["b"].tobytes()).hexdigest()


if __name__ == "__main__":
    main()
