"""What the lines of answers say. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

ERROR = "ERROR "
ENDED = ("COMPLETE", "ERROR")
NODE_COLUMNS = (
    "NodeType",
    "HostIP",
    "Port",
    "ContainerName",
    "UUID",
    "ParentUUID",
    "LastAlive",
)


class Node(NamedTuple):
    """A row of LIST NODES."""

    type: str
    host: str
    port: str
    name: str
    uid: str
    parent: str
    seen: str


@dataclass(frozen=True)
class Performance:
    """A row of PERFDATA: what a pair of learner and program has measured with the merged model."""

    uid: str
    slAdmin: bool
    loss: float
    metric: float
    totalEpochs: int
    completedEpochs: int


@dataclass(frozen=True)
class PeerStatus:
    """What GET TASKRUNNER PEER STATUS tells of a SWOP, or of one of its pairs."""

    uid: str
    state: str
    text: str
    pairs: tuple[PeerStatus, ...] = ()


def errors_of(lines: Iterable[str]) -> list[str]:
    """Why a command failed; nothing when it did not."""
    return [line for line in lines if line.startswith(ERROR)]


def field(lines: Iterable[str], name: str) -> str | None:
    """Value of the line `name : value`, None when there is none."""
    for line in lines:
        key, colon, value = line.partition(" : ")
        if colon and key.strip() == name:
            return value.strip()
    return None


def rows(lines: Iterable[str], columns: int) -> list[list[str]]:
    """Comma separated rows with so many columns, without the header."""
    found = [line.split(",") for line in lines]
    return [row for row in found if len(row) == columns][1:]


def nodes(lines: Iterable[str]) -> list[Node]:
    """Of LIST NODES."""
    return [Node(*map(str.strip, row)) for row in rows(lines, len(NODE_COLUMNS))]


def performance(lines: Iterable[str]) -> list[Performance]:
    """Of PERFDATA. Raises ValueError when a number is none."""
    return [
        Performance(uid, admin == "True", float(loss), float(metric), int(total), int(done))
        for uid, admin, loss, metric, total, done in (
            map(str.strip, row) for row in rows(lines, len(Performance.__dataclass_fields__))
        )
    ]


def peer_status(lines: Iterable[str]) -> PeerStatus:
    """Of GET TASKRUNNER PEER STATUS. Texts may have several lines."""
    swop: dict[str, str] = {}
    pairs: list[dict[str, str]] = []
    found, name = swop, ""
    for line in lines:
        key, colon, value = line.partition(" : ")
        key = key.strip()
        if colon and key == "SL_UID":
            pairs.append({})
            found = pairs[-1]
        if colon and key in _PEER_FIELDS:
            name = key
            found[name] = value.strip()
        elif name:
            found[name] += "\n" + line
    return PeerStatus(
        swop.get("SWOP_UID", ""),
        swop.get("SWOP_PEER_STATUS", ""),
        swop.get("SWOP_PEER_STATUS_DESC", ""),
        tuple(
            PeerStatus(
                pair.get("SL_UID", ""),
                pair.get("SL_PEER_STATUS", ""),
                pair.get("SL_PEER_STATUS_DESC", ""),
            )
            for pair in pairs
        ),
    )


_PEER_FIELDS = {
    "NAME",
    "SWOP_UID",
    "OPERATION_ID",
    "PEER_COUNT",
    "UPDATE_TS",
    "SWOP_PEER_INDEX",
    "SWOP_PEER_STATUS",
    "SWOP_PEER_STATUS_DESC",
    "SL_UID",
    "SL_PEER_STATUS",
    "SL_PEER_STATUS_DESC",
}
