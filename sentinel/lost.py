"""Which learners must be reported lost: a rule over the state and the signs of life.

A learner's parent, the SN through which it enrolled, reports it when its event stream has been
closed for `CLOSED` seconds, or when it never opened one within `SILENT`. When the parent itself is
gone, every SN reports its learners; the ledger counts more than half of the validators' reports.
Nobody is reported while any SN knows it to be alive: a learner whose SN died continues at another
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

CLOSED = 3.0  # seconds after the disconnect; another SN would have told of it by then
SILENT = 15.0  # seconds without any sign of life


class Loss(NamedTuple):
    """A report to make."""

    contract: str
    uid: str
    reason: str


class LostRule:
    """Remembers since when somebody has been missing. `clock` is monotonic, in seconds."""

    def __init__(self, me: str, clock: Callable[[], float]) -> None:
        self._me = me
        self._clock = clock
        self._missing_since: dict[str, float] = {}

    def overdue(
        self,
        contracts: Mapping[str, Mapping[str, Any]],
        nodes: Mapping[str, Mapping[str, Any]],
        ages: Mapping[str, float],
        sn_age: Callable[[str], float | None],
    ) -> Iterator[Loss]:
        """Yield the reports that are due.

        `ages` are the known signs of life (seconds), `sn_age` that of a network node, None when it
        was never seen by this one.
        """
        missing: set[str] = set()
        for name, contract in contracts.items():
            if contract["over"]:
                continue
            for uid, member in contract["members"].items():
                if member["state"] != "active":
                    continue
                if self._me in contract["lost_reports"].get(uid, ()):
                    continue
                reason = self._why_lost(uid, nodes.get(uid) or {}, nodes, ages, sn_age, missing)
                if reason:
                    yield Loss(name, uid, reason)
        self._missing_since = {u: t for u, t in self._missing_since.items() if u in missing}

    def _why_lost(
        self,
        uid: str,
        node: Mapping[str, Any],
        nodes: Mapping[str, Mapping[str, Any]],
        ages: Mapping[str, float],
        sn_age: Callable[[str], float | None],
        missing: set[str],
    ) -> str:
        age = ages.get(uid)
        parent = node.get("parent", "")
        if parent == self._me:
            if age is not None:
                return f"its connection was closed {age:.0f} s ago" if age > CLOSED else ""
            absent = self._absent(uid, missing)
            return f"no sign of life for {absent:.0f} s" if absent > SILENT else ""
        if age is not None and age <= SILENT:
            return ""
        # Never seen by this node: count from when it first mattered, as we may have just started.
        parent_age = sn_age(parent) if parent else None
        if parent_age is None:
            parent_age = self._absent(parent or uid, missing)
        if parent_age <= SILENT or self._absent(uid, missing) <= SILENT:
            return ""
        name = (nodes.get(parent) or {}).get("name") or "its network node"
        return f"{name} has not been seen for {parent_age:.0f} s, nor the learner at any other node"

    def _absent(self, who: str, missing: set[str]) -> float:
        missing.add(who)
        now = self._clock()
        return now - self._missing_since.setdefault(who, now)
