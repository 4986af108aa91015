"""What a training was, derived from what a record proves.

For each round the contract's record after the block that decided it says the roster, and for each
member weight, samples and the root of the hash tree over its vector; the attempt; and the digest of
the result. Beside the validators' word for it stand the members' own signatures: each of the roster
enrolled under these rules, checked in with exactly this root, on top of the round before, and more
than half of them signed that they hold exactly this result.

All rounds must be there, from the first to the last: none can be left out, nor a check-in or a
member of a roster. Of the reports only each member's latest cannot be left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cryptography import x509

from swarm.audit.evidence import CODE, Act, Proven
from swarm.errors import RemoteError
from swarm.identity.parsing import parse
from swarm.ledger.state.table import Record

Json = dict[str, Any]
RULES = ("min_peers", "merge_method", "merge_args", "sync_frequency", "adaptive")
REPORT = ("loss", "metric", "epochs", "total_epochs")


def summary(proven: Proven) -> Json:
    """The training in JSON values. Raises RemoteError SW3203 for what the evidence lacks."""
    height, final = proven.states[-1]
    if final["last"] is None:
        raise RemoteError(CODE, "no round was decided")
    _check_one_contract(proven, final["created"])
    rounds = list(_rounds(proven))
    if len(rounds) != final["last"]["round"] + 1:
        raise RemoteError(CODE, f"{final['last']['round'] + 1} rounds were decided, not all told")
    _check_history(final, rounds)
    _check_reports(proven, final)
    rules = final["rules"]
    return {
        "contract": proven.contract,
        "swarm": proven.genesis.chain_name,
        "chain": proven.genesis.chain_id.hex(),
        "fault_model": proven.genesis.fault_model,
        "height": height,
        "block": proven.headers[height].id.hex(),
        "time_ms": proven.headers[height].time_ms,
        "recoveries": [f"{name}: {reason}" for name, reason in proven.recoveries],
        "status": final["status"],
        "rules": {key: rules[key] for key in RULES},
        "model": {
            "schema": proven.schema["digest"].hex(),
            "size": proven.schema["size"],
            "tensors": list(proven.schema["tensors"]),
        },
        "members": _members(proven, rounds),
        "rounds": rounds,
        "result": final["last"]["digest"].hex(),
    }


def _check_one_contract(proven: Proven, created: int) -> None:
    """A name can be given again once its contract is deleted: nothing of another one counts."""
    for height, state in proven.states:
        if state["created"] != created:
            raise RemoteError(CODE, f"the state at height {height} is of another contract")
    for act in proven.acts:
        if act.height < created:
            raise RemoteError(CODE, f"the act at height {act.height} is before the contract")


def _rounds(proven: Proven) -> Iterator[Json]:
    """Each decided round, in order, checked against the members' acts."""
    before: Json | None = None
    for height, state in proven.states:
        last = state["last"]
        if last is None or last["height"] != height:
            continue  # the final state, after the last decision
        number = before["round"] + 1 if before else 0
        if last["round"] != number:
            raise RemoteError(CODE, f"round {number} is missing")
        before = _round(proven, height, state, before)
        yield before


def _round(proven: Proven, height: int, state: Record, before: Json | None) -> Json:
    last = state["last"]
    since = before["height"] if before else 0
    roster = [_entry(proven, state, uid, since, before) for uid in last["roster"]]
    agreed = _agreed(proven, state, since)
    if 2 * len(agreed) <= len(roster):
        raise RemoteError(
            CODE,
            f"round {last['round']}: {len(agreed)} of {len(roster)} signed for the result, which "
            "is no majority",
        )
    return {
        "round": last["round"],
        "attempt": last["attempt"],
        "height": height,
        "time_ms": last["at_ms"],
        "roster": roster,
        "result": last["digest"].hex(),
        "agreed": agreed,
        "reports": list(_reports(proven, last["round"])),
    }


