"""Why a contract or a taskrunner waits, in one sentence; "" when it waits for nothing.

Pure functions of records. The sentence is part of the record, so logs, status and tests show the
same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from swarm.ledger.state import methods
from swarm.ledger.state.records import Contract, Node, Taskrunner

MAX_NAMED = 6  # a sentence stays readable
MAX_WHY = 200  # characters of what accusers say


def names(all_names: Iterable[str]) -> str:
    """A list for people: "sl-1, sl-2 and 3 more", or "none"."""
    listed = sorted(all_names)
    if not listed:
        return "none"
    if len(listed) <= MAX_NAMED:
        return ", ".join(listed)
    return f"{', '.join(listed[:MAX_NAMED])} and {len(listed) - MAX_NAMED} more"


def of_contract(contract: Contract) -> str:
    """What the present round waits for."""
    if contract["status"] == "CHECKIN":
        return _checkin(contract)
    if contract["status"] == "MERGING":
        return _merging(contract)
    return ""


def _members(contract: Contract, state: str) -> list[str]:
    return [uid for uid, member in contract["members"].items() if member["state"] == state]


def named(contract: Contract, uids: Iterable[str]) -> str:
    """Members by name, for people."""
    members = contract["members"]
    return names(members[uid]["name"] if uid in members else uid for uid in uids)


def said_by(contract: Contract, accusers: Iterable[str]) -> str:
    """Why these accuse somebody, in their words."""
    whys = dict.fromkeys(contract["reasons"].get(one, "") for one in accusers)
    return "; ".join(filter(None, whys))


def _checkin(contract: Contract) -> str:
    rules, checkins = contract["rules"], contract["checkins"]
    assert rules is not None, "an open contract has rules"
    least = rules["min_peers"]
    active = _members(contract, "active")
    absent = [uid for uid in active if uid not in checkins]
    start = f"round {contract['round']}: waiting for "
    seen = f"checked in: {named(contract, checkins)}; not yet: {named(contract, absent)}"
    missing = least - len(checkins)
    shortage = methods.shortage(contract, checkins)
    if missing <= 0 and shortage:
        return f"{start}more members that bring weights: {shortage} ({seen})"
    if missing <= 0:
        return (
            f"{start}{named(contract, absent)} to check in, or for the grace time to end ({seen})"
        )
    sentence = f"{start}{missing} more check-in{'s' * (missing > 1)} (minPeers {least}, {seen})"
    if len(active) < least:
        short = least - len(active)
        sentence += f"; {short} more learner{'s' * (short > 1)} must enroll"
        gone = _members(contract, "lost") + _members(contract, "left")
        if gone:
            sentence += f" or return (gone: {named(contract, gone)})"
    return sentence


def _merging(contract: Contract) -> str:
    roster, merged = contract["roster"], contract["merged"]
    needed = len(roster) // 2 + 1
    sentence = (
        f"round {contract['round']}, attempt {contract['attempt']}: waiting for {needed} of"
        f" {len(roster)} learners to hold the same result (so far: {named(contract, merged)};"
        f" not yet: {named(contract, [uid for uid in roster if uid not in merged])}"
    )
    if len(set(merged.values())) > 1:
        sentence += "; their results differ"
    for accused, accusers in sorted(contract["suspicions"].items()):
        sentence += f"; {named(contract, [accused])} is suspected by {named(contract, accusers)}"
        if whys := said_by(contract, accusers):
            sentence += f": {whys[:MAX_WHY]}"
    return sentence + ")"


def of_runner(runner: Taskrunner, listening: Mapping[str, Node]) -> str:
    """What the present task waits for; `listening` are the active SWOPs of this taskrunner."""
    if runner["state"] == "ASSIGNED":
        return _enrolment(runner, listening)
    if runner["state"] == "RUNNING":
        return _completion(runner)
    return ""


def _enrolment(runner: Taskrunner, listening: Mapping[str, Node]) -> str:
    by_pairs = runner["peer_type"] == "SL"
    willing = [one for one in runner["swops"].values() if one["state"] != "ERROR"]
    there = sum(one["pairs"] if by_pairs else 1 for one in willing)
    missing = runner["needed"] - there
    kind = "pair" if by_pairs else "operator"
    absent = [
        uid
        for uid in listening
        if uid not in runner["swops"] and (not runner["invited"] or uid in runner["invited"])
    ]
    sentence = (
        f"task {runner['task']}: waiting for {missing} more {kind}{'s' * (missing > 1)}"
        f" to enroll (needed {runner['needed']}, enrolled {there};"
    )
    if absent:
        return f"{sentence} not yet: {names(listening[uid]['name'] for uid in absent)})"
    return f"{sentence} no other operator listens on {runner['name']})"


def _completion(runner: Taskrunner) -> str:
    by_pairs = runner["peer_type"] == "SL"
    states = [one["state"] for one in (runner["peers"] if by_pairs else runner["swops"]).values()]
    done, failed = states.count("COMPLETE"), states.count("ERROR")
    kind = "pairs" if by_pairs else "operators"
    return (
        f"task {runner['task']}: waiting for {runner['needed'] - done} more of {runner['needed']}"
        f" {kind} to complete ({done} completed, {failed} failed)"
    )
