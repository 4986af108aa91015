"""Commands about nodes: who is there, and who shall not be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from swci.command import ABSENT, WRONG_ARGUMENT, Command, CommandError
from swci.display import moment
from swci.output import Output
from swci.ports import Record
from swci.presence import SILENT, ages_of
from swci.result import Field, Result, field, fields, instant, rows
from swci.session import Session

Args = Mapping[str, str]

NODE_COLUMNS = (
    ("type", "NodeType"),
    ("host", "HostIP"),
    ("port", "Port"),
    ("name", "ContainerName"),
    ("uid", "UUID"),
    ("parent", "ParentUUID"),
    ("seen", "I-Am-Alive"),
)
NODE_ORDER = ("SENTINEL", "SN", "SWOP", "SL")
EVICTED = "EVICTED"
VOTED = "Your vote is recorded; operators of other organisations must vote, too."
STEPS = ("proposal", "prevote", "precommit")  # what validators sign, by kind


def list_nodes(session: Session, args: Args, out: Output) -> Result:
    nodes = session.table("nodes")
    ages = ages_of(session)
    shown = {
        uid: node
        for uid, node in nodes.items()
        if node["evicted"] or (node["active"] and ages.get(uid, SILENT) < SILENT)
    }
    now = session.clock.now_s()
    found = rows(
        NODE_COLUMNS,
        (
            (
                node["type"],
                *_place(node, nodes),
                node["name"],
                uid,
                node["parent"],
                EVICTED if node["evicted"] else _seen(now - ages[uid]),
            )
            for uid, node in sorted(shown.items(), key=_order)
        ),
    )
    evictions, evidence = list(_evictions(session)), list(_evidence(session))
    return fields(
        Field("nodes", found.data, found.lines),
        Field("evictions", [data for data, _ in evictions], tuple(text for _, text in evictions)),
        Field("evidence", [data for data, _ in evidence], tuple(text for _, text in evidence)),
    )


def _place(node: Record, nodes: Mapping[str, Record]) -> tuple[str, int]:
    """Host and port: of a SWOP, that listens nowhere, those of the network node it talks to."""
    parent = nodes.get(node["parent"])
    found = parent if not node["host"] and parent is not None else node
    return found["host"], found["port"]


def _seen(at_s: float) -> tuple[str | None, str]:
    milliseconds = int(at_s * 1000)
    return instant(milliseconds), moment(milliseconds)


def _order(item: tuple[str, Record]) -> tuple[int, str, str]:
    uid, node = item
    return NODE_ORDER.index(node["type"]), node["name"], uid


def _evictions(session: Session) -> Iterator[tuple[Record, str]]:
    """Votes against members, and those that are out; nothing in most networks."""
    for record in session.table("evictions").values():
        data = {key: record[key] for key in ("uid", "name", "votes", "at")}
        if record["at"]:
            yield data, record["reason"]
        else:
            voters = ", ".join(sorted(record["votes"].values()))
            yield data, f"{record['name']} ({record['uid']}) shall be evicted, says {voters}"


def _evidence(session: Session) -> Iterator[tuple[Record, str]]:
    """Who signed twice in one step, and where."""
    for uid, record in session.table("evidence").items():
        for case in record["cases"]:
            step, name = STEPS[case["kind"]], record["name"]
            data = {"uid": uid, "name": name, "step": step}
            where = f"height {case['height']}, round {case['round']}"
            yield (
                {**data, "height": case["height"], "round": case["round"]},
                f"{name} ({uid}) signed two {step}s at {where}: its key is in use twice,"
                " or it lies",
            )


def evict(session: Session, args: Args, out: Output) -> Result:
    uid, node = _find(session, args["node"])
    result = session.submit("node.evict", {"uid": uid}).result
    done = bool(result["evicted"])
    end = f"NODE EVICTED : {node['name']}" if done else VOTED
    return fields(
        field("NODE", {"uid": uid, "name": node["name"]}, f"{node['name']} ({uid})"),
        field("VALIDATORS FOR IT", result["votes"], key="votes"),
        field("VALIDATORS NEEDED", result["needed"], key="needed"),
        Field("evicted", done, (end,)),
    )


def _find(session: Session, wanted: str) -> tuple[str, Record]:
    """A node by uid or name. Raises CommandError."""
    nodes = session.table("nodes")
    found = [uid for uid, node in nodes.items() if wanted in (uid, node["name"])]
    if not found:
        raise CommandError(ABSENT, f"there is no node {wanted}")
    if len(found) > 1:
        raise CommandError(
            WRONG_ARGUMENT, f"several nodes are called {wanted}; give a uid:", *sorted(found)
        )
    return found[0], nodes[found[0]]


COMMANDS = (
    Command(
        "LIST NODES",
        "The nodes that are alive, as comma separated rows under a header: type, host, port,\n"
        "name, uid, uid of the network node they talk to, last sign of life (EVICTED for those\n"
        "that were). After them, votes for evictions and evidence against nodes, if there are any.",
        list_nodes,
        "{nodes: [{type, host, port, name, uid, parent, seen}], "
        "evictions: [{uid, name, votes, at}], evidence: [{uid, name, step, height, round}]}",
    ),
    Command(
        "EVICT NODE <node>",
        "Vote, for your organisation, to put a node out for good; <node> is its name or uid. The\n"
        "vote counts for all validators of your organisation. When a quorum of all validators is\n"
        "for it, the key of the node is barred: it, and all nodes with this key, are out at once\n"
        "and cannot return. A vote cannot be taken back.",
        evict,
        "{node: {uid, name}, votes, needed, evicted}",
    ),
)
