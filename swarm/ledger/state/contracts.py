"""Training contracts: who trains together, and by which rules.

The first learner that enrolls sets the rules; a later one with other rules is refused and told both
values. Rounds are in `rounds.py`.
"""

from __future__ import annotations

from typing import Any, cast

from swarm.identity import Role, node_uid
from swarm.ledger.state import args as a
from swarm.ledger.state import faults, methods, pace, rounds
from swarm.ledger.state.draft import Context, Draft
from swarm.ledger.state.operation import (
    FULL,
    IN_USE,
    NOT_YOURS,
    TOO_SOON,
    Operation,
    check_deletable,
    created_by,
    own_node,
)
from swarm.ledger.state.records import Contract, Member, Rules
from swarm.ledger.state.rounds import CONTRACT_STATES, MEMBER_STATES
from swarm.ledger.state.verdict import Refused

DEFAULT = "defaultbb.cqdb.sml.hpe"
MAX_PER_ORGANISATION = 256
MAX_MEMBERS = 256
# Majorities count members, so a key gets only so many.
MAX_MEMBERS_PER_KEY = 32


def fresh(name: str, created: int, organisation: str) -> Contract:
    """A contract that nobody has enrolled in."""
    return Contract(
        name=name,
        created=created,
        organisation=organisation,
        status=CONTRACT_STATES.initial,
        rules=None,
        members={},
        round=0,
        attempt=0,
        started_ms=0,
        checkins={},
        schema=None,
        roster=[],
        suspicions={},
        reasons={},
        merged={},
        lost_reports={},
        last=None,
        over=False,
        waiting="",
        history=[],
        faults=[],
        interval=0,
        losses=[],
    )


