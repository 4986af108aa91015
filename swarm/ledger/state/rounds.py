"""Rounds of a training: the heart of the state machine.

Theory of operation
-------------------
A round has two phases. While the contract is in CHECKIN, learners say what they bring (a weight and
the root of a hash tree over their vector) and the roster is open. It closes when every active
member has checked in, or when one of those that have, tired of waiting, asks for it; in both cases
there must be at least `min_peers`, and of those that bring weights as many as the merge method
needs. In MERGING the members of the roster exchange and reduce, off the ledger, and then each says
one of two things about the present attempt: "I hold the whole result, its digest is d" or "I
suspect these others". The last word of a member counts.

- More than half of the roster name the same digest: the round is decided.
- More than half of the others suspect a member, or it is reported lost, or it leaves: the attempt
  has failed. The next one starts without that member, if enough remain; otherwise the roster opens
  again.

Rules that make this safe and must stay true:

1. A round is decided at most once, in the order of the ledger, and everybody goes on with exactly
   the decided vector; nobody trains on before the decision. Two majorities of one roster overlap,
   so a member would have had to say two things at once.
2. Attempts are numbered within a round and never reused, and a statement names its attempt: what
   was said about one roster can never count for another.
3. A member speaks for itself only. The exception is `round.lost`, by the SN that the member itself
   has named as its parent, or by more than half of the validators.
4. No clock: grace and patience are the learners' business; here only order counts.
5. Whoever returns must hold the last decided vector (`base`) before it can contribute.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from swarm.identity import Role
from swarm.ledger.state import args as a
from swarm.ledger.state import faults, methods, pace
from swarm.ledger.state.draft import Context, Draft, validators
from swarm.ledger.state.operation import Operation, own_node, sending_sn
from swarm.ledger.state.records import Checkin, Contract, Decided, Member, PastRound, Schema
from swarm.ledger.state.transitions import ANY, Transition, Transitions
from swarm.ledger.state.verdict import Refused

HISTORY = 64  # rounds that a contract's record remembers
WEIGHT_UNIT = 10_000  # a weightage of 1 travels as 10000
MAX_WEIGHT = 100 * WEIGHT_UNIT
MAX_ROSTER = 256
MAX_TENSORS = 512
MAX_TENSOR_TEXT = 32 * 1024  # characters in all
MAX_SIZE = 1 << 44  # bytes; 16 TiB

CONTRACT_STATES = Transitions(
    "Contract",
    "UNINITIALIZED",
    (
        Transition(
            "UNINITIALIZED", "contract.enroll", "CHECKIN", "the first learner sets the rules"
        ),
        Transition("CHECKIN", "close", "MERGING", "all active members, or enough, checked in"),
        Transition("MERGING", "decided", "CHECKIN", "a majority holds one result: next round"),
        Transition(
            "MERGING", "over", "FINISHED", "the same, and minPeers of them are done with training"
        ),
        Transition(
            "CHECKIN", "over", "FINISHED", "all who checked in are done and inactive: no weight"
        ),
        Transition("MERGING", "failed", "MERGING", "next attempt without a lost member"),
        Transition("MERGING", "short", "CHECKIN", "too few remain: same round"),
        Transition(ANY, "contract.reset", "UNINITIALIZED", "members, rounds, model are forgotten"),
        Transition(ANY, "contract.delete", "absent", "no member is active; not the default one"),
    ),
)

MEMBER_STATES = Transitions(
    "Member of a contract",
    "absent",
    (
        Transition("absent", "contract.enroll", "active", "it joins"),
        Transition("active", "contract.enroll", "active", "its learner was restarted"),
        Transition("lost", "contract.enroll", "active", "it returns"),
        Transition("left", "contract.enroll", "active", "it returns"),
        Transition("active", "lost", "lost", "its SN or a majority misses it, or is suspicious"),
        Transition("active", "contract.leave", "left", "it leaves in order"),
        Transition("lost", "contract.leave", "left", "it leaves in order"),
        Transition("left", "contract.leave", "left", "it had left already"),
        Transition("lost", "displaced", "absent", "the contract is full"),
        Transition("left", "displaced", "absent", "the contract is full"),
    ),
)


def contract_of(draft: Draft, name: str) -> Contract:
    """The contract for changing. Raises Refused."""
    contract = draft.edit_contract(name)
    if contract is None:
        raise Refused("SW4040", f"there is no contract {name}")
    return contract


def training_over(contract: Contract) -> Refused:
    """The refusal for those that come when everything has ended."""
    return Refused("SW4050", f"training of contract {contract['name']} is over", {"over": True})


def _member(draft: Draft, context: Context, args: dict[str, Any]) -> tuple[Contract, Member]:
    """The sender's own active membership in a contract that is not over. Raises Refused."""
    uid = args["uid"]
    own_node(draft, context, uid)
    contract = contract_of(draft, args["contract"])
    member = contract["members"].get(uid)
    if member is None:
        raise Refused("SW4043", f"node {uid} is not in contract {contract['name']}")
    if contract["over"]:
        raise training_over(contract)
    if member["state"] != "active":
        raise Refused("SW4044", f"{member['name']} is {member['state']}; enroll again")
    contract["lost_reports"].pop(uid, None)  # it lives
    return contract, member


