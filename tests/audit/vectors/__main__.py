"""Make the test vectors anew: `python -m tests.audit.vectors`, after a change of the format."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from swarm.audit import record
from swarm.ledger.state import DEFAULT_CONTRACT
from tests.audit.history import RULES, History, mixed
from tests.audit.test_verify import Memory

HERE = Path(__file__).parent
NARROW = {
    **RULES,
    "merge_method": "trimmedmean",
    "merge_args": {"f": 1, "transferDtype": "bfloat16"},
    "min_peers": 3,
}


def main() -> None:
    """Of two organisations each; the second with tensors of many types that travel narrow."""
    make(HERE, History.round, validators=2, learners=2)
    make(
        HERE / "narrow", partial(History.round, make=mixed), validators=1, learners=3, rules=NARROW
    )


def make(folder: Path, round_: Callable[[History], None], **about: Any) -> None:
    """One round of a new swarm, as a record, with the weights and the CAs."""
    with tempfile.TemporaryDirectory() as directory:
        history = History(Path(directory), **about)
        history.found()
        round_(history)
        made = record.export(Memory(history.genesis, history.pairs), DEFAULT_CONTRACT)
        (folder / "ca").mkdir(parents=True, exist_ok=True)
        record.write(made, folder / "record.json")
        np.savez(folder / "weights.npz", *history.models[-1].values())
        for authority in history.authorities:
            shutil.copy(authority.path, folder / "ca" / authority.path.name)


if __name__ == "__main__":
    main()
