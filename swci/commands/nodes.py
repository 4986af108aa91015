"""Commands about nodes: who is there, and who shall not be."""

from __future__ import annotations

from collections.abc import Mapping

from swci.command import Command, CommandError
from swci.display import field, moment, row
from swci.output import Output
from swci.ports import Record
from swci.session import Session

Args = Mapping[str, str]

NODE_COLUMNS = (
    "NodeType",
    "HostIP",
    "Port",
    "ContainerName",
    "UUID",
    "ParentUUID",
    "I-Am-Alive",
)
NODE_ORDER = ("SENTINEL", "SN", "SWOP", "SL")
SILENT = 30.0  # seconds without a sign of life after which a node is not listed any more
STEPS = ("proposal", "prevote", "precommit")  # what validators sign, by kind


def list_nodes(session: Session, args: Args, out: Output) -> None:
    nodes = session.table("nodes")
    ages = session.client.presence()
    ages[str(session.client.status()["uid"])] = 0.0  # the one that answers is alive
    shown = {
        uid: node
        for uid, node in nodes.items()
        if node["evicted"] or (node["active"] and ages.get(uid, SILENT) < SILENT)
    }
    now = session.clock.now_s()
    out.line(row(NODE_COLUMNS))
    for uid, node in sorted(shown.items(), key=_order):
        seen = "EVICTED"
        if not node["evicted"]:
            seen = moment(int((now - ages[uid]) * 1000))
        columns = (node["type"], node["host"], node["port"], node["name"], uid, node["parent"])
        out.line(row((*columns, seen)))
    _list_decisions(session, out)


def _order(item: tuple[str, Record]) -> tuple[int, str, str]:
    uid, node = item
    return NODE_ORDER.index(node["type"]), node["name"], uid


def _list_decisions(session: Session, out: Output) -> None:
    """What members hold against each other; nothing in most networks."""
    for record in session.table("evictions").values():
        if record["at"]:
            out.line(record["reason"])
        else:
            voters = ", ".join(sorted(record["votes"].values()))
            out.line(f"{record['name']} ({record['uid']}) shall be evicted, says {voters}")
    for uid, record in session.table("evidence").items():
        for case in record["cases"]:
            step = STEPS[case["kind"]]
            where = f"height {case['height']}, round {case['round']}"
            out.line(f"{record['name']} ({uid}) signed two {step}s at {where}: its key is in use "
                     "twice, or it lies")  # fmt: skip


def evict(session: Session, args: Args, out: Output) -> None:
    uid, node = _find(session, args["node"])
    result = session.submit("node.evict", {"uid": uid}).result
    out.line(field("NODE", f"{node['name']} ({uid})"))
    out.line(field("VALIDATORS FOR IT", result["votes"]))
    out.line(field("VALIDATORS NEEDED", result["needed"]))
    if result["evicted"]:
        out.line(f"NODE EVICTED : {node['name']}")
    else:
        out.line("Your vote is recorded; operators of other organisations must vote, too.")


def _find(session: Session, wanted: str) -> tuple[str, Record]:
    """A node by uid or name. Raises CommandError."""
    nodes = session.table("nodes")
    found = [uid for uid, node in nodes.items() if wanted in (uid, node["name"])]
    if not found:
        raise CommandError(f"there is no node {wanted}")
    if len(found) > 1:
        raise CommandError(f"several nodes are called {wanted}; give a uid:", *sorted(found))
    return found[0], nodes[found[0]]


COMMANDS = (
    Command(
        "LIST NODES",
        "The nodes that are alive, as comma separated rows under a header: type, host, port,\n"
        "name, uid, uid of the network node they talk to, last sign of life (EVICTED for those\n"
        "that were). After them, votes for evictions and evidence against nodes, if there are any.",
        list_nodes,
    ),
    Command(
        "EVICT NODE <node>",
        "Vote, for your organisation, to put a node out for good; <node> is its name or uid. The\n"
        "vote counts for all validators of your organisation. When a quorum of all validators is\n"
        "for it, the key of the node is barred: it, and all nodes with this key, are out at once\n"
        "and cannot return. A vote cannot be taken back.",
        evict,
    ),
)