def _min_peers(contract: Contract) -> int:
    rules = contract["rules"]
    assert rules is not None, "a contract with members has rules"
    return rules["min_peers"]


def _check_round(contract: Contract, round_: int) -> None:
    if round_ != contract["round"]:
        raise Refused(
            "SW4051",
            f"round {round_} is not open; contract {contract['name']} is in round"
            f" {contract['round']}",
            {"round": contract["round"]},
        )


def checkin(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Say what one brings to the round. The first check-in of a contract fixes the schema."""
    contract, member = _member(draft, context, args)
    uid = args["uid"]
    _check_round(contract, args["round"])
    offered = Checkin(
        weight=args["weight"],
        samples=args["samples"],
        root=args["root"],
        done=args["done"],
        at_ms=context.header.time_ms,
    )
    before = contract["checkins"].get(uid)
    if before is not None:
        if {**before, "at_ms": 0} != {**offered, "at_ms": 0}:
            raise Refused("SW4055", f"{member['name']} has checked in already, with other values")
        return _progress(contract)
    if contract["status"] != "CHECKIN":
        raise Refused(
            "SW4052", f"the roster of round {contract['round']} is closed", _progress(contract)
        )
    _check_base(contract, args["base"])
    if contract["last"] and contract["last"]["height"] == context.header.height:
        # So each decided round is in the state after some block, where a record can prove it.
        raise Refused("SW4053", "the last round was decided in this very block; fetch its model")
    if args["weight"] == 0 and not (member["mode"] == "inactive" and args["done"]):
        raise Refused("SW4056", "a weight of 0 is for inactive members that are done")
    _check_schema(draft, contract, args)
    contract["checkins"][uid] = offered
    member["done"] = args["done"]
    _close_if_complete(draft, context, contract)
    return _progress(contract)


def _progress(contract: Contract) -> dict[str, Any]:
    return {"status": contract["status"], "round": contract["round"]}


def _check_base(contract: Contract, base: bytes | None) -> None:
    last = contract["last"]
    if base != (last["digest"] if last else None):
        raise Refused(
            "SW4053",
            f"you do not start from the model of round {last['round']}; fetch it first"
            if last
            else "no round is decided yet, so there is no model to start from",
        )


def _check_schema(draft: Draft, contract: Contract, args: dict[str, Any]) -> None:
    """Fix the schema, or compare with it and name the tensor that differs."""
    tensors = args.get("tensors", [])
    if sum(map(len, tensors)) > MAX_TENSOR_TEXT:
        raise Refused(a.MALFORMED, f"tensors: more than {MAX_TENSOR_TEXT} characters in all")
    known = draft.schema(contract["name"])
    if contract["schema"] is None or known is None:
        contract["schema"] = args["schema"]
        schema = Schema(
            digest=args["schema"], tensors=tensors, size=args["size"], set_by=args["uid"]
        )
        draft.put("schemas", contract["name"], schema)
        return
    if known["digest"] == args["schema"] and known["size"] == args["size"]:
        return
    setter = contract["members"].get(known["set_by"])
    who = setter["name"] if setter else "the first learner"
    raise Refused("SW4054", f"your model differs from that of {who}: {_difference(known, args)}")


def _difference(known: Schema, args: dict[str, Any]) -> str:
    theirs, yours = known["tensors"], args.get("tensors", [])
    for place, (one, other) in enumerate(zip(theirs, yours, strict=False)):
        if one != other:
            return f"tensor {place} is {one!r} there and {other!r} here"
    if theirs and yours and len(theirs) != len(yours):
        return f"{len(theirs)} tensors there and {len(yours)} here"
    return f"{known['size']} bytes there and {args['size']} here, or other names, shapes or types"


def close(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Close the roster without those that have not checked in. The sender must have."""
    contract, member = _member(draft, context, args)
    _check_round(contract, args["round"])
    if args["uid"] not in contract["checkins"]:
        raise Refused("SW4057", f"{member['name']} has not checked in")
    if contract["status"] == "MERGING":
        return _progress(contract)  # somebody was faster
    missing = _min_peers(contract) - len(contract["checkins"])
    if missing > 0:
        needed = f"{missing} more check-in{'s' * (missing > 1)}"
        raise Refused("SW4057", f"the roster needs {needed} before it can close")
    shortage = methods.shortage(contract, contract["checkins"])
    if shortage:
        raise Refused("SW4057", f"the roster cannot close yet: {shortage}")
    _close(draft, context, contract)
    return _progress(contract)


def _close_if_complete(draft: Draft, context: Context, contract: Contract) -> None:
    if contract["status"] != "CHECKIN" or len(contract["checkins"]) < _min_peers(contract):
        return
    active = {uid for uid, member in contract["members"].items() if member["state"] == "active"}
    if active <= set(contract["checkins"]) and not methods.shortage(contract, contract["checkins"]):
        _close(draft, context, contract)


def _close(draft: Draft, context: Context, contract: Contract) -> None:
    checkins = contract["checkins"]
    if not any(checkin["weight"] for checkin in checkins.values()):
        # Only inactive members that are done give no weight: there is nothing left to merge.
        _finish(contract)
        return
    contract["status"] = CONTRACT_STATES.step(contract["status"], "close")
    contract["roster"] = sorted(checkins)
    contract["started_ms"] = contract["started_ms"] or context.header.time_ms
    for uid, member in contract["members"].items():
        if member["state"] == "active" and uid not in checkins:
            member["missed"] += 1


def _finish(contract: Contract) -> None:
    contract["status"] = CONTRACT_STATES.step(contract["status"], "over")
    contract["over"] = True
    contract["checkins"] = {}
    contract["lost_reports"] = {}
    _clear_attempt(contract)


def _clear_attempt(contract: Contract) -> None:
    contract["roster"] = []
    contract["merged"] = {}
    contract["suspicions"] = {}
    contract["reasons"] = {}


def _in_attempt(contract: Contract, args: dict[str, Any]) -> None:
    """Refuse unless the statement is about the attempt that runs, by one of its roster."""
    _check_round(contract, args["round"])
    if contract["status"] != "MERGING" or args["attempt"] != contract["attempt"]:
        raise Refused(
            "SW4058",
            f"attempt {args['attempt']} of round {args['round']} is not running;"
            f" {contract['status']}, attempt {contract['attempt']}",
            {**_progress(contract), "attempt": contract["attempt"]},
        )
    if args["uid"] not in contract["roster"]:
        raise Refused("SW4059", f"node {args['uid']} is not in the roster of this attempt")


def merged(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Say that one holds the whole result. Afterwards, that one has got the decided one as well."""
    last = _last_of(draft, args)
    if last is not None:
        return _hold(draft, context, args, last)
    contract, _ = _member(draft, context, args)
    uid = args["uid"]
    _in_attempt(contract, args)
    if len(args["shards"]) > len(contract["roster"]):
        raise Refused(a.MALFORMED, "shards: more of them than members in the roster")
    _take_back_suspicions(contract, uid)
    contract["merged"][uid] = args["digest"]
    agreeing = [one for one, digest in contract["merged"].items() if digest == args["digest"]]
    if 2 * len(agreeing) > len(contract["roster"]):
        _decide(draft, context, contract, args["digest"], sorted(agreeing))
    return {"decided": contract["round"] > args["round"] or contract["over"]}


def _last_of(draft: Draft, args: dict[str, Any]) -> Decided | None:
    """The decided round that the statement is about, if it is about the last one."""
    contract = draft.contract(args["contract"])
    last = contract["last"] if contract else None
    return last if last and last["round"] == args["round"] else None


def _hold(draft: Draft, context: Context, args: dict[str, Any], last: Decided) -> dict[str, Any]:
    uid = args["uid"]
    own_node(draft, context, uid)
    contract = contract_of(draft, args["contract"])
    if uid not in contract["members"]:
        raise Refused("SW4043", f"node {uid} is not in contract {contract['name']}")
    if args["digest"] != last["digest"]:
        raise Refused(
            "SW4060",
            f"round {last['round']} was decided with {last['digest'].hex()[:16]}…;"
            f" you hold {args['digest'].hex()[:16]}…",
        )
    assert contract["last"] is not None, "checked by the caller"
    contract["last"]["holders"] = sorted({*last["holders"], uid})
    return {"decided": True}


def _decide(
    draft: Draft, context: Context, contract: Contract, digest: bytes, holders: list[str]
) -> None:
    roster, now = contract["roster"], context.header.time_ms
    checkins = contract["checkins"]
    schema = draft.schema(contract["name"])
    assert schema is not None, "the first check-in fixed it"
    pace.adapt(contract)
    contract["last"] = Decided(
        round=contract["round"],
        attempt=contract["attempt"],
        digest=digest,
        roster=roster,
        holders=holders,
        weights={uid: checkins[uid]["weight"] for uid in roster},
        samples={uid: checkins[uid]["samples"] for uid in roster},
        roots={uid: checkins[uid]["root"] for uid in roster},
        height=context.header.height,
        size=schema["size"],
        started_ms=contract["started_ms"],
        at_ms=now,
    )
    past = PastRound(
        round=contract["round"],
        attempts=contract["attempt"] + 1,
        roster=roster,
        digest=digest,
        started_ms=contract["started_ms"],
        at_ms=now,
    )
    contract["history"] = [*contract["history"], past][-HISTORY:]
    contract["round"] += 1
    contract["attempt"] = contract["started_ms"] = 0
    done = sum(
        contract["members"][uid]["done"] and contract["members"][uid]["state"] == "active"
        for uid in roster
    )
    if done >= _min_peers(contract):
        _finish(contract)
        return
    contract["status"] = CONTRACT_STATES.step(contract["status"], "decided")
    contract["checkins"] = {}
    _clear_attempt(contract)


def suspect(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Say which members of the roster no bytes come from. Replaces what the sender said before.

    About the last decided round it is a note for people, of what came to light too late to matter.
    """
    contract, _ = _member(draft, context, args)
    uid = args["uid"]
    last = _last_of(draft, args)
    if last is not None and args["attempt"] == last["attempt"] and uid in last["roster"]:
        for accused in sorted(set(args["accused"]) & set(last["roster"]) - {uid}):
            faults.note_afterwards(contract, context.header.height, accused, uid, args["why"])
        return {**_progress(contract), "attempt": contract["attempt"]}
    _in_attempt(contract, args)
    for accused in args["accused"]:
        if accused == uid or accused not in contract["roster"]:
            raise Refused("SW4062", f"{accused} cannot be suspected by {uid} in this attempt")
    contract["merged"].pop(uid, None)
    _take_back_suspicions(contract, uid)
    for accused in args["accused"]:
        accusers = contract["suspicions"].get(accused, [])
        contract["suspicions"][accused] = sorted([*accusers, uid])
    contract["reasons"][uid] = faults.reason(args["why"])
    others = len(contract["roster"]) - 1
    out = [
        accused
        for accused, accusers in sorted(contract["suspicions"].items())
        if 2 * len(accusers) > others
    ]
    if out:
        faults.note_suspicions(contract, context.header.height, out)
        remove(draft, context, contract, out, "lost")
    return {**_progress(contract), "attempt": contract["attempt"]}


def _take_back_suspicions(contract: Contract, uid: str) -> None:
    kept = {}
    for accused, accusers in contract["suspicions"].items():
        rest = [one for one in accusers if one != uid]
        if rest:
            kept[accused] = rest
    contract["suspicions"] = kept
    contract["reasons"].pop(uid, None)


def lost(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """An SN misses a member: at once if it is the member's parent, else by majority."""
    reporter = sending_sn(draft, context)
    contract, uid = contract_of(draft, args["contract"]), args["uid"]
    member = contract["members"].get(uid)
    if member is None:
        raise Refused("SW4043", f"node {uid} is not in contract {contract['name']}")
    if member["state"] != "active" or contract["over"]:
        return {"state": member["state"]}  # nothing is left to do
    node = draft.node(uid)
    if node is None or node["parent"] != reporter:
        present = {validator.uid for validator in validators(draft)}
        if reporter not in present:
            raise Refused("SW4061", f"{reporter} is neither a validator nor the parent of {uid}")
        reports = {*contract["lost_reports"].get(uid, []), reporter} & present
        if 2 * len(reports) <= len(present):
            contract["lost_reports"][uid] = sorted(reports)
            return {"state": "active", "reports": len(reports), "of": len(present)}
    sn = draft.node(reporter)
    by = sn["name"] if sn else reporter
    faults.note(contract, context.header.height, uid, by, args["reason"])
    remove(draft, context, contract, [uid], "lost")
    return {"state": "lost"}


def remove(
    draft: Draft, context: Context, contract: Contract, uids: Iterable[str], event: str
) -> None:
    """Take members out (`event` is "lost" or "contract.leave"), and go on without them."""
    gone = list(uids)
    for uid in gone:
        member = contract["members"][uid]
        member["state"] = MEMBER_STATES.step(member["state"], event)
        contract["lost_reports"].pop(uid, None)
    if not contract["over"]:
        withdraw(draft, context, contract, gone)


def withdraw(draft: Draft, context: Context, contract: Contract, uids: Iterable[str]) -> None:
    """Forget what `uids` put into the round: their attempt fails, or an open roster closes now."""
    gone = set(uids)
    contract["checkins"] = {
        uid: checkin for uid, checkin in contract["checkins"].items() if uid not in gone
    }
    if contract["status"] == "MERGING" and gone & set(contract["roster"]):
        _fail_attempt(contract, gone)
    if contract["last"] is None and not contract["checkins"]:
        contract["schema"] = None  # one that has gone must not bind those that stay
        if draft.schema(contract["name"]) is not None:
            draft.delete("schemas", contract["name"])
    if contract["status"] == "CHECKIN":
        _close_if_complete(draft, context, contract)


def _fail_attempt(contract: Contract, gone: set[str]) -> None:
    remaining = [uid for uid in contract["roster"] if uid not in gone]
    contract["attempt"] += 1
    _clear_attempt(contract)
    if len(remaining) < _min_peers(contract) or methods.shortage(contract, remaining):
        contract["status"] = CONTRACT_STATES.step(contract["status"], "short")
    elif not any(contract["checkins"][uid]["weight"] for uid in remaining):
        _finish(contract)  # as in _close: nothing is left to merge
    else:
        contract["status"] = CONTRACT_STATES.step(contract["status"], "failed")
        contract["roster"] = remaining


def leave_everywhere(draft: Draft, context: Context, uid: str) -> None:
    """A learner's node has left: so it has in all its contracts."""
    for name in draft.keys("contracts"):
        found = draft.contract(name)
        if found is not None and uid in found["members"]:
            remove(draft, context, contract_of(draft, name), [uid], "contract.leave")


def busy_members(draft: Draft) -> set[str]:
    """Learners that are active in a training that is not over."""
    busy: set[str] = set()
    for _, contract in draft.items("contracts"):
        if not contract["over"]:
            members = contract["members"].items()
            busy.update(uid for uid, member in members if member["state"] == "active")
    return busy


def report(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Loss and metric with the merged weights of a round; for people, decides nothing."""
    uid = args["uid"]
    own_node(draft, context, uid)
    contract = contract_of(draft, args["contract"])
    member = contract["members"].get(uid)
    if member is None:
        raise Refused("SW4043", f"node {uid} is not in contract {contract['name']}")
    newest = contract["last"]["round"] if contract["last"] else -1
    if not member["reported_round"] <= args["round"] <= newest:
        raise Refused("SW4051", f"round {args['round']} is not one to report about now")
    member["loss"], member["metric"] = args["loss"], args["metric"]
    member["epochs"], member["total_epochs"] = args["epochs"], args["total_epochs"]
    member["reported_round"] = args["round"]
    return {}


ROUND = a.integer(0, 1 << 40)
ATTEMPT = a.integer(0, 1 << 40)
SAME = {"contract": a.NAME, "uid": a.UID}
CHECKIN = {
    **SAME,
    "round": ROUND,
    "weight": a.integer(0, MAX_WEIGHT),
    "samples": a.COUNT,
    "root": a.DIGEST,
    "schema": a.DIGEST,
    "tensors": a.optional(a.list_of(a.text(0, 256), MAX_TENSORS)),
    "size": a.integer(0, MAX_SIZE),
    "base": a.nullable(a.DIGEST),
    "done": a.FLAG,
}
SUSPECT = {
    **SAME,
    "round": ROUND,
    "attempt": ATTEMPT,
    "accused": a.list_of(a.UID, MAX_ROSTER, least=1, distinct=True),
    "why": a.note(500),
}
MERGED = {
    **SAME,
    "round": ROUND,
    "attempt": ATTEMPT,
    "digest": a.DIGEST,
    "shards": a.list_of(a.DIGEST, MAX_ROSTER),
}
REPORT = {
    **SAME,
    "round": ROUND,
    "loss": a.either(a.DECIMAL, a.EMPTY),
    "metric": a.either(a.DECIMAL, a.EMPTY),
    "epochs": a.COUNT,
    "total_epochs": a.COUNT,
}
SL = frozenset({Role.SL})
OPERATIONS = (
    Operation("round.checkin", SL, CHECKIN, checkin, "bring something to the round"),
    Operation("round.close", SL, {**SAME, "round": ROUND}, close, "wait no longer for others"),
    Operation("round.suspect", SL, SUSPECT, suspect, "no bytes come from these members"),
    Operation(
        "round.lost",
        frozenset({Role.SN}),
        {**SAME, "reason": a.note(500)},
        lost,
        "a learner gives no sign of life",
    ),
    Operation("round.merged", SL, MERGED, merged, "hold the whole result"),
    Operation("round.report", SL, REPORT, report, "loss and metric with the merged weights"),
)
