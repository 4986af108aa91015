"""Taskrunners: one task at a time, executed by the SWOPs that listen.

An assignment has an operation id; whatever names another one is stale and refused. What counts as
a peer depends on the task: for RUN_SWARM it is a pair of learner and program (`peers`), for all
others a SWOP (`swops`). The runner is COMPLETE when `needed` peers are, and ERROR as soon as, after
a failure, so many cannot be reached any more: SWOPs that listen but have not enrolled count as
possible then. Before any failure a shortage of SWOPs is a wait, with its reason, and not an error.

`invited` settles who may take part: everybody that listens while it is empty, as in WITH n PEERS,
where of tasks for SWOPs the first n get the places. ALL PEERS and TARGET name those that may.
TARGET calls one more in while the task runs, or when it has failed: what that one reported before
is forgotten, and the task goes on.

A SWOP reports about itself and its own pairs only, and is believed in that.
"""

from __future__ import annotations

import hashlib
from typing import Any

from swarm.identity import Role
from swarm.ledger.state import args as a
from swarm.ledger.state.draft import Context, Draft
from swarm.ledger.state.operation import (
    FULL,
    IN_USE,
    Operation,
    check_deletable,
    created_by,
    own_node,
)
from swarm.ledger.state.records import Node, Operator, PairStatus, Taskrunner
from swarm.ledger.state.tasks import ROOT_TYPE, RUN_SWARM
from swarm.ledger.state.transitions import ANY, Transition, Transitions
from swarm.ledger.state.verdict import Refused

DEFAULT = "defaulttaskbb.taskdb.sml.hpe"
MAX_PER_ORGANISATION = 256
MAX_PAIRS = 512  # of one task
MAX_PAIRS_PER_KEY = 64  # so that no host can fill the places of all others
MAX_NEEDED = 4096
MAX_STATUS = 2000  # characters; the end of a failed program's log fits
EVERYBODY = "*"
ENDED = ("COMPLETE", "ERROR")

TRANSITIONS = Transitions(
    "Taskrunner",
    "IDLE",
    (
        Transition("IDLE", "runner.assign", "ASSIGNED", "a finalized task, with a quorum"),
        Transition("ASSIGNED", "enrolled", "RUNNING", "enough peers for the quorum have enrolled"),
        Transition("RUNNING", "enrolled", "RUNNING", "more peers than the quorum enroll"),
        Transition("RUNNING", "quorum", "COMPLETE", "as many peers as needed have completed"),
        Transition("ASSIGNED", "failed", "ERROR", "the quorum cannot be reached any more"),
        Transition("RUNNING", "failed", "ERROR", "the quorum cannot be reached any more"),
        Transition("ERROR", "called in", "ASSIGNED", "an operator gets another chance (TARGET)"),
        Transition(ANY, "runner.reset", "IDLE", "SWOPs stop and remove what they started"),
        Transition("IDLE", "runner.delete", "absent", "no SWOP listens on it; not the default one"),
    ),
)

PEER_TRANSITIONS = Transitions(
    "Peer of a taskrunner",
    "ENROLLED",
    (
        Transition("ENROLLED", "RUNNING", "RUNNING", "it has begun"),
        Transition("RUNNING", "RUNNING", "RUNNING", "progress in words"),
        Transition("ENROLLED", "COMPLETE", "COMPLETE", "it has done its part"),
        Transition("RUNNING", "COMPLETE", "COMPLETE", "it has done its part"),
        Transition("COMPLETE", "COMPLETE", "COMPLETE", "said again"),
        Transition("ENROLLED", "ERROR", "ERROR", "it failed; the text says why"),
        Transition("RUNNING", "ERROR", "ERROR", "it failed; the text says why"),
        Transition("ERROR", "ERROR", "ERROR", "said again"),
    ),
)


def idle(name: str, created: int, organisation: str) -> Taskrunner:
    """A taskrunner without a task."""
    return Taskrunner(
        name=name,
        state=TRANSITIONS.initial,
        task="",
        peer_type="",
        operation="",
        needed=0,
        target=EVERYBODY,
        invited=[],
        started_ms=0,
        ended_ms=0,
        text="",
        waiting="",
        swops={},
        peers={},
        created=created,
        organisation=organisation,
    )


