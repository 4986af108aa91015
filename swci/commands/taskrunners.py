"""Commands about taskrunners."""

from __future__ import annotations

from collections.abc import Mapping

from swci.command import Command, CommandError
from swci.display import field, moment, row
from swci.output import Output
from swci.ports import Record
from swci.session import Session
from swci.waiting import wait_for_taskrunner

Args = Mapping[str, str]

RUN_SWARM_PEER = "SL"


def create(session: Session, args: Args, out: Output) -> None:
    session.submit("runner.create", {"name": args["taskrunner"]})
    out.line(f"TASKRUNNER CREATED : {args['taskrunner']}")


def list_taskrunners(session: Session, args: Args, out: Output) -> None:
    for name in sorted(session.table("taskrunners")):
        out.line(name)


def assign_peers(session: Session, args: Args, out: Output) -> None:
    peers = int(args["peers"][:9])
    if peers < 1:
        raise CommandError("at least 1 peer is needed")
    _assign(session, args, out, peers=peers, target="*")


def assign_all(session: Session, args: Args, out: Output) -> None:
    _assign(session, args, out, peers=0, target="*")


def assign_target(session: Session, args: Args, out: Output) -> None:
    _assign(session, args, out, peers=0, target=args["swop_uid"])


def _assign(session: Session, args: Args, out: Output, *, peers: int, target: str) -> None:
    task, runner = args["task"], args["taskrunner"]
    verdict = session.submit(
        "runner.assign", {"runner": runner, "task": task, "peers": peers, "target": target}
    )
    out.line(f"Task {task} is assigned to {runner}")
    needed = verdict.result.get("needed")
    if needed is not None:
        out.line(field("PEERS NEEDED", needed))


def get_info(session: Session, args: Args, out: Output) -> None:
    runner = runner_of(session, args)
    out.line(field("TASKRUNNER NAME", runner["name"]))
    out.line(field("CREATED", f"block {runner['created']}"))
    out.line(field("TASK NAME", runner["task"] or "Empty"))
    out.line(field("OPERATION_ID", runner["operation"]))
    out.line(field("TARGET", runner["target"]))


def get_status(session: Session, args: Args, out: Output) -> None:
    runner = runner_of(session, args)
    states = peer_states(runner)
    out.line(field("TASK NAME", runner["task"] or "Empty"))
    out.line(field("PEER TYPE", runner["peer_type"]))
    out.line(field("TASK_STATE", runner["state"]))
    out.line(field("NEEDED PEERS", runner["needed"]))
    out.line(field("ENROLLED SWOPS", len(runner["swops"])))
    out.line(field("ACTIVE PEERS", states.count("ENROLLED") + states.count("RUNNING")))
    out.line(field("COMPLETED PEERS", states.count("COMPLETE")))
    out.line(field("FAILED PEERS", states.count("ERROR")))
    out.line(field("STARTED", moment(runner["started_ms"])))
    out.line(field("ENDED", moment(runner["ended_ms"])))
    out.line(field("WAITING", runner["waiting"]))
    out.line(field("DESCRIPTION", runner["text"]))


def peer_states(runner: Record) -> list[str]:
    """States of what counts as a peer of the task: pairs for RUN_SWARM, otherwise SWOPs."""
    peers = runner["peers"] if runner["peer_type"] == RUN_SWARM_PEER else runner["swops"]
    return [peer["state"] for peer in peers.values()]


def runner_of(session: Session, args: Args) -> Record:
    """Record of the named taskrunner. Raises CommandError."""
    name = args["taskrunner"]
    record = session.record("taskrunners", name)
    if record is None:
        raise CommandError(f"there is no taskrunner {name}")
    return record


