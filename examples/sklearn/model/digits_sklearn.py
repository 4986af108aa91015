"""Handwritten digits with scikit-learn: a linear classifier that two nodes train as one swarm,
though each has images of half of the digits only.

scikit-learn has no callbacks, so the loop around `partial_fit` calls the four hooks itself.

Environment (all paths relative to the working directory, or absolute):

    DATA_DIR     holds digits.npz with this node's digits (data.py writes it)
    SCRATCH_DIR  gets result.json and model.npz
    MAX_EPOCHS   default 10
    MIN_PEERS    how many nodes a merge needs; default 2
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from sklearn.linear_model import SGDClassifier

from swarmlearning.sklearn import SwarmCallback

BATCH_SIZE = 32
SYNC_FREQUENCY = 5  # batches between two merges: nodes that differ so much must meet often
ALL_DIGITS = np.arange(10)


def main() -> None:
    data_dir = Path(os.environ.get("DATA_DIR", "."))
    scratch_dir = Path(os.environ.get("SCRATCH_DIR", "."))
    max_epochs = int(os.environ.get("MAX_EPOCHS", "10"))
    min_peers = int(os.environ.get("MIN_PEERS", "2"))

    with np.load(data_dir / "digits.npz") as file:
        x_train, y_train = file["x_train"], file["y_train"]
        x_test, y_test = file["x_test"], file["y_test"]
    print(f"{len(x_train)} digits to train on, {len(x_test)} to test with", flush=True)

    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05)
    swarm = SwarmCallback(
        syncFrequency=SYNC_FREQUENCY,
        minPeers=min_peers,
        model=model,
        initData=(x_train[:1], y_train[:1]),
        classes=ALL_DIGITS,
        adsValData=(x_test, y_test),
        totalEpochs=max_epochs,
    )
    rng = np.random.default_rng()
    swarm.on_train_begin()
    for epoch in range(max_epochs):
        order = rng.permutation(len(x_train))
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            model.partial_fit(x_train[batch], y_train[batch])
            swarm.on_batch_end()
        swarm.on_epoch_end(epoch)
    swarm.on_train_end()

    scratch_dir.mkdir(parents=True, exist_ok=True)
    np.savez(scratch_dir / "model.npz", coef=model.coef_, intercept=model.intercept_)
    swarm.logger.info("Saved the trained model - %s", scratch_dir / "model.npz")
    result = {
        "accuracy": round(float(model.score(x_test, y_test)), 4),
        "rounds": swarm.roundsMerged,
        "weights_sha256": digest(model),
    }
    draft = scratch_dir / "result.part"
    draft.write_text(json.dumps(result, indent=2) + "\n")
    draft.replace(scratch_dir / "result.json")  # whoever watches for it finds all of it
    print(json.dumps(result), flush=True)


def digest(model):
    """SHA-256 over all weights: equal on all nodes that ended with the same model."""
    return hashlib.sha256(model.coef_.tobytes() + model.intercept_.tobytes()).hexdigest()


if __name__ == "__main__":
    main()