def _entry(proven: Proven, state: Record, uid: str, since: int, before: Json | None) -> Json:
    """What a member of a roster brought, by its own signature."""
    last = state["last"]
    brought = {key: last[f"{key}s"][uid] for key in ("weight", "root")}
    brought["samples"] = last["samples"][uid]
    base = before["result"] if before else None
    what = f"round {last['round']}: {uid}"
    _enrolled(proven, state, uid, last["height"], what)
    for act in _acts_of(proven, "round.checkin", state, uid, last["round"]):
        args = act.transaction.args
        told = args.get("base")
        if (
            since < act.height <= last["height"]
            and all(args.get(key) == value for key, value in brought.items())
            and (told.hex() if type(told) is bytes else told) == base
        ):
            return {
                "uid": uid,
                "weight": brought["weight"],
                "samples": brought["samples"],
                "root": brought["root"].hex(),
                "checkin": [act.height, act.index],
            }
    raise RemoteError(CODE, f"{what} has signed no check-in that fits")


def _enrolled(proven: Proven, state: Record, uid: str, until: int, what: str) -> None:
    rules = {key: state["rules"][key] for key in RULES}
    for act in _acts_of(proven, "contract.enroll", state, uid):
        if act.height <= until and act.transaction.args.get("rules") == rules:
            return
    raise RemoteError(CODE, f"{what} has not signed to take part under these rules")


def _agreed(proven: Proven, state: Record, since: int) -> list[str]:
    """Members of the roster that signed for the result before it was decided."""
    last = state["last"]
    return [
        uid
        for uid in last["roster"]
        if any(
            act.transaction.args.get("digest") == last["digest"]
            and act.transaction.args.get("attempt") == last["attempt"]
            and since < act.height <= last["height"]
            for act in _acts_of(proven, "round.merged", state, uid, last["round"])
        )
    ]


def _acts_of(
    proven: Proven, op: str, state: Record, uid: str, round_: int | None = None
) -> Iterator[Act]:
    """Acts of one member, by its own key; a uid alone is only a claim."""
    member = state["members"].get(uid)
    key = member["fingerprint"] if member else None
    for act in proven.acts:
        args = act.transaction.args
        if (
            act.transaction.op == op
            and args.get("uid") == uid
            and act.sender.fingerprint == key
            and round_ in (None, args.get("round"))
        ):
            yield act


def _reports(proven: Proven, round_: int) -> Iterator[Json]:
    for act in proven.acts:
        args = act.transaction.args
        if act.transaction.op == "round.report" and args.get("round") == round_:
            told = {key: args.get(key) for key in REPORT}
            yield {"uid": args.get("uid"), **told, "at": [act.height, act.index]}


def _check_reports(proven: Proven, final: Record) -> None:
    """The latest report of each member is in the state, so it cannot be left out."""
    for uid, member in final["members"].items():
        if member["reported_round"] < 0:
            continue
        acts = list(_acts_of(proven, "round.report", final, uid, member["reported_round"]))
        told = {key: acts[-1].transaction.args.get(key) for key in REPORT} if acts else {}
        if told != {key: member[key] for key in REPORT}:
            raise RemoteError(
                CODE, f"the report of {uid} about round {member['reported_round']} is missing"
            )


def _check_history(final: Record, rounds: list[Json]) -> None:
    """The contract remembers its last rounds by itself."""
    for past in final["history"]:
        told = rounds[past["round"]] if past["round"] < len(rounds) else None
        roster = [entry["uid"] for entry in told["roster"]] if told else []
        if told is None or told["result"] != past["digest"].hex() or roster != past["roster"]:
            raise RemoteError(CODE, f"round {past['round']} is not the one that was decided")


def _members(proven: Proven, rounds: list[Json]) -> Json:
    """Everybody who was in a roster: who they are by their certificates."""
    members: dict[Any, Json] = {}
    wanted = {entry["uid"] for told in rounds for entry in told["roster"]}
    for act in proven.acts:
        uid = act.transaction.args.get("uid")
        if act.transaction.op == "contract.enroll" and uid in wanted:
            members[uid] = {
                "name": act.transaction.args["name"],
                "certificate": act.sender.common_name,
                "key": act.sender.fingerprint,
                "organisation": act.sender.organisation,
            }
    return dict(sorted(members.items()))


def authority_name(der: bytes) -> str:
    """The name in a CA's certificate, for people."""
    certificate: x509.Certificate = parse(der)
    return certificate.subject.rfc4514_string()
