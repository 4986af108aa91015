"""Card fraud, learnt by banks that have seen very different kinds of it.

Environment (all paths relative to the working directory, or absolute):

    DATA_DIR     holds this bank's train.csv and test.csv (data.py writes them)
    SCRATCH_DIR  gets result.json and the trained model
    MAX_EPOCHS   default 8
    MIN_PEERS    how many nodes a merge needs; default 3
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

BATCH_SIZE = 32
SYNC_FREQUENCY = 64  # batches between two merges
EPOCH = 2048  # payments drawn for an epoch: half of them frauds, at every bank


def main() -> None:
    from swarmlearning.tf import SwarmCallback

    data_dir = Path(os.environ.get("DATA_DIR", "."))
    scratch_dir = Path(os.environ.get("SCRATCH_DIR", "."))
    max_epochs = int(os.environ.get("MAX_EPOCHS", "8"))
    min_peers = int(os.environ.get("MIN_PEERS", "3"))

    x_train, y_train = load(data_dir / "train.csv")
    x_test, y_test = load(data_dir / "test.csv")
    print(f"{len(x_train)} payments, {int(y_train.sum())} of them fraud", flush=True)

    model = build_model()
    swarm_callback = SwarmCallback(
        syncFrequency=SYNC_FREQUENCY,
        minPeers=min_peers,
        mergeMethod="mean",
        adsValData=(x_test, y_test),
        adsValBatchSize=128,
        totalEpochs=max_epochs,
    )
    train(model, x_train, y_train, max_epochs, [swarm_callback], verbose=2)

    loss, accuracy = model.evaluate(x_test, y_test, batch_size=128, verbose=0)
    scratch_dir.mkdir(parents=True, exist_ok=True)
    model.save(scratch_dir / "model.keras")
    swarm_callback.logger.info("Saved the trained model - %s", scratch_dir / "model.keras")
    result = {
        "accuracy": round(float(accuracy), 4),
        "loss": round(float(loss), 4),
        "rounds": swarm_callback.roundsMerged,
        "weights_sha256": digest(model),
    }
    draft = scratch_dir / "result.part"
    draft.write_text(json.dumps(result, indent=2) + "\n")
    draft.replace(scratch_dir / "result.json")  # whoever watches for it finds all of it
    print(json.dumps(result), flush=True)


def load(path):
    """Payments and labels of a CSV file."""
    table = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32)
    return table[:, :-1], table[:, -1:]


def build_model():
    """A logistic regression: whether a payment is fraud."""
    model = tf.keras.models.Sequential(
        [
            tf.keras.layers.Input(shape=(30,)),
            tf.keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        optimizer=tf.keras.optimizers.SGD(learning_rate=0.05),
        loss="binary_crossentropy",
        metrics=["accuracy"],
    )
    return model


def train(model, x, y, epochs, callbacks=(), verbose=0):
    """Fit to as many frauds as honest payments, however few of them there are.

    The draw also gives every bank equally many batches, so that merges come at the same pace.
    """
    rng = np.random.default_rng()
    labels = y.ravel()
    drawn = [
        rng.choice(np.flatnonzero(labels == label), EPOCH * epochs // 2, replace=True)
        for label in (0, 1)
    ]
    chosen = np.column_stack(drawn).ravel()  # honest and fraud in turn
    steps = EPOCH // BATCH_SIZE
    data = tf.data.Dataset.from_tensor_slices((x[chosen], y[chosen])).batch(BATCH_SIZE)
    model.fit(
        data.repeat(),
        steps_per_epoch=steps,
        epochs=epochs,
        verbose=verbose,
        callbacks=list(callbacks),
    )


def digest(model):
    """SHA-256 over all weights: equal on all nodes that ended with the same model."""
    hasher = hashlib.sha256()
    for weight in model.get_weights():
        hasher.update(np.ascontiguousarray(weight).tobytes())
    return hasher.hexdigest()


if __name__ == "__main__":
    main()
