"""From what network nodes answer to the rows of the screen: pure.

All of it was said by other members, so it is taken for what it is: a field that is missing or of
another kind shows as unknown, control characters are replaced, and nothing is ever an error here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from swarm.host.text import clean

Record = Mapping[str, Any]

SILENT_SECONDS = 15.0  # after which a node is told to be silent
BEHIND = 5  # blocks that a network node may lack without being told
MAX_NUMBER = 1 << 53


@dataclass(frozen=True)
class SnAnswer:
    """What one network node said of itself, or why it did not."""

    place: str
    status: Record | None
    problem: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Everything at one moment. `problem` is set when no network node answers."""

    at: datetime
    answers: tuple[SnAnswer, ...] = ()
    ages: Mapping[str, float] = field(default_factory=dict)
    nodes: Mapping[str, Record] = field(default_factory=dict)
    runners: Mapping[str, Record] = field(default_factory=dict)
    contracts: Mapping[str, Record] = field(default_factory=dict)
    own_warning: str = ""  # that the asker's own certificate ends soon
    problem: str = ""


@dataclass(frozen=True)
class NetworkRow:
    """The ledger."""

    chain: str
    height: int
    validators: int
    quorum: int
    fault_model: str
    waiting: str


@dataclass(frozen=True)
class NodeRow:
    """A component that enrolled."""

    type: str
    name: str
    address: str
    state: str  # "here", "silent for 20 s", "not heard of"
    doing: str


@dataclass(frozen=True)
class RunnerRow:
    """A taskrunner."""

    name: str
    state: str
    task: str
    progress: str
    waiting: str


@dataclass(frozen=True)
class ContractRow:
    """A training contract."""

    name: str
    status: str
    round: int
    learners: str
    last: str
    waiting: str


@dataclass(frozen=True)
class Overview:
    """The screen's contents."""

    at: str
    network: NetworkRow | None
    nodes: tuple[NodeRow, ...]
    gone: int  # nodes that have left, or were evicted
    taskrunners: tuple[RunnerRow, ...]
    contracts: tuple[ContractRow, ...]
    warnings: tuple[str, ...]
    problem: str


def overview(snapshot: Snapshot) -> Overview:
    """What there is to see at a moment."""
    active = {uid: r for uid, r in _records(snapshot.nodes) if r.get("active") is True}
    return Overview(
        at=f"{snapshot.at:%Y-%m-%d %H:%M:%S} UTC",
        network=_network(snapshot.answers),
        nodes=tuple(_nodes(active, snapshot)),
        gone=len(snapshot.nodes) - len(active),
        taskrunners=tuple(map(_runner, _by_name(snapshot.runners))),
        contracts=tuple(_contract(one, snapshot.at) for one in _by_name(snapshot.contracts)),
        warnings=tuple(_warnings(snapshot)),
        problem=clean(snapshot.problem),
    )


def number(value: object) -> int:
    """A whole number of ordinary size, 0 for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_NUMBER:
        return value
    return 0


def _part(record: Record, key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _listed(record: Record, key: str) -> list[Any]:
    value = record.get(key)
    return value if isinstance(value, list) else []


def _records(value: Mapping[str, Any]) -> Iterator[tuple[str, Record]]:
    return ((key, one) for key, one in value.items() if isinstance(one, Mapping))


def _by_name(table: Mapping[str, Record]) -> list[Record]:
    return [record for _, record in sorted(_records(table))]


# ------------------------------------------------------------------ the network


def _best(answers: Iterable[SnAnswer]) -> Record | None:
    """The status of the node that has most blocks."""
    found = [answer.status for answer in answers if answer.status is not None]
    return max(found, key=lambda status: number(status.get("height")), default=None)


def _network(answers: Iterable[SnAnswer]) -> NetworkRow | None:
    status = _best(answers)
    if status is None:
        return None
    return NetworkRow(
        chain=clean(status.get("chain"))[:16],
        height=number(status.get("height")),
        validators=len(_listed(status, "validators")),
        quorum=number(status.get("quorum")),
        fault_model=clean(status.get("fault_model")),
        waiting=clean(status.get("waiting")),
    )


_ORDER = ("SENTINEL", "SN", "SWOP", "SL")


def _nodes(active: Mapping[str, Record], snapshot: Snapshot) -> Iterator[NodeRow]:
    def place(item: tuple[str, Record]) -> tuple[int, str, str]:
        kind = item[1].get("type")
        return (_ORDER.index(kind) if kind in _ORDER else 9, clean(item[1].get("name")), item[0])

    for uid, record in sorted(_records(active), key=place):
        host, port = clean(record.get("host")), number(record.get("port"))
        age = snapshot.ages.get(uid)
        yield NodeRow(
            type=clean(record.get("type")),
            name=clean(record.get("name")) or uid[:8],
            address=f"{host}:{port}" if host and port else host,
            state="not heard of" if age is None else _age(age),
            doing=_doing(record, snapshot.nodes),
        )


def _age(age: float) -> str:
    return "here" if age < SILENT_SECONDS else f"silent for {span(age)}"


def span(seconds: float) -> str:
    """A duration for people."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def _doing(record: Record, nodes: Mapping[str, Record]) -> str:
    kind = record.get("type")
    if kind == "SL":
        return f"trains {clean(record.get('contract'))}"
    if kind == "SWOP":
        pairs = number(record.get("pairs"))
        what = f"{pairs} pair{'' if pairs == 1 else 's'}"
        return f"{what} for {clean(record.get('runner'))}"
    return "votes" if record.get("validator") is True else "follows"


