"""Signs of life: who is there now, and which operator a task waits for in vain."""

from __future__ import annotations

from swarm.errors import RemoteError
from swci.ports import Record
from swci.progress import ENDED
from swci.session import Session

SILENT = 30.0  # seconds without a sign of life after which a node is not listed any more


def ages_of(session: Session) -> dict[str, float]:
    """Seconds since each node was heard of, by uid; those never heard of are not in it."""
    ages = session.client.presence()
    ages[str(session.client.status()["uid"])] = 0.0  # the one that answers is alive
    return ages


def silent_operators(session: Session, runner: Record) -> list[tuple[str, str]]:
    """Operators that a task waits for and that give no sign of life: uid, and a sentence.

    Presence is not on the ledger, so no task fails for it: the operator may be back at any moment.
    """
    if runner["state"] in ENDED:
        return []
    waited = [uid for uid, swop in runner["swops"].items() if swop["state"] not in ENDED]
    if not waited:
        return []
    try:
        ages = ages_of(session)
        silent = [uid for uid in waited if ages.get(uid, SILENT) >= SILENT]
        nodes = session.table("nodes") if silent else {}
    except RemoteError:
        return []  # no network node to ask: the wait says so itself
    return [(uid, _told(uid, nodes.get(uid), ages.get(uid))) for uid in silent]


def _told(uid: str, node: Record | None, age: float | None) -> str:
    name = f"operator {node['name']} ({uid})" if node else f"operator {uid}"
    since = "" if age is None else f" for {age:.0f} s"
    return f"no sign of life from {name}{since}: start it again, or RESET TASKRUNNER"
