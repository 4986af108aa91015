"""One entry of the dispatch table: who may send an operation, with which arguments, and what it
does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from swarm.identity import Role, node_uid
from swarm.ledger.state.args import Field
from swarm.ledger.state.draft import Context, Draft
from swarm.ledger.state.records import Node
from swarm.ledger.state.verdict import Refused

Handler = Callable[[Draft, Context, dict[str, Any]], dict[str, Any]]


class Operation(NamedTuple):
    """`handler` changes the draft and returns the verdict's result, or raises Refused."""

    name: str
    roles: frozenset[Role]
    fields: Mapping[str, Field]
    handler: Handler
    summary: str


NOT_YOURS = "SW4005"
FULL = "SW4006"
UNKNOWN_NODE = "SW4010"


def own_node(draft: Draft, context: Context, uid: str) -> Node:
    """Return the node `uid` if it is active and enrolled by the sender's certificate.

    A uid is a hash over certificate and announced name and was checked when it enrolled, so equal
    fingerprints prove ownership. Raises Refused.
    """
    node = draft.node(uid)
    if node is None:
        raise Refused(UNKNOWN_NODE, f"no node {uid} has enrolled")
    if node["fingerprint"] != context.sender.fingerprint:
        raise Refused(NOT_YOURS, f"node {uid} belongs to another certificate")
    if not node["active"]:
        raise Refused(UNKNOWN_NODE, f"node {uid} has left; enroll it again first")
    return node


def sending_sn(draft: Draft, context: Context) -> str:
    """Return the uid of the enrolled SN that sent the transaction. Raises Refused."""
    uid = node_uid(context.sender.fingerprint)
    own_node(draft, context, uid)
    return uid


def created_by(draft: Draft, table: str, organisation: str) -> int:
    """How many records of a table an organisation has created."""
    return sum(record["organisation"] == organisation for _, record in draft.items(table))