# ------------------------------------------------------------------ tasks, trainings


def _runner(record: Record) -> RunnerRow:
    by_pairs = record.get("peer_type") == "SL"
    parts = _part(record, "peers" if by_pairs else "swops")
    states = [one.get("state") for _, one in _records(parts)]
    kind = "pairs" if by_pairs else "operators"
    state, task = clean(record.get("state")), clean(record.get("task"))
    progress = ""
    if state not in ("IDLE", ""):
        done, failed = states.count("COMPLETE"), states.count("ERROR")
        progress = f"{done} of {number(record.get('needed'))} {kind} complete"
        progress += f", {failed} failed" if failed else ""
    said = clean(record.get("waiting")) or (clean(record.get("text")) if state == "ERROR" else "")
    return RunnerRow(clean(record.get("name")), state, task, progress, said)


def _contract(record: Record, now: datetime) -> ContractRow:
    members = [one for _, one in _records(_part(record, "members"))]
    active = sum(one.get("state") == "active" for one in members)
    rules = _part(record, "rules")
    least = f", {number(rules.get('min_peers'))} needed" if rules else ""
    status = "FINISHED" if record.get("over") is True else clean(record.get("status"))
    return ContractRow(
        name=clean(record.get("name")),
        status=status,
        round=number(record.get("round")),
        learners=f"{active} learner{'' if active == 1 else 's'}{least}",
        last=_last(_part(record, "last"), members, now),
        waiting=clean(record.get("waiting")),
    )


def _last(last: Record, members: list[Record], now: datetime) -> str:
    """The last merge, with the loss of the newest round of which there is one."""
    if not last:
        return ""
    peers = len(_listed(last, "roster"))
    ago = now.timestamp() - number(last.get("at_ms")) / 1000
    text = f"round {number(last.get('round'))} of {peers} merged {span(ago)} ago"
    newest = max((number(one.get("reported_round")) for one in members), default=-1)
    losses = [
        loss
        for one in members
        if number(one.get("reported_round")) == newest
        and (loss := _decimal(one.get("loss"))) is not None
    ]
    if losses:
        text += f", loss {sum(losses) / len(losses):.4f}"
    return text


def _decimal(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, str) and value else None
    except ValueError:
        return None


# ------------------------------------------------------------------ warnings


def _warnings(snapshot: Snapshot) -> Iterator[str]:
    for answer in snapshot.answers:
        if answer.status is None:
            if not snapshot.problem:
                yield clean(f"{answer.place} does not answer: {answer.problem}")
        else:
            yield from _of_node(answer.status, answer.place)
    best = _best(snapshot.answers)
    top = number(best.get("height")) if best is not None else 0
    for answer in snapshot.answers:
        if answer.status is not None and top - number(answer.status.get("height")) > BEHIND:
            behind = top - number(answer.status.get("height"))
            yield f"{_name(answer.status, answer.place)} is {behind} blocks behind"
    if best is not None:
        yield from _of_network(best)
    if snapshot.own_warning:
        yield f"this command: {snapshot.own_warning}"


def _name(status: Record, place: str) -> str:
    return clean(status.get("name")) or place


def _of_node(status: Record, place: str) -> Iterator[str]:
    certificate, name = _part(status, "certificate"), _name(status, place)
    if problem := clean(certificate.get("problem")):
        yield f"{name}: its certificate is refused: {problem}"
    elif warning := clean(certificate.get("warning")):
        yield f"{name}: {warning}"
    limited = _part(status, "limited")
    for member, count in sorted(limited.items()):
        if number(count):
            yield f"{name} turned {clean(member)} away {number(count)} times for asking too much"


def _of_network(status: Record) -> Iterator[str]:
    """What members have done wrong, as the ledger has it: the same on all nodes."""
    for one in _listed(status, "evicted"):
        if isinstance(one, Mapping):
            yield f"{clean(one.get('name'))} was evicted: {clean(one.get('reason'))}"
    for one in _listed(status, "disputed"):
        if isinstance(one, Mapping):
            votes, needed = number(one.get("votes")), number(one.get("needed"))
            yield f"{clean(one.get('name'))} is to be evicted: {votes} of {needed} votes"
    for one in _listed(status, "evidence"):
        if isinstance(one, Mapping):
            yield f"{clean(one.get('name'))} signed two values for one step of the ledger"


def utc_now() -> datetime:
    """This moment."""
    return datetime.now(timezone.utc)
