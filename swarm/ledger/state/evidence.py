"""Evidence: two statements of one validator that no correct validator signs together.

Whoever sees them puts them on the ledger; every node checks both signatures again, with the key
that the accused enrolled with. Nothing else follows by itself: people look, and decide with an
eviction. A node that follows the rules cannot be accused, as it signs one value a step, and what it
signed for another swarm names another chain.
"""

from __future__ import annotations

from typing import Any, cast

from swarm.errors import RemoteError
from swarm.identity import Role, verify_signature
from swarm.ledger.consensus.statement import KINDS, MAX_STATEMENT, Statement
from swarm.ledger.state import args as a
from swarm.ledger.state.draft import Context, Draft
from swarm.ledger.state.operation import UNKNOWN_NODE, Operation, sending_sn
from swarm.ledger.state.records import Case, Evidence
from swarm.ledger.state.verdict import Refused

MAX_CASES = 4  # of one accused; more say nothing new
NO_EVIDENCE = "SW4016"


def accuse(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Put two contradicting statements of a validator on the ledger."""
    reporter = sending_sn(draft, context)
    first = _checked(draft, context, args)
    uid = first.voter
    node = draft.node(uid)
    assert node is not None, "checked"
    if draft.evidence(uid) is None:
        draft.put("evidence", uid, Evidence(name=node["name"], cases=[]))
    evidence = cast(Evidence, draft.edit("evidence", uid))
    step = (first.height, first.round, first.kind)
    cases = evidence["cases"]
    known = any((c["height"], c["round"], c["kind"]) == step for c in cases)
    fresh = not known and len(cases) < MAX_CASES
    if fresh:
        height, round_, kind = step
        cases.append(
            Case(
                height=height, round=round_, kind=kind, first=args["first"], second=args["second"],
                reporter=reporter, recorded=context.header.height,
            )
        )  # fmt: skip
    return {"uid": uid, "recorded": fresh}


def _checked(draft: Draft, context: Context, args: dict[str, Any]) -> Statement:
    """The first statement, when both are signed and contradict each other. Raises Refused."""
    try:
        first, second = (Statement.decode(args[name]) for name in ("first", "second"))
    except RemoteError as error:
        raise Refused(NO_EVIDENCE, error.cause) from None
    if first.step != second.step or first.block_id == second.block_id:
        raise Refused(NO_EVIDENCE, "the two statements do not contradict each other")
    node = draft.node(first.voter)
    if node is None or node["type"] not in ("SENTINEL", "SN"):
        raise Refused(UNKNOWN_NODE, f"no SN {first.voter} has enrolled")
    for one in (first, second):
        if not verify_signature(node["public_key"], one.signed_bytes(context.chain), one.signature):
            raise Refused(
                NO_EVIDENCE, f"{node['name'] or first.voter} did not sign that for this swarm"
            )
    return first


def describe(case: Case) -> str:
    """One sentence about a case."""
    step = KINDS[case["kind"]]
    return f"it signed two {step}s at height {case['height']}, round {case['round']}"


OPERATIONS = (
    Operation(
        "node.accuse",
        frozenset({Role.SN}),
        {"first": a.data(1, MAX_STATEMENT), "second": a.data(1, MAX_STATEMENT)},
        accuse,
        "prove that a validator signed two values for one step",
    ),
)
