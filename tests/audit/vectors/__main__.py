"""Make the test vector anew: `python -m tests.audit.vectors`, after a change of the format."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from swarm.audit import record
from swarm.ledger.state import DEFAULT_CONTRACT
from tests.audit.history import History
from tests.audit.test_verify import Memory

HERE = Path(__file__).parent


def main() -> None:
    """Two network nodes, two learners of two organisations, one round."""
    with tempfile.TemporaryDirectory() as directory:
        history = History(Path(directory), validators=2, learners=2)
        history.found()
        history.round()
        made = record.export(Memory(history.genesis, history.pairs), DEFAULT_CONTRACT)
        record.write(made, HERE / "record.json")
        np.savez(HERE / "weights.npz", *history.models[-1].values())
        for authority in history.authorities:
            shutil.copy(authority.path, HERE / "ca" / authority.path.name)


if __name__ == "__main__":
    main()
