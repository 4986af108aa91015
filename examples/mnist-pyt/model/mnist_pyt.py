"""Handwritten digits, learnt by several nodes as one swarm. An ordinary PyTorch program: what makes
it a member of the swarm is one object, and four calls in its training loop.

Environment (all paths relative to the working directory, or absolute):

    DATA_DIR     holds mnist.npz with this node's digits, from examples/mnist/data.py
    SCRATCH_DIR  gets result.json
    MODEL_DIR    gets the trained model; default SCRATCH_DIR
    MAX_EPOCHS   default 2
    MIN_PEERS    how many nodes a merge needs; default 2
"""

import hashlib
import json
import os
import statistics
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from swarmlearning.pyt import SwarmCallback

BATCH_SIZE = 128
SYNC_FREQUENCY = 128  # batches between two merges
MEASURED = 1000  # digits on which each merged model is measured
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    data_dir = Path(os.environ.get("DATA_DIR", "."))
    scratch_dir = Path(os.environ.get("SCRATCH_DIR", "."))
    model_dir = Path(os.environ.get("MODEL_DIR", scratch_dir))
    max_epochs = int(os.environ.get("MAX_EPOCHS", "2"))
    min_peers = int(os.environ.get("MIN_PEERS", "2"))

    train, test = load_digits(data_dir / "mnist.npz")
    print(f"{len(train)} digits to train on, {len(test)} to test with", flush=True)

    model = build_model().to(DEVICE)
    swarm_callback = SwarmCallback(
        syncFrequency=SYNC_FREQUENCY,
        minPeers=min_peers,
        mergeMethod="mean",
        nodeWeightage=100,
        model=model,
        totalEpochs=max_epochs,
        adsValData=DataLoader(TensorDataset(*test[:MEASURED]), batch_size=MEASURED),
        lossFunction="NLLLoss",
        metricFunction="Accuracy",
        metricFunctionArgs={"task": "multiclass", "num_classes": 10},
    )
    fit(model, train, max_epochs, swarm_callback)

    loss, accuracy = evaluate(model, test)
    model_dir.mkdir(parents=True, exist_ok=True)
    scratch_dir.mkdir(parents=True, exist_ok=True)
    model_file = model_dir / "model.pt"
    torch.save(model.state_dict(), model_file)
    swarm_callback.logger.info("Saved the trained model - %s", model_file)

    merge_seconds = swarm_callback.mergeSeconds
    result = {
        "accuracy": round(accuracy, 4),
        "loss": round(loss, 4),
        "rounds": swarm_callback.roundsMerged,
        "median_merge_seconds": round(statistics.median(merge_seconds), 3) if merge_seconds else 0,
        "weights_sha256": digest(model),
        "model": os.path.relpath(model_file, scratch_dir),
    }
    write_whole(scratch_dir / "result.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result), flush=True)


def load_digits(path):
    """This node's training digits and the common test digits, scaled to 0..1."""
    if not path.is_file():
        raise SystemExit(f"There is no {path}. Put the digits there with examples/mnist/data.py.")
    with np.load(path) as file:
        return [
            TensorDataset(
                torch.from_numpy(file[f"x_{part}"]).float().div(255),
                torch.from_numpy(file[f"y_{part}"]).long(),
            )
            for part in ("train", "test")
        ]


def build_model():
    """784 - 512 - dropout - 10, as log probabilities."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(512, 10),
        nn.LogSoftmax(dim=1),
    )


def fit(model, train, epochs, swarm_callback):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    batches = DataLoader(train, batch_size=BATCH_SIZE, shuffle=True)
    swarm_callback.on_train_begin()
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for batch, (images, labels) in enumerate(batches):
            optimizer.zero_grad()
            loss = nn.functional.nll_loss(model(images.to(DEVICE)), labels.to(DEVICE))
            loss.backward()
            optimizer.step()
            total += loss.item()
            swarm_callback.on_batch_end(batch)
            if swarm_callback.isSwarmTrainingOver:
                break
        print(f"epoch {epoch + 1}: loss {total / len(batches):.4f}", flush=True)
        swarm_callback.on_epoch_end(epoch)
        if swarm_callback.isSwarmTrainingOver:
            break
    swarm_callback.on_train_end()


def evaluate(model, test):
    """Mean loss and accuracy on all test digits."""
    images, labels = (tensor.to(DEVICE) for tensor in test.tensors)
    model.eval()
    with torch.no_grad():
        output = model(images)
        loss = nn.functional.nll_loss(output, labels)
        accuracy = (output.argmax(dim=1) == labels).float().mean()
    return loss.item(), accuracy.item()


def digest(model):
    """SHA-256 over all weights: equal on all nodes that ended with the same model."""
    hasher = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        hasher.update(tensor.cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def write_whole(path, text):
    """Write in one step, so that whoever watches for the file finds all of it."""
    draft = path.with_suffix(".part")
    draft.write_text(text)
    draft.replace(path)


if __name__ == "__main__":
    main()
