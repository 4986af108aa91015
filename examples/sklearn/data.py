"""Writes one node's part of the small digits that come with scikit-learn: nothing is downloaded.

    python data.py --node 1 --of 2 DIRECTORY

Of 1797 images of 8 x 8 pixels, every fifth is a test image, the same on all nodes. The others are
shared by what they show: with two nodes, the first has the digits 0 to 4 only and the second 5 to
9, so neither can learn what the other knows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

FILE = "digits.npz"


def part(node: int, nodes: int) -> dict[str, np.ndarray]:
    """Training digits of node `node` (from 0) of `nodes`, and the common test digits."""
    digits = load_digits()
    images = (digits.data / 16).astype(np.float32)
    labels = digits.target
    test = np.arange(len(labels)) % 5 == 0
    own = ~test & (labels * nodes // 10 == node)
    return {
        "x_train": images[own],
        "y_train": labels[own],
        "x_test": images[test],
        "y_test": labels[test],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Write one node's part of the digits.")
    parser.add_argument("directory", type=Path, help=f"where {FILE} goes")
    parser.add_argument("--node", type=int, default=1, help="number of this node, from 1")
    parser.add_argument("--of", type=int, default=2, help="how many nodes share the digits, to 10")
    arguments = parser.parse_args()
    if not 1 <= arguments.node <= arguments.of <= 10:
        parser.error("--of must be 1 to 10, and --node 1 to that")
    digits = part(arguments.node - 1, arguments.of)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.directory / FILE, **digits)
    labels = ", ".join(map(str, np.unique(digits["y_train"])))
    print(f"wrote {arguments.directory / FILE}: {len(digits['x_train'])} digits, of {labels}")


if __name__ == "__main__":
    main()
