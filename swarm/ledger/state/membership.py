"""Membership: which components take part, and which SNs vote.

A node's uid is derived from its key and its announced name, so nobody can speak for, or take the
place of, another. SNs have one node a key (and one active node a SPIFFE id); SWOPs and SLs may have
several. Another certificate of the same key updates a record only in the role in which it was made,
and for the same SPIFFE id if there is one. It may come from another CA, as when an organisation
replaces its own, and moves the node there: that takes the key's signature over that very
certificate, so nobody but the node itself can do it, and a place in that organisation.
"""

from __future__ import annotations

from typing import Any

from swarm.identity import Role, node_uid
from swarm.ledger.state import args as a
from swarm.ledger.state import authorities, evictions, rounds, taskrunners
from swarm.ledger.state.draft import MAX_VALIDATORS, Context, Draft, validators
from swarm.ledger.state.nodes import TRANSITIONS, depart, state_of
from swarm.ledger.state.operation import (
    FULL,
    UNKNOWN_NODE,
    Operation,
    check_owner,
    created_by,
    holder_of,
    role_of_type,
)
from swarm.ledger.state.records import Node
from swarm.ledger.state.verdict import Refused

# A host that starts a fresh learner, under a fresh name, for every training must not run out of
# places: its own oldest unused node gives way. Others are never touched.
MAX_NODES_PER_KEY = 64
MAX_NODES_PER_ORGANISATION = 1024
MAX_PAIRS = 64
SEAT_TAKEN = "SW1230"

NODE_NAME = a.text(0, 128)

ENROLL = {
    "uid_name": NODE_NAME,
    "type": a.one_of("SENTINEL", "SN", "SWOP", "SL"),
    "host": a.either(a.HOST, a.EMPTY),
    "port": a.PORT,
    "p2p": a.list_of(a.text(1, 256), 16),
    "peer_id": a.either(a.pattern("[A-Za-z0-9]{1,128}", "a peer id"), a.EMPTY),
    "parent": a.either(a.UID, a.EMPTY),
    "validator": a.FLAG,
    "runner": a.either(a.NAME, a.EMPTY),
    "pairs": a.integer(0, MAX_PAIRS),
    "contract": a.either(a.NAME, a.EMPTY),
    "version": a.text(0, 64),
    "name": a.optional(NODE_NAME),
}


