"""Commands about training contracts."""

from __future__ import annotations

from collections.abc import Mapping

from swci.command import Command, CommandError
from swci.display import NONE, field, moment, row
from swci.output import Output
from swci.ports import Record
from swci.session import Session

Args = Mapping[str, str]

PERFDATA_COLUMNS = (
    "UID",
    "SL ADMIN",
    "MODEL LOSS",
    "MODEL METRIC",
    "TOTAL EPOCHS",
    "COMPLETED EPOCHS",
)


def create(session: Session, args: Args, out: Output) -> None:
    session.submit("contract.create", {"name": args["contract"]})
    out.line(f"CONTRACT CREATED : {args['contract']}")


def list_contracts(session: Session, args: Args, out: Output) -> None:
    for name in sorted(session.table("contracts")):
        out.line(name)


def get_info(session: Session, args: Args, out: Output) -> None:
    contract = _contract(session, args)
    out.line(field("CONTRACT NAME", contract["name"]))
    out.line(field("TYPE", "TRAINING"))
    out.line(field("CREATED", f"block {contract['created']}"))
    rules = contract["rules"]
    if rules is not None:
        out.line(field("MIN PEERS", rules["min_peers"]))
        out.line(field("MERGE METHOD", rules["merge_method"]))
        if rules["merge_args"]:
            given = (f"{key} = {value}" for key, value in sorted(rules["merge_args"].items()))
            out.line(field("MERGE ARGS", ", ".join(given)))
        out.line(field("SYNC FREQUENCY", rules["sync_frequency"]))
        if rules["adaptive"]:
            out.line(field("ADAPTIVE SYNC", f"now {contract['interval']} batches between merges"))
        out.line(field("SET BY", _name(contract, rules["set_by"])))


def get_status(session: Session, args: Args, out: Output) -> None:
    contract = _contract(session, args)
    members: dict[str, Record] = contract["members"]
    checkins: dict[str, Record] = contract["checkins"]
    active = [uid for uid, member in members.items() if member["state"] == "active"]
    done = [uid for uid, member in members.items() if member["done"]]
    rules = contract["rules"]
    out.line(field("CONTRACT NAME", contract["name"]))
    out.line(field("STATUS", contract["status"].lower()))
    out.line(field("ROUND", contract["round"]))
    out.line(field("ATTEMPT", contract["attempt"]))
    out.line(field("MIN PEERS", rules["min_peers"] if rules else NONE))
    out.line(field("PEER COUNT", len(active)))
    out.line(field("CHECKED IN", _names(contract, checkins)))
    out.line(field("COMPLETED PEERS", _names(contract, done)))
    last = contract["last"]
    if last is not None:
        out.line(
            field("LAST MERGE", f"round {last['round']} of {_names(contract, last['roster'])} at "
                  f"{moment(last['at_ms'])}, model {last['digest']}")
        )  # fmt: skip
    for fault in contract["faults"]:
        out.line(
            field("FAULT", f"round {fault['round']}, attempt {fault['attempt']}: {fault['name']}, "
                  f"says {fault['by']}: {fault['why'] or 'for no stated reason'}")
        )  # fmt: skip
    out.line(field("WAITING", contract["waiting"]))


def _contract(session: Session, args: Args) -> Record:
    name = args["contract"]
    record = session.record("contracts", name)
    if record is None:
        raise CommandError(f"there is no contract {name}")
    return record


def _name(contract: Record, uid: str) -> str:
    member = contract["members"].get(uid)
    return str(member["name"]) if member and member["name"] else uid


def _names(contract: Record, uids: object) -> str:
    assert isinstance(uids, (list, dict)), "records hold members by uid"
    shown = ", ".join(sorted(_name(contract, uid) for uid in uids))
    return f"{len(uids)} ({shown})" if uids else "0"


def perfdata(session: Session, args: Args, out: Output) -> None:
    """One row for each learner; its loss and metric were computed with the merged model."""
    contract = _contract(session, args)
    out.line(row(PERFDATA_COLUMNS))
    for uid, member in sorted(contract["members"].items(), key=lambda m: (m[1]["name"], m[0])):
        # Rounds have no leader here; the column stays for those who read rows by position.
        out.line(
            row(
                (
                    uid,
                    False,
                    member["loss"] or 0,
                    member["metric"] or 0,
                    member["total_epochs"],
                    member["epochs"],
                )
            )
        )


def reset(session: Session, args: Args, out: Output) -> None:
    session.submit("contract.reset", {"contract": args["contract"]})
    out.line(f"CONTRACT RESET : {args['contract']}")


COMMANDS = (
    Command(
        "CREATE CONTRACT <contract>",
        "Register a new training contract. It is permanent.",
        create,
    ),
    Command("LIST CONTRACTS", "Names of all training contracts.", list_contracts),
    Command("GET CONTRACT INFO <contract>", "What does not change during training.", get_info),
    Command(
        "GET CONTRACT STATUS <contract>",
        "Where training stands: round, who has checked in, and what is being waited for.",
        get_status,
    ),
    Command(
        "PERFDATA <contract>",
        "Loss, metric and epochs of each learner, as comma separated rows under a header.",
        perfdata,
    ),
    Command(
        "RESET CONTRACT <contract>",
        "Back to the state before training, for the next one. Cannot be undone.",
        reset,
    ),
)
