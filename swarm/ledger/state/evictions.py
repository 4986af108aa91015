"""Eviction: the members take a key out of the network, for good.

A vote counts for all present validators of the voter's organisation; when those of the voting
organisations are a quorum, the key is barred: every node of it is out, and no transaction signed
with it is ever taken again. A node with a SPIFFE identity can make new keys for its id at will, so
there the id is barred. One organisation alone can therefore evict only where it holds a quorum of
the validators, and then it could have forged the ledger's decisions anyway.
"""

from __future__ import annotations

from typing import Any, cast

from swarm.identity import Role
from swarm.ledger.consensus.quorum import quorum
from swarm.ledger.state import args as a
from swarm.ledger.state import authorities
from swarm.ledger.state.draft import Context, Draft, Tables, validators
from swarm.ledger.state.nodes import depart
from swarm.ledger.state.operation import FULL, UNKNOWN_NODE, Operation, holder_of
from swarm.ledger.state.records import Eviction
from swarm.ledger.state.transitions import Transition, Transitions
from swarm.ledger.state.verdict import Refused

MAX_PENDING_PER_ORGANISATION = 16
MAX_EVICTIONS = 4096  # in all: barred keys are kept for ever
LAST_VALIDATOR = "SW4014"
BARRED = "SW4015"

TRANSITIONS = Transitions(
    "Member's key",
    "free",
    (
        Transition("free", "node.evict", "disputed", "an organisation votes against it"),
        Transition("disputed", "node.evict", "disputed", "another organisation votes against it"),
        Transition(
            "disputed",
            "quorum",
            "barred",
            "the organisations that voted have a quorum of the validators, and one is left",
        ),
        Transition("barred", "node.evict", "barred", "nothing is left to do"),
    ),
)


def _state_of(eviction: Eviction | None) -> str:
    if eviction is None:
        return "free"
    return "barred" if eviction["at"] else "disputed"


def evict(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Vote, for all validators of the sender's organisation, to bar the key of a node."""
    node = draft.node(args["uid"])
    if node is None:
        raise Refused(UNKNOWN_NODE, f"no node {args['uid']} has enrolled")
    key = holder_of(node)
    state = _state_of(draft.eviction(key))
    if state != "barred":
        _check_vote(draft, context, key)
        if state == "free":
            draft.put("evictions", key, _fresh(node["name"], args["uid"], node["organisation"]))
        eviction = cast(Eviction, draft.edit("evictions", key))
        eviction["votes"][context.sender.organisation] = context.sender.common_name[:128]
    TRANSITIONS.step(state, "node.evict")
    recount(draft, context)
    return {"uid": args["uid"], **standing(draft, cast(Eviction, draft.eviction(key)))}


def _fresh(name: str, uid: str, organisation: str) -> Eviction:
    return Eviction(
        uid=uid, name=name, organisation=organisation, votes={}, at=0, needed=0, reason=""
    )


def _check_vote(draft: Draft, context: Context, key: str) -> None:
    own = context.sender.organisation
    voters = _organisations(draft)
    if own not in voters:
        raise Refused(
            authorities.NOT_A_VALIDATOR, "your organisation has no validator, so no vote either"
        )
    if _leaves_none(draft, key):
        raise Refused(LAST_VALIDATOR, "it is the only validator: nobody could carry that out")
    known = draft.eviction(key)
    if known is not None and own in known["votes"]:
        return
    pending = sum(own in one["votes"] and not one["at"] for _, one in draft.items("evictions"))
    full = known is None and len(draft.keys("evictions")) >= MAX_EVICTIONS
    if pending >= MAX_PENDING_PER_ORGANISATION or full:
        raise Refused(FULL, "too many evictions wait for votes of others")


def _organisations(reader: Tables) -> list[str]:
    """The organisation of each present validator, one entry a validator."""
    found = []
    for validator in validators(reader):
        node = reader.get("nodes", validator.uid)
        assert node is not None, "validators are nodes"
        found.append(str(node["organisation"]))
    return found


def _leaves_none(draft: Draft, key: str) -> bool:
    present = [draft.node(validator.uid) for validator in validators(draft)]
    return all(node is not None and holder_of(node) == key for node in present)


def standing(reader: Tables, eviction: Eviction) -> dict[str, Any]:
    """How far an eviction is: whether it is done, validators for it, validators that it needs."""
    settings = reader.get("meta", "settings")
    assert settings is not None, "the genesis makes it"
    voters = _organisations(reader)
    needed = eviction["needed"] or quorum(len(voters), settings["fault_model"])
    have = needed if eviction["at"] else sum(one in eviction["votes"] for one in voters)
    return {"evicted": bool(eviction["at"]), "votes": have, "needed": needed}


def recount(draft: Draft, context: Context) -> None:
    """Carry out every eviction that has its votes; called when votes or validators change.

    Each one may change the validators, so the rest are counted anew after it.
    """
    while (key := _due(draft)) is not None:
        eviction = cast(Eviction, draft.edit("evictions", key))
        TRANSITIONS.step(_state_of(eviction), "quorum")
        eviction["needed"] = standing(draft, eviction)["needed"]
        eviction["at"] = context.header.height
        eviction["reason"] = _reason(eviction)
        for uid, node in list(draft.items("nodes")):
            if holder_of(node) == key:
                depart(draft, context, uid, "evicted")["evicted"] = context.header.height
        authorities.recount(draft)


def _due(draft: Draft) -> str | None:
    for key, record in draft.items("evictions"):
        if not record["at"] and not _leaves_none(draft, key):
            now = standing(draft, cast(Eviction, record))
            if now["votes"] >= now["needed"]:
                return key
    return None


def _reason(eviction: Eviction) -> str:
    voters = ", ".join(eviction["votes"][key] for key in sorted(eviction["votes"]))
    who = eviction["name"] or eviction["uid"]
    return f"{who} was evicted at height {eviction['at']} by the votes of {voters}"


def bar(reader: Tables, holder: str) -> str | None:
    """Why nothing of this key or SPIFFE id is taken any more; None when it is not barred."""
    record = reader.get("evictions", holder)
    return str(record["reason"]) if record is not None and record["at"] else None


OPERATIONS = (
    Operation(
        "node.evict",
        frozenset({Role.SWCI, Role.SN}),
        {"uid": a.UID},
        evict,
        "vote for barring the key of a node",
    ),
)
