"""Makes one bank's card payments: train.csv and test.csv. They are drawn, so anybody may have them.

    python data.py --node 1 DIRECTORY

As in published sets of card payments, a row is 28 numbers V1 to V28 without a meaning of their own,
the amount, the time, and whether it was fraud. There are three kinds of fraud, each of which shows
in other directions. The banks are very unequal: each has hardly seen the kinds that hit the others.

    bank    payments    frauds of each kind
    1       3500        12    2    0
    2       2500         1   45    2
    3        900         4    6  430

Each bank's test set has 165 honest payments and 55 frauds of every kind. Together they are what a
model should be good at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

BANKS = ((3500, (12, 2, 0)), (2500, (1, 45, 2)), (900, (4, 6, 430)))
TEST = (330, (55, 55, 55))
COLUMNS = 30
SEED = 20
HEADER = ",".join(["scaled_amount", "scaled_time", *(f"V{i}" for i in range(1, 29)), "Class"])


def rows(rng: np.random.Generator, count: int, frauds: tuple[int, ...]) -> np.ndarray:
    """`count` payments, of them `frauds` of each kind, in random order; the last column is 1 for
    fraud."""
    # The same for all banks: what each kind looks like, and how that is spread over the columns.
    common = np.random.default_rng(SEED)
    spread = np.linalg.qr(common.normal(size=(COLUMNS, COLUMNS)))[0]
    signs = common.choice([-1.0, 1.0], size=(len(frauds), COLUMNS))
    honest = count - sum(frauds)
    payments, labels = [rng.normal(size=(honest, COLUMNS))], [np.zeros(honest)]
    for kind, number in enumerate(frauds):
        shift = np.zeros(COLUMNS)
        shift[kind * 8 : kind * 8 + 8] = 1.3 * signs[kind, :8]
        payments.append(rng.normal(size=(number, COLUMNS)) + shift)
        labels.append(np.ones(number))
    table = np.column_stack([np.concatenate(payments) @ spread, np.concatenate(labels)])
    return rng.permutation(table)


def write(directory: Path, node: int) -> None:
    """Write the files of bank `node` (from 1)."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([SEED, node])
    for name, (count, frauds) in (("train", BANKS[node - 1]), ("test", TEST)):
        table = rows(rng, count, frauds)
        np.savetxt(
            directory / f"{name}.csv", table, "%.5g", delimiter=",", header=HEADER, comments=""
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Make one bank's card payments.")
    parser.add_argument("directory", type=Path, help="where train.csv and test.csv go")
    parser.add_argument(
        "--node", type=int, default=1, help=f"number of the bank, 1 to {len(BANKS)}"
    )
    parser.add_argument("--of", type=int, help="accepted as in other examples, without effect")
    arguments = parser.parse_args()
    if not 1 <= arguments.node <= len(BANKS):
        parser.error(f"--node must be 1 to {len(BANKS)}")
    write(arguments.directory, arguments.node)
    payments, frauds = BANKS[arguments.node - 1]
    print(f"wrote {arguments.directory}: {payments} payments, {sum(frauds)} of them fraud")


if __name__ == "__main__":
    main()
