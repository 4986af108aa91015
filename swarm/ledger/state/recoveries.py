"""Recovery: the operators of what is left go on without validators that are lost for good.

The operation counts only in a block of its own that the survivors have certified outside of
consensus and that each node's operator has accepted (`swarm/ledger/recovery.py`). In an ordinary
block it is refused.
"""

from __future__ import annotations

from typing import Any

from swarm.identity import Role
from swarm.ledger.state import args as a
from swarm.ledger.state import authorities, evictions
from swarm.ledger.state.draft import MAX_VALIDATORS, Context, Draft, validators
from swarm.ledger.state.nodes import depart
from swarm.ledger.state.operation import FULL, Operation
from swarm.ledger.state.records import Recovery
from swarm.ledger.state.verdict import Refused

OPERATION = "ledger.recover"
NOT_HERE = "SW4017"
MAX_RECOVERIES = 64


def recover(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Make the named validators the only ones."""
    if not context.header.recovery:
        raise Refused(NOT_HERE, "a recovery is no ordinary transaction; see swarm ledger recover")
    if len(draft.keys("recoveries")) >= MAX_RECOVERIES:
        raise Refused(FULL, f"this ledger was recovered {MAX_RECOVERIES} times")
    present = [validator.uid for validator in validators(draft)]
    unknown = [uid for uid in args["validators"] if uid not in present]
    if unknown:
        raise Refused(NOT_HERE, f"{', '.join(unknown)} is no validator")
    dropped = [uid for uid in present if uid not in args["validators"]]
    for uid in dropped:
        depart(draft, context, uid, "given up")
    record = Recovery(
        validators=sorted(args["validators"]),
        dropped=dropped,
        reason=args["reason"],
        by=context.sender.common_name[:128],
    )
    draft.put("recoveries", f"{context.header.height:012d}", record)
    authorities.recount(draft)
    evictions.recount(draft, context)
    return {"dropped": dropped}


OPERATIONS = (
    Operation(
        OPERATION,
        frozenset({Role.SN}),
        {
            "validators": a.list_of(a.UID, MAX_VALIDATORS, least=1, distinct=True),
            "reason": a.text(1, 400),
        },
        recover,
        "go on without validators that are lost; by the survivors' operators only",
    ),
)
