"""Commands about training contracts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from swci.command import ABSENT, Command, CommandError
from swci.display import moment
from swci.output import Output
from swci.ports import Record
from swci.result import (
    Field,
    Result,
    field,
    fields,
    instant,
    names,
    number,
    rows,
    said,
    several,
)
from swci.session import Session

Args = Mapping[str, str]

PERFDATA_COLUMNS = (
    ("uid", "UID"),
    ("sl_admin", "SL ADMIN"),
    ("loss", "MODEL LOSS"),
    ("metric", "MODEL METRIC"),
    ("total_epochs", "TOTAL EPOCHS"),
    ("epochs", "COMPLETED EPOCHS"),
)


def create(session: Session, args: Args, out: Output) -> Result:
    name = args["contract"]
    session.submit("contract.create", {"name": name})
    return said(f"CONTRACT CREATED : {name}", contract=name)


def delete(session: Session, args: Args, out: Output) -> Result:
    name = args["contract"]
    session.submit("contract.delete", {"contract": name})
    return said(f"CONTRACT DELETED : {name}", contract=name)


def list_contracts(session: Session, args: Args, out: Output) -> Result:
    return names(sorted(session.table("contracts")))


def get_info(session: Session, args: Args, out: Output) -> Result:
    contract = _contract(session, args)
    about = (
        field("CONTRACT NAME", contract["name"]),
        field("TYPE", "TRAINING"),
        field("CREATED", contract["created"], f"block {contract['created']}"),
    )
    rules = contract["rules"]
    return fields(*about, *(_rules(contract, rules) if rules else ()))


def _rules(contract: Record, rules: Record) -> Iterator[Field]:
    yield field("MIN PEERS", rules["min_peers"])
    yield field("MERGE METHOD", rules["merge_method"])
    if rules["merge_args"]:
        given = (f"{key} = {value}" for key, value in sorted(rules["merge_args"].items()))
        yield field("MERGE ARGS", rules["merge_args"], ", ".join(given))
    yield field("SYNC FREQUENCY", rules["sync_frequency"])
    if rules["adaptive"]:
        interval = contract["interval"]
        yield field("ADAPTIVE SYNC", interval, f"now {interval} batches between merges")
    yield field("SET BY", _name(contract, rules["set_by"]))


def get_status(session: Session, args: Args, out: Output) -> Result:
    contract = _contract(session, args)
    members: dict[str, Record] = contract["members"]
    active = [uid for uid, member in members.items() if member["state"] == "active"]
    done = [uid for uid, member in members.items() if member["done"]]
    rules, last = contract["rules"], contract["last"]
    return fields(
        field("CONTRACT NAME", contract["name"]),
        field("STATUS", contract["status"].lower()),
        field("ROUND", contract["round"]),
        field("ATTEMPT", contract["attempt"]),
        field("MIN PEERS", rules["min_peers"] if rules else ""),
        field("PEER COUNT", len(active)),
        _members("CHECKED IN", contract, contract["checkins"]),
        _members("COMPLETED PEERS", contract, done),
        last and _last_merge(contract, last),
        several("FAULT", "faults", ((fault, _fault(fault)) for fault in contract["faults"])),
        field("WAITING", contract["waiting"]),
    )


def _members(label: str, contract: Record, uids: Iterable[str]) -> Field:
    found = sorted(_name(contract, uid) for uid in uids)
    return field(label, found, _counted(found))


def _counted(found: list[str]) -> str:
    return f"{len(found)} ({', '.join(found)})" if found else "0"


def _last_merge(contract: Record, last: Record) -> Field:
    roster = sorted(_name(contract, uid) for uid in last["roster"])
    data = {
        "round": last["round"],
        "roster": roster,
        "at": instant(last["at_ms"]),
        "model": last["digest"],
    }
    shown = (
        f"round {last['round']} of {_counted(roster)} at {moment(last['at_ms'])},"
        f" model {last['digest']}"
    )
    return field("LAST MERGE", data, shown)


def _fault(fault: Record) -> str:
    return (
        f"round {fault['round']}, attempt {fault['attempt']}: {fault['name']},"
        f" says {fault['by']}: {fault['why'] or 'for no stated reason'}"
    )


def _contract(session: Session, args: Args) -> Record:
    name = args["contract"]
    record = session.record("contracts", name)
    if record is None:
        raise CommandError(ABSENT, f"there is no contract {name}")
    return record


def _name(contract: Record, uid: str) -> str:
    member = contract["members"].get(uid)
    return str(member["name"]) if member and member["name"] else uid


def perfdata(session: Session, args: Args, out: Output) -> Result:
    """One row for each learner; its loss and metric were computed with the merged model."""
    members = _contract(session, args)["members"]
    in_order = sorted(members.items(), key=lambda item: (item[1]["name"], item[0]))
    return rows(PERFDATA_COLUMNS, (_performance(uid, member) for uid, member in in_order))


def _performance(uid: str, member: Record) -> tuple[object, ...]:
    # Rounds have no leader here; the column stays for those who read rows by position.
    return (
        uid,
        False,
        (number(member["loss"]), member["loss"] or 0),
        (number(member["metric"]), member["metric"] or 0),
        member["total_epochs"],
        member["epochs"],
    )


def reset(session: Session, args: Args, out: Output) -> Result:
    name = args["contract"]
    session.submit("contract.reset", {"contract": name})
    return said(f"CONTRACT RESET : {name}", contract=name)


COMMANDS = (
    Command(
        "CREATE CONTRACT <contract>",
        "Register a new training contract.",
        create,
        "{contract}",
    ),
    Command(
        "DELETE CONTRACT <contract>",
        "Delete a contract that no learner takes part in; its name can be used again. What was\n"
        "trained stays on the ledger and can be verified. Only its organisation can do that.",
        delete,
        "{contract}",
    ),
    Command("LIST CONTRACTS", "Names of all training contracts.", list_contracts, "[name]"),
    Command(
        "GET CONTRACT INFO <contract>",
        "What does not change during training.",
        get_info,
        "{contract_name, type, created, min_peers?, merge_method?, merge_args?: {<name>}, "
        "sync_frequency?, adaptive_sync?, set_by?}",
    ),
    Command(
        "GET CONTRACT STATUS <contract>",
        "Where training stands: round, who has checked in, and what is being waited for.",
        get_status,
        "{contract_name, status, round, attempt, min_peers, peer_count, checked_in: [name], "
        "completed_peers: [name], last_merge?: {round, roster: [name], at, model}, "
        "faults: [{round, attempt, uid, name, by, why, height}], waiting}",
    ),
    Command(
        "PERFDATA <contract>",
        "Loss, metric and epochs of each learner, as comma separated rows under a header.",
        perfdata,
        "[{uid, sl_admin, loss, metric, total_epochs, epochs}]",
    ),
    Command(
        "RESET CONTRACT <contract>",
        "Back to the state before training, for the next one. Cannot be undone.",
        reset,
        "{contract}",
    ),
)
