"""The states of a node, and what follows when it goes: by itself, evicted, or given up for lost."""

from __future__ import annotations

from swarm.ledger.state import rounds, taskrunners
from swarm.ledger.state.draft import Context, Draft
from swarm.ledger.state.records import Node
from swarm.ledger.state.transitions import Transition, Transitions

TRANSITIONS = Transitions(
    "Node",
    "absent",
    (
        Transition("absent", "node.enroll", "active", "a component joins"),
        Transition("active", "node.enroll", "active", "the same key updates the record"),
        Transition("inactive", "node.enroll", "active", "it returns"),
        Transition("active", "node.leave", "inactive", "it leaves in order"),
        Transition("inactive", "node.leave", "inactive", "it had left already"),
        Transition("active", "evicted", "evicted", "a quorum has barred its key"),
        Transition("inactive", "evicted", "evicted", "the same"),
        Transition("active", "replaced", "inactive", "its SPIFFE id has this name with a new key"),
        Transition("active", "given up", "inactive", "a recovery went on without it"),
        Transition("inactive", "displaced", "absent", "its key needs the place for a new name"),
        Transition(
            "active", "displaced", "absent", "the same, when it is part of no training and no task"
        ),
    ),
)


def state_of(node: Node | None) -> str:
    """Its state in the table above."""
    if node is None:
        return "absent"
    if node["evicted"]:
        return "evicted"
    return "active" if node["active"] else "inactive"


def depart(draft: Draft, context: Context, uid: str, event: str) -> Node:
    """Take a node out: of the votes, a learner of its contracts, a SWOP of its taskrunners.

    The caller has made sure that a validator is left. Returns the record, for changing.
    """
    node = draft.edit_node(uid)
    assert node is not None, "the caller has found it"
    TRANSITIONS.step(state_of(node), event)
    was_active = node["active"]
    node["validator"] = node["active"] = False
    if was_active and node["type"] == "SL":
        rounds.leave_everywhere(draft, context, uid)
    if was_active and node["type"] == "SWOP":
        taskrunners.operator_left(draft, context, uid)
    return node