def enroll(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Create or update the sender's own node."""
    sender, kind = context.sender, args["type"]
    if sender.role != role_of_type(kind):
        raise Refused("SW4004", f"a certificate of role {sender.role} cannot enroll as {kind}")
    is_sn = sender.role == Role.SN
    if is_sn == bool(args["uid_name"]):
        raise Refused(a.MALFORMED, "uid_name is empty for an SN and given for all others")
    uid = node_uid(sender.fingerprint, args["uid_name"])
    before = draft.node(uid)
    if before is not None:
        check_owner(before, context)
    kind = _kind(kind, before)
    _check_links(draft, args, uid, is_sn)
    if before is None or before["organisation"] != sender.organisation:
        _check_room_in_organisation(draft, context)
    if before is None:
        _make_room(draft, context)
    TRANSITIONS.step(state_of(before), "node.enroll")
    if sender.vouched is not None:
        _one_key_for_a_place(draft, context, uid, args["uid_name"])
    votes = _may_vote(draft, uid, before, is_sn and args["validator"])
    node = Node(
        uid=uid,
        type=kind,
        name=_sn_name(context, args) if is_sn else args["uid_name"],
        organisation=sender.organisation,
        fingerprint=sender.fingerprint,
        public_key=sender.public_key_der,
        host=args["host"],
        port=args["port"],
        p2p=args["p2p"],
        peer_id=args["peer_id"],
        parent=args["parent"],
        validator=votes,
        active=True,
        runner=args["runner"] if kind == "SWOP" else "",
        pairs=args["pairs"] if kind == "SWOP" else 0,
        contract=args["contract"] if kind == "SL" else "",
        joined=before["joined"] if before else context.header.height,
        version=args["version"],
        evicted=0,
    )
    if sender.vouched is not None:
        node["holder"] = sender.holder
    draft.put("nodes", uid, node)
    if votes or (before is not None and before["validator"]):
        _recount(draft, context)
    return {"uid": uid, "validator": votes} if is_sn else {"uid": uid}


def _one_key_for_a_place(draft: Draft, context: Context, uid: str, name: str) -> None:
    """Keep the holder of a SPIFFE id, who can make keys at will, to one node of each name.

    A learner or operator that comes back with another key has lost the one before, and takes the
    place of its former self. A network node does not: it would take a vote from one that is alive.
    Raises Refused.
    """
    sender = context.sender
    for other, node in list(draft.items("nodes")):
        if other == uid or not node["active"] or holder_of(node) != sender.holder:
            continue
        if role_of_type(node["type"]) != sender.role:
            continue
        if sender.role == Role.SN:
            raise Refused(SEAT_TAKEN, f"node {other} has the SPIFFE id of this one, and is active")
        if node["name"] == name:
            depart(draft, context, other, "replaced")


def _recount(draft: Draft, context: Context) -> None:
    """The validators, or their organisations, have changed."""
    authorities.recount(draft)
    evictions.recount(draft, context)


def _kind(asked: str, before: Node | None) -> str:
    # The sentinel is the node of the genesis; nobody becomes one later, and it stays one.
    if before is not None and before["type"] == "SENTINEL":
        return "SENTINEL"
    return "SN" if asked == "SENTINEL" else asked


def _sn_name(context: Context, args: dict[str, Any]) -> str:
    """Its container's name if it told one, else the common name of its certificate."""
    name: str = args.get("name", "") or context.sender.common_name
    return "" if NODE_NAME.problem(name) else name


def _check_links(draft: Draft, args: dict[str, Any], uid: str, is_sn: bool) -> None:
    if args["parent"]:
        parent = draft.node(args["parent"])
        if parent is None or parent["type"] not in ("SENTINEL", "SN"):
            raise Refused(UNKNOWN_NODE, f"the parent {args['parent']} is not an enrolled SN")
    if not is_sn:
        return
    for other, record in draft.items("nodes"):
        if args["peer_id"] and record["peer_id"] == args["peer_id"] and other != uid:
            raise Refused("SW4011", f"peer id {args['peer_id']} belongs to node {other}")


def _may_vote(draft: Draft, uid: str, before: Node | None, asked: bool) -> bool:
    """Whether the node votes from the next block on."""
    others = [validator.uid for validator in validators(draft) if validator.uid != uid]
    if not asked:
        return before is not None and before["validator"] and not others  # the last one stays
    return len(others) < MAX_VALIDATORS


def _check_room_in_organisation(draft: Draft, context: Context) -> None:
    if created_by(draft, "nodes", context.sender.organisation) >= MAX_NODES_PER_ORGANISATION:
        raise Refused(FULL, f"your organisation has {MAX_NODES_PER_ORGANISATION} nodes already")


def _make_room(draft: Draft, context: Context) -> None:
    """Displace one of the sender's own nodes when its key has too many. Raises Refused."""
    sender = context.sender
    own = [
        (record["active"], record["joined"], uid)
        for uid, record in draft.items("nodes")
        if holder_of(record) == sender.holder
    ]
    if len(own) < MAX_NODES_PER_KEY:
        return
    busy = rounds.busy_members(draft) | taskrunners.busy_operators(draft)
    free = sorted(entry for entry in own if entry[2] not in busy)
    if not free:
        raise Refused(FULL, f"your key has {len(own)} nodes, all of them in use")
    active, _, uid = free[0]
    TRANSITIONS.step("active" if active else "inactive", "displaced")
    draft.delete("nodes", uid)


def leave(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Take the sender's node out: of the votes, of its contracts and of its taskrunner."""
    uid = args["uid"]
    node = draft.node(uid)
    if node is None:
        raise Refused(UNKNOWN_NODE, f"no node {uid} has enrolled")
    check_owner(node, context)
    if node["validator"] and len(validators(draft)) == 1:
        return {"stays": True}  # without a validator no block could ever follow
    was_validator = node["validator"]
    depart(draft, context, uid, "node.leave")
    if was_validator:
        _recount(draft, context)
    return {"stays": False}


MEMBERS = frozenset({Role.SN, Role.SL, Role.SWOP})

OPERATIONS = (
    Operation("node.enroll", MEMBERS, ENROLL, enroll, "create or update one's own node"),
    Operation("node.leave", MEMBERS, {"uid": a.UID}, leave, "leave in order"),
)