def get_peer_status(session: Session, args: Args, out: Output) -> None:
    runner = runner_of(session, args)
    uid, swop = _find_swop(runner, args["swop"])
    pairs = {name: peer for name, peer in runner["peers"].items() if peer["swop"] == uid}
    out.line(field("NAME", runner["name"]))
    out.line(field("SWOP_UID", uid))
    out.line(field("OPERATION_ID", runner["operation"]))
    out.line(field("PEER_COUNT", swop["pairs"]))
    out.line(field("UPDATE_TS", moment(swop["updated_ms"])))
    out.line(field("SWOP_PEER_INDEX", swop["index"]))
    out.line(field("SWOP_PEER_STATUS", swop["state"]))
    out.line(field("SWOP_PEER_STATUS_DESC", swop["text"]))
    for name, pair in sorted(pairs.items(), key=lambda item: (item[1]["index"], item[0])):
        out.line(field("SL_UID", name))
        out.line(field("SL_PEER_STATUS", pair["state"]))
        out.line(field("SL_PEER_STATUS_DESC", pair["text"]))


def _find_swop(runner: Record, wanted: str) -> tuple[str, Record]:
    """A SWOP of the taskrunner by index or uid. Raises CommandError."""
    swops: dict[str, Record] = runner["swops"]
    for uid, swop in swops.items():
        if wanted in (uid, str(swop["index"])):
            return uid, swop
    if not swops:
        raise CommandError(f"no SWOP has enrolled with {runner['name']}")
    raise CommandError(
        f"no SWOP {wanted} has enrolled with {runner['name']}: indexes are 0 to {len(swops) - 1}"
    )


def list_peers(session: Session, args: Args, out: Output) -> None:
    runner = runner_of(session, args)
    out.line(row(("Index", "SWOP_UID", "Peers", "Status")))
    for uid, swop in sorted(runner["swops"].items(), key=lambda item: item[1]["index"]):
        out.line(row((swop["index"], uid, swop["pairs"], swop["state"])))


def wait(session: Session, args: Args, out: Output) -> None:
    runner_of(session, args)
    wait_for_taskrunner(session, args["taskrunner"], out)


def reset(session: Session, args: Args, out: Output) -> None:
    session.submit("runner.reset", {"runner": args["taskrunner"]})
    out.line(f"TASKRUNNER RESET : {args['taskrunner']}")


COMMANDS = (
    Command(
        "CREATE TASKRUNNER <taskrunner>",
        "Register a new taskrunner, for SWOPs to listen on. It is permanent.",
        create,
    ),
    Command("LIST TASKRUNNERS", "Names of all taskrunners.", list_taskrunners),
    Command(
        "ASSIGN TASK <task> TO <taskrunner> WITH <peers:int> PEERS",
        "Start a task. It is complete when so many peers have completed it: pairs of SL and ML\n"
        "for RUN_SWARM, SWOPs for all others.",
        assign_peers,
    ),
    Command(
        "ASSIGN TASK <task> TO <taskrunner> WITH ALL PEERS",
        "Start a task for all SWOPs that listen now, and for all pairs of their profiles.",
        assign_all,
    ),
    Command(
        "ASSIGN TASK <task> TO <taskrunner> TARGET <swop_uid>",
        "Start a task on one SWOP only, or call a SWOP into the task that is running.",
        assign_target,
    ),
    Command("GET TASKRUNNER INFO <taskrunner>", "What the taskrunner works on.", get_info),
    Command(
        "GET TASKRUNNER STATUS <taskrunner>",
        "State of its task, with the numbers of active, completed and failed peers.",
        get_status,
    ),
    Command(
        "GET TASKRUNNER PEER STATUS <taskrunner> <swop>",
        "What one SWOP has reported, and its pairs of SL and ML. <swop> is its index (the first\n"
        "is 0) or its uid.",
        get_peer_status,
    ),
    Command(
        "LIST TASKRUNNER PEERS <taskrunner>",
        "The SWOPs that take part in its task, as comma separated rows under a header.",
        list_peers,
    ),
    Command(
        "WAIT FOR TASKRUNNER <taskrunner>",
        "Wait until its task is complete or has failed, and show the progress.",
        wait,
        waits=True,
    ),
    Command(
        "RESET TASKRUNNER <taskrunner>",
        "Back to idle. The SWOPs stop and remove the SL and ML nodes of its task.",
        reset,
    ),
)