def _runner(draft: Draft, name: str) -> Taskrunner:
    runner = draft.edit_runner(name)
    if runner is None:
        raise Refused("SW4030", f"there is no taskrunner {name}")
    return runner


def create(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Create a taskrunner."""
    name, organisation = args["name"], context.sender.organisation
    if draft.runner(name) is not None:
        raise Refused("SW4031", f"a taskrunner {name} exists already")
    if created_by(draft, "taskrunners", organisation) >= MAX_PER_ORGANISATION:
        raise Refused(FULL, f"your organisation has {MAX_PER_ORGANISATION} taskrunners already")
    draft.put("taskrunners", name, idle(name, context.header.height, organisation))
    return {}


def reset(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Back to IDLE from any state."""
    runner = _runner(draft, args["runner"])
    runner["state"] = TRANSITIONS.step(runner["state"], "runner.reset")
    name = runner["name"]
    draft.put("taskrunners", name, idle(name, runner["created"], runner["organisation"]))
    return {}


def delete(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Delete a taskrunner that is idle and that no SWOP listens on."""
    runner = _runner(draft, args["runner"])
    name = runner["name"]
    check_deletable(context, "taskrunner", name, DEFAULT, runner["organisation"])
    if not TRANSITIONS.allows(runner["state"], "runner.delete"):
        raise Refused(
            IN_USE,
            f"taskrunner {name} is {runner['state']} with task {runner['task']}",
        )
    present = sorted(node["name"] or uid for uid, node in listening(draft, name).items())
    if present:
        more = f" and {len(present) - 1} more" if len(present) > 1 else ""
        raise Refused(IN_USE, f"taskrunner {name} has operators: {present[0]}{more}")
    TRANSITIONS.step(runner["state"], "runner.delete")
    draft.delete("taskrunners", name)
    return {}


def listening(draft: Draft, name: str) -> dict[str, Node]:
    """Active SWOPs whose profile names this taskrunner, by uid."""
    return {
        uid: record  # type: ignore[misc]  # records of this table are nodes
        for uid, record in draft.items("nodes")
        if record["type"] == "SWOP" and record["active"] and record["runner"] == name
    }


def assign(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Start a task, or call one more SWOP into the task that is running (`target`)."""
    runner = _runner(draft, args["runner"])
    among = args.get("among")
    if among is not None and (args["peers"] or args["target"] != EVERYBODY):
        raise Refused(a.MALFORMED, "among says who all are, and goes with peers = 0 only")
    if not TRANSITIONS.allows(runner["state"], "runner.assign"):
        return _call_in(draft, runner, args)
    by_pairs = _task_type(draft, args["task"]) == RUN_SWARM
    present = listening(draft, runner["name"])
    if among is not None:
        present = {uid: node for uid, node in present.items() if uid in among}
    if args["target"] != EVERYBODY:
        _check_target(present, runner, args["target"])
        present = {args["target"]: present[args["target"]]}
    needed = args["peers"]
    if needed == 0:
        needed = sum(node["pairs"] for node in present.values()) if by_pairs else len(present)
    if needed == 0:
        raise Refused(
            "SW4038",
            f"no operator{' with a learner' if by_pairs else ''} listens on {runner['name']}",
        )
    # Who is counted for ALL is settled now: a SWOP that comes later takes no part.
    closed = args["peers"] == 0 or args["target"] != EVERYBODY
    seed = context.chain + context.sender.fingerprint.encode() + context.tx_id
    runner["state"] = TRANSITIONS.step(runner["state"], "runner.assign")
    runner["task"] = args["task"]
    runner["peer_type"] = "SL" if by_pairs else "SWOP"
    runner["operation"] = hashlib.sha256(b"operation" + seed).hexdigest()[:16]
    runner["needed"] = needed
    runner["target"] = args["target"]
    runner["invited"] = sorted(present) if closed else []
    runner["started_ms"] = context.header.time_ms
    runner["text"] = "assigned"
    return {"operation": runner["operation"], "needed": needed}


def _task_type(draft: Draft, name: str) -> str:
    """The type of a task that can be executed now. Raises Refused."""
    task = draft.task(name)
    if task is None:
        raise Refused("SW4020", f"there is no task {name}")
    if task["type"] == ROOT_TYPE:
        raise Refused("SW4025", f"{name} cannot be executed")
    prereq = draft.task(task["prereq"])
    for needed, found in ((name, task), (task["prereq"], prereq)):
        if found is None or not found["finalized"]:
            raise Refused("SW4023", f"task {needed} is not finalized")
    return task["type"]


def _check_target(present: dict[str, Node], runner: Taskrunner, uid: str) -> None:
    if uid not in present:
        raise Refused("SW4038", f"no operator {uid} listens on {runner['name']}")


def _call_in(draft: Draft, runner: Taskrunner, args: dict[str, Any]) -> dict[str, Any]:
    """Let one SWOP (again) into the task, forgetting what it reported before."""
    uid = args["target"]
    if uid == EVERYBODY or runner["state"] == "COMPLETE" or runner["task"] != args["task"]:
        raise Refused(
            "SW4032",
            f"taskrunner {runner['name']} is {runner['state']} with task {runner['task']};"
            " reset it first",
        )
    _check_target(listening(draft, runner["name"]), runner, uid)
    operator = runner["swops"].get(uid)
    if operator is not None and operator["state"] != "ERROR":
        raise Refused("SW4032", f"operator {uid} takes part already and is {operator['state']}")
    runner["swops"].pop(uid, None)
    for name in [name for name, peer in runner["peers"].items() if peer["swop"] == uid]:
        del runner["peers"][name]
    by_pairs = runner["peer_type"] == "SL"
    if runner["invited"]:
        runner["invited"] = sorted({*runner["invited"], uid})
    elif not by_pairs and len(runner["swops"]) + 1 >= runner["needed"]:
        # Nobody else shall be faster. Those that have a place keep it.
        runner["invited"] = sorted({*runner["swops"], uid})
    if not by_pairs and _willing(runner) >= runner["needed"]:
        runner["needed"] += 1  # all places are taken: one more for it
    if runner["state"] == "ERROR":
        runner["state"] = TRANSITIONS.step(runner["state"], "called in")
        runner["ended_ms"] = 0
        runner["text"] = f"operator {uid} is called in"
        _begin(runner)
    return {"operation": runner["operation"], "needed": runner["needed"]}


def _current(draft: Draft, args: dict[str, Any]) -> Taskrunner:
    runner = _runner(draft, args["runner"])
    if runner["state"] == "IDLE" or runner["operation"] != args["operation"]:
        raise Refused(
            "SW4033", f"operation {args['operation']} is not the one of {runner['name']} any more"
        )
    return runner


def enroll(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """A SWOP takes part, with `pairs` pairs of learner and program."""
    runner, uid = _current(draft, args), args["uid"]
    node = own_node(draft, context, uid)
    if uid in runner["swops"]:  # restarted, and asks again
        return {"index": runner["swops"][uid]["index"]}
    if runner["state"] in ENDED:
        raise Refused("SW4034", f"taskrunner {runner['name']} is {runner['state']} already")
    if node["type"] != "SWOP" or node["runner"] != runner["name"]:
        raise Refused("SW4035", f"node {uid} does not listen on {runner['name']}")
    if runner["invited"] and uid not in runner["invited"]:
        raise Refused("SW4035", f"operator {uid} is not among those that this task is for")
    by_pairs = runner["peer_type"] == "SL"
    if by_pairs and args["pairs"] == 0:
        raise Refused("SW4035", f"operator {uid} has no learner in its profile")
    if not by_pairs and _willing(runner) >= runner["needed"]:
        raise Refused("SW4034", f"enough operators take part: {runner['needed']}")
    _check_room(draft, runner, node, args["pairs"])
    taken = [operator["index"] for operator in runner["swops"].values()]
    index = next(i for i in range(len(taken) + 1) if i not in taken)
    runner["swops"][uid] = Operator(
        index=index,
        pairs=args["pairs"],
        state=PEER_TRANSITIONS.initial,
        text="",
        updated_ms=context.header.time_ms,
    )
    _begin(runner)
    return {"index": index}


def _begin(runner: Taskrunner) -> None:
    """Let the task run, if enough take part."""
    if _willing(runner) >= runner["needed"]:
        runner["state"] = TRANSITIONS.step(runner["state"], "enrolled")


def _check_room(draft: Draft, runner: Taskrunner, node: Node, pairs: int) -> None:
    everybody = own = max(1, pairs)
    for uid, operator in runner["swops"].items():
        size = max(1, operator["pairs"])
        everybody += size
        other = draft.node(uid)
        if other is None or other["fingerprint"] == node["fingerprint"]:
            own += size
    if everybody > MAX_PAIRS or own > MAX_PAIRS_PER_KEY:
        raise Refused(
            FULL,
            f"a task has places for {MAX_PAIRS} pairs, {MAX_PAIRS_PER_KEY} a key",
        )


def _enrolled(runner: Taskrunner) -> int:
    operators = runner["swops"].values()
    return sum(operator["pairs"] if runner["peer_type"] == "SL" else 1 for operator in operators)


def _willing(runner: Taskrunner) -> int:
    """The same without those that have failed."""
    by_pairs = runner["peer_type"] == "SL"
    there = (one for one in runner["swops"].values() if one["state"] != "ERROR")
    return sum(one["pairs"] if by_pairs else 1 for one in there)


def status(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """A SWOP reports about itself (`peer` empty) or about one of its pairs."""
    runner, uid = _current(draft, args), args["uid"]
    own_node(draft, context, uid)
    operator = runner["swops"].get(uid)
    if operator is None:
        raise Refused("SW4036", f"operator {uid} has not enrolled for this task")
    if args["peer"]:
        target: Operator | PairStatus = _pair(runner, operator, args)
    else:
        target = operator
    if not PEER_TRANSITIONS.allows(target["state"], args["state"]):
        raise Refused("SW4037", f"{target['state']} cannot become {args['state']}")
    target["state"] = PEER_TRANSITIONS.step(target["state"], args["state"])
    target["text"] = a.cleaned(args["text"])
    target["updated_ms"] = context.header.time_ms
    _settle(draft, context, runner)
    return {"state": runner["state"]}


def _pair(runner: Taskrunner, operator: Operator, args: dict[str, Any]) -> PairStatus:
    uid, index = args["uid"], args["index"]
    if runner["peer_type"] != "SL" or index >= operator["pairs"]:
        raise Refused("SW4036", f"operator {uid} has no pair {index} in this task")
    for peer in runner["peers"].values():
        if peer["swop"] == uid and peer["index"] == index:
            return peer
    name = args["peer"]
    if name in runner["peers"]:  # another operator's: nobody can take a name away by being first
        name = f"{name}@{uid}.{index}"
    peer = PairStatus(swop=uid, index=index, state=PEER_TRANSITIONS.initial, text="", updated_ms=0)
    runner["peers"][name] = peer
    return peer


def _tally(runner: Taskrunner) -> tuple[int, int]:
    """How many peers have completed, and how many have failed."""
    if runner["peer_type"] == "SWOP":
        states = [operator["state"] for operator in runner["swops"].values()]
        return states.count("COMPLETE"), states.count("ERROR")
    complete = failed = 0
    for uid, operator in runner["swops"].items():
        states = [peer["state"] for peer in runner["peers"].values() if peer["swop"] == uid]
        done = states.count("COMPLETE")
        complete += done
        # When the operator itself has failed, none of its other pairs will complete.
        broken = operator["state"] == "ERROR"
        failed += operator["pairs"] - done if broken else states.count("ERROR")
    return complete, failed


def possible(draft: Draft, runner: Taskrunner) -> int:
    """How many peers could still take part without having enrolled yet."""
    absent = [
        node
        for uid, node in listening(draft, runner["name"]).items()
        if uid not in runner["swops"] and (not runner["invited"] or uid in runner["invited"])
    ]
    if runner["peer_type"] == "SL":
        return sum(node["pairs"] for node in absent)
    if runner["invited"]:
        return len(absent)
    return min(len(absent), max(0, runner["needed"] - len(runner["swops"])))


def _settle(draft: Draft, context: Context, runner: Taskrunner) -> None:
    """See whether the quorum is reached, or cannot be any more."""
    if runner["state"] in ENDED or runner["state"] == "IDLE":
        return
    complete, failed = _tally(runner)
    reachable = _enrolled(runner) - failed + possible(draft, runner)
    kind = "pairs" if runner["peer_type"] == "SL" else "operators"
    tally = f"{complete} of {runner['needed']} {kind} completed"
    if complete >= runner["needed"]:
        event, runner["text"] = "quorum", tally
    elif failed and reachable < runner["needed"]:
        event, runner["text"] = "failed", f"{tally}, {failed} failed: {_first_failure(runner)}"
    else:
        return
    runner["state"] = TRANSITIONS.step(runner["state"], event)
    runner["ended_ms"] = context.header.time_ms


def _first_failure(runner: Taskrunner) -> str:
    """The reason to show: a failed pair's, else a failed operator's."""
    for name, peer in sorted(runner["peers"].items()):
        if peer["state"] == "ERROR":
            return f"{name}: {peer['text']}"
    for uid, operator in sorted(runner["swops"].items()):
        if operator["state"] == "ERROR":
            return f"{uid}: {operator['text']}"
    return ""


def operator_left(draft: Draft, context: Context, uid: str) -> None:
    """A SWOP left in order: what it had not completed counts as failed."""
    for name in draft.keys("taskrunners"):
        found = draft.runner(name)
        if found is None or found["state"] not in ("ASSIGNED", "RUNNING"):
            continue
        if uid not in found["swops"]:
            continue
        runner = _runner(draft, name)
        mine: list[Operator | PairStatus] = [
            peer for peer in runner["peers"].values() if peer["swop"] == uid
        ]
        for one in [runner["swops"][uid], *mine]:
            if one["state"] != "COMPLETE":
                one["state"] = PEER_TRANSITIONS.step(one["state"], "ERROR")
                one["text"] = "the operator has left"
                one["updated_ms"] = context.header.time_ms
        _settle(draft, context, runner)


def busy_operators(draft: Draft) -> set[str]:
    """SWOPs that take part in a task that has not ended."""
    busy: set[str] = set()
    for _, runner in draft.items("taskrunners"):
        if runner["state"] in ("ASSIGNED", "RUNNING"):
            busy.update(runner["swops"], runner["invited"])
    return busy


SWCI = frozenset({Role.SWCI})
SWOP = frozenset({Role.SWOP})
PAIRS = a.integer(0, 64)
ASSIGN = {
    "runner": a.NAME,
    "task": a.NAME,
    "peers": a.integer(0, MAX_NEEDED),
    "target": a.either(a.UID, a.one_of(EVERYBODY)),
    "among": a.optional(a.list_of(a.UID, MAX_PAIRS)),
}
ENROLL = {"runner": a.NAME, "operation": a.HEX16, "uid": a.UID, "pairs": PAIRS}
STATUS = {
    "runner": a.NAME,
    "operation": a.HEX16,
    "uid": a.UID,
    "peer": a.text(0, 128),
    "index": a.integer(0, 63),
    "state": a.one_of("RUNNING", "COMPLETE", "ERROR"),
    "text": a.note(MAX_STATUS),
}
OPERATIONS = (
    Operation("runner.create", SWCI, {"name": a.NAME}, create, "create a taskrunner"),
    Operation("runner.delete", SWCI, {"runner": a.NAME}, delete, "delete one that nobody uses"),
    Operation("runner.assign", SWCI, ASSIGN, assign, "start a task"),
    Operation("runner.reset", SWCI, {"runner": a.NAME}, reset, "back to idle"),
    Operation("runner.enroll", SWOP, ENROLL, enroll, "take part in a task"),
    Operation("runner.status", SWOP, STATUS, status, "report progress, success or failure"),
)
