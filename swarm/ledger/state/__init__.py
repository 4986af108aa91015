"""The state machine above the ordered log: pure, deterministic, without I/O.

`State.genesis(genesis)` begins; `State.apply(header, transactions)` gives the next state, verdicts
and the names of what changed. Start reading in `machine.py`, then `rounds.py`.
"""

from swarm.ledger.state.machine import DEFAULT_CONTRACT, DEFAULT_RUNNER, DISPATCH, TABLES, State
from swarm.ledger.state.verdict import Header, Validator, Verdict

__all__ = [
    "DEFAULT_CONTRACT",
    "DEFAULT_RUNNER",
    "DISPATCH",
    "TABLES",
    "Header",
    "State",
    "Validator",
    "Verdict",
]
