"""Handwritten digits, learnt by several nodes as one swarm. An ordinary Keras program: what makes
it a member of the swarm is one callback.

Environment (all paths relative to the working directory, or absolute):

    DATA_DIR     holds mnist.npz with this node's digits; without it, Keras downloads all of MNIST,
                 and this node takes its share
    SCRATCH_DIR  gets result.json
    MODEL_DIR    gets the trained model; default SCRATCH_DIR
    MAX_EPOCHS   default 2
    MIN_PEERS    how many nodes a merge needs; default 2
    NODE_INDEX   which share of downloaded digits is this node's, from 0; default 0
"""

import hashlib
import json
import os
import statistics
from pathlib import Path

import numpy as np
import tensorflow as tf

from swarmlearning.tf import SwarmCallback

BATCH_SIZE = 128
SYNC_FREQUENCY = 128  # batches between two merges
MEASURED = 1000  # digits on which each merged model is measured


def main() -> None:
    data_dir = Path(os.environ.get("DATA_DIR", "."))
    scratch_dir = Path(os.environ.get("SCRATCH_DIR", "."))
    model_dir = Path(os.environ.get("MODEL_DIR", scratch_dir))
    max_epochs = int(os.environ.get("MAX_EPOCHS", "2"))
    min_peers = int(os.environ.get("MIN_PEERS", "2"))

    (x_train, y_train), (x_test, y_test) = load_digits(data_dir, min_peers)
    print(f"{len(x_train)} digits to train on, {len(x_test)} to test with", flush=True)

    model = build_model()
    swarm_callback = SwarmCallback(
        syncFrequency=SYNC_FREQUENCY,
        minPeers=min_peers,
        mergeMethod="mean",
        nodeWeightage=100,
        adsValData=(x_test[:MEASURED], y_test[:MEASURED]),
        adsValBatchSize=MEASURED,
        totalEpochs=max_epochs,
    )
    model.fit(
        x_train,
        y_train,
        batch_size=BATCH_SIZE,
        epochs=max_epochs,
        verbose=2,
        callbacks=[swarm_callback],
    )

    loss, accuracy = model.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    model_dir.mkdir(parents=True, exist_ok=True)
    scratch_dir.mkdir(parents=True, exist_ok=True)
    model_file = model_dir / "model.keras"
    model.save(model_file)
    swarm_callback.logger.info("Saved the trained model - %s", model_file)

    merge_seconds = swarm_callback.mergeSeconds
    result = {
        "accuracy": round(float(accuracy), 4),
        "loss": round(float(loss), 4),
        "rounds": swarm_callback.roundsMerged,
        "median_merge_seconds": round(statistics.median(merge_seconds), 3) if merge_seconds else 0,
        "weights_sha256": digest(model),
        "model": os.path.relpath(model_file, scratch_dir),
    }
    write_whole(scratch_dir / "result.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result), flush=True)


def load_digits(data_dir, nodes):
    """This node's training digits and the common test digits, scaled to 0..1."""
    path = data_dir / "mnist.npz"
    if path.is_file():
        with np.load(path) as file:
            train, test = (file["x_train"], file["y_train"]), (file["x_test"], file["y_test"])
    else:
        try:
            train, test = tf.keras.datasets.mnist.load_data()
        except Exception as error:
            raise SystemExit(
                f"There is no {path}, and Keras cannot download MNIST: {error}\n"
                "Put the digits there with examples/mnist/data.py."
            ) from error
        index = int(os.environ.get("NODE_INDEX", "0"))
        train = tuple(np.array_split(array, nodes)[index] for array in train)
    return (scaled(train[0]), train[1]), (scaled(test[0]), test[1])


def scaled(images):
    # float32: a division would make float64, and twice the memory.
    return images.astype(np.float32) / np.float32(255)


def build_model():
    """784 - 512 - dropout - 10."""
    model = tf.keras.models.Sequential(
        [
            tf.keras.layers.Input(shape=(28, 28)),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(512, activation="relu"),
            tf.keras.layers.Dropout(0.2),
            tf.keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=tf.keras.optimizers.Adam(learning_rate=0.002),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def digest(model):
    """SHA-256 over all weights: equal on all nodes that ended with the same model."""
    hasher = hashlib.sha256()
    for weight in model.get_weights():
        hasher.update(np.ascontiguousarray(weight).tobytes())
    return hasher.hexdigest()


def write_whole(path, text):
    """Write in one step, so that whoever watches for the file finds all of it."""
    draft = path.with_suffix(".part")
    draft.write_text(text)
    draft.replace(path)


if __name__ == "__main__":
    main()