def create(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Create a contract."""
    name, organisation = args["name"], context.sender.organisation
    if draft.contract(name) is not None:
        raise Refused("SW4041", f"a contract {name} exists already")
    if created_by(draft, "contracts", organisation) >= MAX_PER_ORGANISATION:
        raise Refused(FULL, f"your organisation has {MAX_PER_ORGANISATION} contracts already")
    draft.put("contracts", name, fresh(name, context.header.height, organisation))
    return {}


def reset(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Forget members, rounds and model of a contract."""
    contract = rounds.contract_of(draft, args["contract"])
    _check_shown(contract, context)
    contract["status"] = CONTRACT_STATES.step(contract["status"], "contract.reset")
    name = contract["name"]
    draft.put("contracts", name, fresh(name, contract["created"], contract["organisation"]))
    if draft.schema(name) is not None:
        draft.delete("schemas", name)
    return {}


def delete(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Delete a contract that no learner is active in. Its trainings stay in the blocks."""
    contract = rounds.contract_of(draft, args["contract"])
    name = contract["name"]
    check_deletable(context, "contract", name, DEFAULT, contract["organisation"])
    active = sorted(m["name"] for m in contract["members"].values() if m["state"] == "active")
    if active:
        more = f" and {len(active) - 1} more" if len(active) > 1 else ""
        raise Refused(IN_USE, f"contract {name} has active learners: {active[0]}{more}")
    _check_shown(contract, context)
    CONTRACT_STATES.step(contract["status"], "contract.delete")
    draft.delete("contracts", name)
    if draft.schema(name) is not None:
        draft.delete("schemas", name)
    return {}


def _check_shown(contract: Contract, context: Context) -> None:
    """Each decided round is in the state after some block, as its proof: so wait for that one."""
    if contract["last"] and contract["last"]["height"] == context.header.height:
        raise Refused(
            TOO_SOON, f"a round of contract {contract['name']} was decided in this very block"
        )


def enroll(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """A learner joins, or returns: what it had put into the current round is forgotten."""
    contract, uid = rounds.contract_of(draft, args["contract"]), args["uid"]
    node = own_node(draft, context, uid)
    if node_uid(context.sender.fingerprint, args["name"]) != uid:
        raise Refused(NOT_YOURS, f"node {uid} did not enroll under the name {args['name']}")
    before = contract["members"].get(uid)
    if contract["over"] and before is None:
        raise rounds.training_over(contract)
    if contract["rules"] is None:
        _check_method(args["rules"])
        contract["rules"] = cast(Rules, {**args["rules"], "set_by": uid})
        pace.start(contract)
        contract["status"] = CONTRACT_STATES.step(contract["status"], "contract.enroll")
    _check_rules(contract, args["rules"])
    if before is None:
        _make_room(contract, node["fingerprint"])
    state = MEMBER_STATES.step(before["state"] if before else "absent", "contract.enroll")
    contract["members"][uid] = Member(
        name=args["name"],
        host=args["host"],
        port=args["port"],
        state=state,
        done=False,
        mode=args["mode"],
        joined_round=contract["round"],
        missed=before["missed"] if before else 0,
        fingerprint=node["fingerprint"],
        loss=before["loss"] if before else "",
        metric=before["metric"] if before else "",
        epochs=before["epochs"] if before else 0,
        total_epochs=before["total_epochs"] if before else 0,
        reported_round=before["reported_round"] if before else -1,
    )
    if not contract["over"]:
        rounds.withdraw(draft, context, contract, [uid])
    return {"round": contract["round"], "last": contract["last"], "over": contract["over"]}


def _check_method(rules: dict[str, Any]) -> None:
    """Refuse rules under which no round could ever close."""
    wrong = methods.problem(rules)
    if wrong:
        raise Refused("SW4045", wrong)


def _check_rules(contract: Contract, asked: dict[str, Any]) -> None:
    agreed = cast("dict[str, Any]", contract["rules"])
    setter = contract["members"].get(agreed["set_by"])
    who = setter["name"] if setter else "the first learner"
    for key in sorted(asked):
        if agreed[key] != asked[key]:
            raise Refused(
                "SW4042",
                f"{key} is {agreed[key]!r} in contract {contract['name']}, set by {who},"
                f" and {asked[key]!r} in your program",
            )


def _make_room(contract: Contract, fingerprint: str) -> None:
    """Refuse, or drop a member that is gone, when there are too many."""
    members = contract["members"]
    own = [uid for uid, member in members.items() if member["fingerprint"] == fingerprint]
    if len(own) >= MAX_MEMBERS_PER_KEY:
        _displace(contract, own, f"your key has {len(own)} learners in this contract")
    elif len(members) >= MAX_MEMBERS:
        _displace(contract, list(members), f"this contract has {len(members)} learners")


def _displace(contract: Contract, candidates: list[str], full: str) -> None:
    members = contract["members"]
    gone = sorted(
        (members[uid]["joined_round"], uid)
        for uid in candidates
        if members[uid]["state"] != "active"
    )
    if not gone:
        raise Refused(FULL, f"{full} already")
    uid = gone[0][1]
    MEMBER_STATES.step(members[uid]["state"], "displaced")
    del members[uid]
    contract["lost_reports"].pop(uid, None)


def leave(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """A learner leaves in order, and may say what was wrong."""
    own_node(draft, context, args["uid"])
    contract = rounds.contract_of(draft, args["contract"])
    if args["uid"] not in contract["members"]:
        raise Refused("SW4043", f"node {args['uid']} is not in contract {contract['name']}")
    why = faults.reason(args.get("why", ""))
    if why and contract["members"][args["uid"]]["state"] == "active":
        name = contract["members"][args["uid"]]["name"]
        faults.note(contract, context.header.height, args["uid"], name, why)
    rounds.remove(draft, context, contract, [args["uid"]], "contract.leave")
    return {}


# Of an installed package: with the version of its distribution.
METHOD = "[a-z][a-z0-9_]{0,31}(@[0-9A-Za-z][0-9A-Za-z.+!_-]{0,31})?"
RULES = {
    "min_peers": a.integer(1, MAX_MEMBERS),
    "merge_method": a.pattern(METHOD, "a merge method"),
    "merge_args": a.settings(16),
    "sync_frequency": a.integer(1, 1 << 31),
    "adaptive": a.FLAG,
}
ENROLL = {
    "contract": a.NAME,
    "uid": a.UID,
    "name": a.text(1, 128),
    "host": a.HOST,
    "port": a.integer(1, 65535),
    "rules": a.map_of(RULES),
    "mode": a.one_of("snapshot", "inactive", "active"),
}
CONTRACT = {"contract": a.NAME}
LEAVE = {"contract": a.NAME, "uid": a.UID, "why": a.optional(a.note(500))}
SWCI = frozenset({Role.SWCI})
SL = frozenset({Role.SL})
OPERATIONS = (
    Operation("contract.create", SWCI, {"name": a.NAME}, create, "create a contract"),
    Operation("contract.delete", SWCI, CONTRACT, delete, "delete one that nobody uses"),
    Operation("contract.reset", SWCI, CONTRACT, reset, "forget a training"),
    Operation("contract.enroll", SL, ENROLL, enroll, "take part in a training"),
    Operation("contract.leave", SL, LEAVE, leave, "leave it in order"),
)
