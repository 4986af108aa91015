"""The steps of one height as a table.

The rules in `algorithm.py` decide; this says what they may lead to, for readers and for a check of
every step that simulated replicas take. Lines are those of Algorithm 1 in arXiv:1807.04938.
"""

from __future__ import annotations

from swarm.ledger.state.transitions import Transition, Transitions

NEXT_ROUND = "lines 55, 65"
NEXT_HEIGHT = "line 49, block fetched"

TRANSITIONS = Transitions(
    "Step of a validator",
    "idle",
    (
        Transition("idle", "line 11", "propose", "work waits, or another validator has begun"),
        Transition(
            "propose", "lines 22, 28, 57", "prevote", "a proposal was judged, or none came in time"
        ),
        Transition(
            "prevote",
            "lines 36, 44, 61",
            "precommit",
            "a quorum prevoted one block or none, or they did not agree in time",
        ),
        *(
            Transition(
                step, NEXT_ROUND, "propose", "enough others are ahead, or this round ends undecided"
            )
            for step in ("propose", "prevote", "precommit")
        ),
        *(
            Transition(
                step, NEXT_HEIGHT, "idle", "a quorum precommitted a block, of whatever round"
            )
            for step in ("idle", "propose", "prevote", "precommit")
        ),
        *(
            Transition("idle", f"restart in {step}", step, "what was signed before a crash stands")
            for step in ("prevote", "precommit")
        ),
    ),
)
