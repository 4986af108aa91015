"""Commands about taskrunners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swci.command import ABSENT, WRONG_ARGUMENT, Command, CommandError
from swci.output import Output
from swci.ports import Record
from swci.presence import SILENT, ages_of, silent_operators
from swci.result import (
    Field,
    Result,
    field,
    fields,
    groups,
    names,
    rows,
    said,
    several,
    time_field,
)
from swci.session import Session
from swci.waiting import wait_for_taskrunner

Args = Mapping[str, str]

RUN_SWARM_PEER = "SL"
MAX_AMONG = 512  # operators that an assignment can name
PEER_COLUMNS = (
    ("index", "Index"),
    ("swop_uid", "SWOP_UID"),
    ("peers", "Peers"),
    ("status", "Status"),
)


def create(session: Session, args: Args, out: Output) -> Result:
    name = args["taskrunner"]
    session.submit("runner.create", {"name": name})
    return said(f"TASKRUNNER CREATED : {name}", taskrunner=name)


def delete(session: Session, args: Args, out: Output) -> Result:
    name = args["taskrunner"]
    session.submit("runner.delete", {"runner": name})
    return said(f"TASKRUNNER DELETED : {name}", taskrunner=name)


def list_taskrunners(session: Session, args: Args, out: Output) -> Result:
    return names(sorted(session.table("taskrunners")))


def assign_peers(session: Session, args: Args, out: Output) -> Result:
    peers = int(args["peers"][:9])
    if peers < 1:
        raise CommandError(WRONG_ARGUMENT, "at least 1 peer is needed")
    return _assign(session, args, peers=peers, target="*")


def assign_all(session: Session, args: Args, out: Output) -> Result:
    """Those that LIST NODES shows: one that has gone silent would be waited for in vain."""
    ages = ages_of(session)
    present: set[str] = set()
    silent: set[str] = set()
    for uid, node in session.table("nodes").items():
        if node["type"] == "SWOP" and node["active"] and node["runner"] == args["taskrunner"]:
            (present if ages.get(uid, SILENT) < SILENT else silent).add(uid)
    if silent and len(present) <= MAX_AMONG:
        among = sorted(present)
        return _assign(session, args, silent=sorted(silent), peers=0, target="*", among=among)
    return _assign(session, args, peers=0, target="*")


def assign_target(session: Session, args: Args, out: Output) -> Result:
    return _assign(session, args, peers=0, target=args["swop_uid"])


def _assign(session: Session, args: Args, *, silent: Sequence[str] = (), **how: object) -> Result:
    task, runner = args["task"], args["taskrunner"]
    verdict = session.submit("runner.assign", {"runner": runner, "task": task, **how})
    return fields(
        Field("task", task, (f"Task {task} is assigned to {runner}",)),
        Field("taskrunner", runner, ()),
        Field("operation_id", verdict.result["operation"], ()),
        field("PEERS NEEDED", verdict.result["needed"]),
        _silent(silent) if silent else None,
    )


def _silent(uids: Sequence[str]) -> Field:
    return several("SILENT", "silent", ((uid, f"{uid} is not counted") for uid in uids))


def get_info(session: Session, args: Args, out: Output) -> Result:
    runner = runner_of(session, args)
    return fields(
        field("TASKRUNNER NAME", runner["name"]),
        field("CREATED", runner["created"], f"block {runner['created']}"),
        _task_name(runner),
        field("OPERATION_ID", runner["operation"]),
        field("TARGET", runner["target"]),
    )


def _task_name(runner: Record) -> Field:
    return field("TASK NAME", runner["task"], runner["task"] or "Empty")


def get_status(session: Session, args: Args, out: Output) -> Result:
    runner = runner_of(session, args)
    states = peer_states(runner)
    silent = silent_operators(session, runner)
    return fields(
        _task_name(runner),
        field("PEER TYPE", runner["peer_type"]),
        field("TASK_STATE", runner["state"]),
        field("NEEDED PEERS", runner["needed"]),
        field("ENROLLED SWOPS", len(runner["swops"])),
        field("ACTIVE PEERS", states.count("ENROLLED") + states.count("RUNNING")),
        field("COMPLETED PEERS", states.count("COMPLETE")),
        field("FAILED PEERS", states.count("ERROR")),
        time_field("STARTED", runner["started_ms"]),
        time_field("ENDED", runner["ended_ms"]),
        field("WAITING", runner["waiting"]),
        several("SILENT", "silent", silent) if silent else None,
        field("DESCRIPTION", runner["text"]),
    )


def peer_states(runner: Record) -> list[str]:
    """States of what counts as a peer of the task: pairs for RUN_SWARM, otherwise SWOPs."""
    peers = runner["peers"] if runner["peer_type"] == RUN_SWARM_PEER else runner["swops"]
    return [peer["state"] for peer in peers.values()]


def runner_of(session: Session, args: Args) -> Record:
    """Record of the named taskrunner. Raises CommandError."""
    name = args["taskrunner"]
    record = session.record("taskrunners", name)
    if record is None:
        raise CommandError(ABSENT, f"there is no taskrunner {name}")
    return record


def get_peer_status(session: Session, args: Args, out: Output) -> Result:
    runner = runner_of(session, args)
    uid, swop = _find_swop(runner, args["swop"])
    pairs = {name: peer for name, peer in runner["peers"].items() if peer["swop"] == uid}
    in_order = sorted(pairs.items(), key=lambda item: (item[1]["index"], item[0]))
    return fields(
        field("NAME", runner["name"]),
        field("SWOP_UID", uid),
        field("OPERATION_ID", runner["operation"]),
        field("PEER_COUNT", swop["pairs"]),
        time_field("UPDATE_TS", swop["updated_ms"]),
        field("SWOP_PEER_INDEX", swop["index"]),
        field("SWOP_PEER_STATUS", swop["state"]),
        field("SWOP_PEER_STATUS_DESC", swop["text"]),
        groups("peers", (_pair(name, pair) for name, pair in in_order)),
    )


def _pair(name: str, pair: Record) -> Result:
    return fields(
        field("SL_UID", name),
        field("SL_PEER_STATUS", pair["state"]),
        field("SL_PEER_STATUS_DESC", pair["text"]),
    )


def _find_swop(runner: Record, wanted: str) -> tuple[str, Record]:
    """A SWOP of the taskrunner by index or uid. Raises CommandError."""
    swops: dict[str, Record] = runner["swops"]
    for uid, swop in swops.items():
        if wanted in (uid, str(swop["index"])):
            return uid, swop
    if not swops:
        raise CommandError(ABSENT, f"no SWOP has enrolled with {runner['name']}")
    raise CommandError(
        ABSENT,
        f"no SWOP {wanted} has enrolled with {runner['name']}: indexes are 0 to {len(swops) - 1}",
    )


def list_peers(session: Session, args: Args, out: Output) -> Result:
    runner = runner_of(session, args)
    swops = sorted(runner["swops"].items(), key=lambda item: item[1]["index"])
    return rows(
        PEER_COLUMNS,
        ((swop["index"], uid, swop["pairs"], swop["state"]) for uid, swop in swops),
    )


def wait(session: Session, args: Args, out: Output) -> Result:
    return wait_for_taskrunner(session, runner_of(session, args)["name"], out)


def reset(session: Session, args: Args, out: Output) -> Result:
    name = args["taskrunner"]
    session.submit("runner.reset", {"runner": name})
    return said(f"TASKRUNNER RESET : {name}", taskrunner=name)


COMMANDS = (
    Command(
        "CREATE TASKRUNNER <taskrunner>",
        "Register a new taskrunner, for SWOPs to listen on.",
        create,
        "{taskrunner}",
    ),
    Command(
        "DELETE TASKRUNNER <taskrunner>",
        "Delete a taskrunner that is idle and that no SWOP listens on; its name can be used\n"
        "again. Only the organisation that created it can do that.",
        delete,
        "{taskrunner}",
    ),
    Command("LIST TASKRUNNERS", "Names of all taskrunners.", list_taskrunners, "[name]"),
    Command(
        "ASSIGN TASK <task> TO <taskrunner> WITH <peers:int> PEERS",
        "Start a task. It is complete when so many peers have completed it: pairs of SL and ML\n"
        "for RUN_SWARM, SWOPs for all others.",
        assign_peers,
        "{task, taskrunner, operation_id, peers_needed}",
    ),
    Command(
        "ASSIGN TASK <task> TO <taskrunner> WITH ALL PEERS",
        "Start a task for all SWOPs that listen now, and for all pairs of their profiles. Those\n"
        "that LIST NODES does not show any more are not counted.",
        assign_all,
        "{task, taskrunner, operation_id, peers_needed, silent?: [uid]}",
    ),
    Command(
        "ASSIGN TASK <task> TO <taskrunner> TARGET <swop_uid>",
        "Start a task on one SWOP only. Or call a SWOP into this task while it runs, or when it\n"
        "has failed: one that has failed begins anew; another one joins, or takes the place of\n"
        "one that has failed.",
        assign_target,
        "{task, taskrunner, operation_id, peers_needed}",
    ),
    Command(
        "GET TASKRUNNER INFO <taskrunner>",
        "What the taskrunner works on.",
        get_info,
        "{taskrunner_name, created, task_name, operation_id, target}",
    ),
    Command(
        "GET TASKRUNNER STATUS <taskrunner>",
        "State of its task, with the numbers of active, completed and failed peers.",
        get_status,
        "{task_name, peer_type, task_state, needed_peers, enrolled_swops, active_peers, "
        "completed_peers, failed_peers, started, ended, waiting, silent?: [uid], description}",
    ),
    Command(
        "GET TASKRUNNER PEER STATUS <taskrunner> <swop>",
        "What one SWOP has reported, and its pairs of SL and ML. <swop> is its index (the first\n"
        "is 0) or its uid.",
        get_peer_status,
        "{name, swop_uid, operation_id, peer_count, update_ts, swop_peer_index, "
        "swop_peer_status, swop_peer_status_desc, "
        "peers: [{sl_uid, sl_peer_status, sl_peer_status_desc}]}",
    ),
    Command(
        "LIST TASKRUNNER PEERS <taskrunner>",
        "The SWOPs that take part in its task, as comma separated rows under a header.",
        list_peers,
        "[{index, swop_uid, peers, status}]",
    ),
    Command(
        "WAIT FOR TASKRUNNER <taskrunner>",
        "Wait until its task is complete or has failed, and show the progress.",
        wait,
        "{finished, state?, time?, seconds?, description?}",
        waits=True,
    ),
    Command(
        "RESET TASKRUNNER <taskrunner>",
        "Back to idle. The SWOPs stop and remove the SL and ML nodes of its task.",
        reset,
        "{taskrunner}",
    ),
)
