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
# Of what is to be deleted.
IN_USE = "SW4070"
BUILT_IN = "SW4071"
OTHERS = "SW4072"
TOO_SOON = "SW4073"


def own_node(draft: Draft, context: Context, uid: str) -> Node:
    """Return the node `uid` if it is active, and enrolled by the sender's key in the same role.

    A uid is a hash over key and announced name and was checked when it enrolled, so equal
    fingerprints prove ownership. One key may have certificates of several roles; each speaks for
    the nodes of its own role only. Raises Refused.
    """
    node = draft.node(uid)
    if node is None:
        raise Refused(UNKNOWN_NODE, f"no node {uid} has enrolled")
    check_owner(node, context)
    if not node["active"]:
        raise Refused(UNKNOWN_NODE, f"node {uid} has left; enroll it again first")
    return node


def check_owner(node: Node, context: Context) -> None:
    """Raise Refused unless the sender's key enrolled the node, in the role that it has now."""
    if node["fingerprint"] != context.sender.fingerprint:
        raise Refused(NOT_YOURS, f"node {node['uid']} belongs to another key")
    if holder_of(node) != context.sender.holder:
        raise Refused(NOT_YOURS, f"node {node['uid']} belongs to another SPIFFE id")
    if role_of_type(node["type"]) != context.sender.role:
        raise Refused(NOT_YOURS, f"node {node['uid']} is of the type {node['type']}")


def holder_of(node: Mapping[str, Any]) -> str:
    """Fingerprint of what the node's certificates are issued to: its key, or a SPIFFE id."""
    return str(node.get("holder") or node["fingerprint"])


def role_of_type(kind: str) -> Role:
    """Role of the certificate that a node of this type needs."""
    return Role.SN if kind in ("SENTINEL", "SN") else Role(kind)


def sending_sn(draft: Draft, context: Context) -> str:
    """Return the uid of the enrolled SN that sent the transaction. Raises Refused."""
    uid = node_uid(context.sender.fingerprint)
    own_node(draft, context, uid)
    return uid


def check_deletable(context: Context, what: str, name: str, default: str, owner: str) -> None:
    """Refuse to delete what all swarms have, and what another organisation has created."""
    if name == default:
        raise Refused(BUILT_IN, f"{name} is the default {what}, which every swarm has")
    if context.sender.organisation != owner:
        raise Refused(OTHERS, f"{what} {name} was created by another organisation")


def created_by(draft: Draft, table: str, organisation: str) -> int:
    """How many records of a table an organisation has created."""
    return draft.created(table, organisation)
