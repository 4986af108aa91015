"""What WAIT FOR TASKRUNNER tells while a task runs: a pure core.

`update` takes the records as they are now and returns the lines that are new. Statuses of peers are
told when they change. A round is told when all its learners have reported their loss, or without it
when they take longer than `ROUND_PAUSE`. Rounds can be many a second, so of each contract at most
one line in `ROUND_PAUSE` is told, always the latest. A reason to wait is told when it has stood for
`STANDS` seconds: short waits are normal, and saying each would hide the long one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from swci.display import first_line
from swci.ports import Record

ROUND_PAUSE = 2.0  # seconds
STANDS = 5.0  # seconds

ENDED = ("COMPLETE", "ERROR")


class Progress:
    """Remembers what was told, for one run of a task."""

    def __init__(self, runner: str) -> None:
        self._runner = runner
        self._told: dict[str, str] = {}
        self._round_told_at: dict[str, float] = {}
        self._round_seen: dict[str, tuple[int, float]] = {}
        self._waiting: dict[str, tuple[str, float]] = {}

    def update(self, records: Mapping[str, Record | None], now: float) -> list[str]:
        """New lines for these records ("table/id" to record); `now` in seconds."""
        runner = records.get(f"taskrunners/{self._runner}")
        if runner is None:
            return []
        lines = list(self._peers(runner))
        contracts = [
            record
            for key, record in sorted(records.items())
            if key.startswith("contracts/") and record and _belongs(record, runner)
        ]
        for contract in contracts:
            found = self._round(contract, now, final=runner["state"] in ENDED)
            if found:
                lines.append(found if len(contracts) == 1 else f"{contract['name']} : {found}")
        if runner["state"] not in ENDED:
            for record in (runner, *contracts):
                lines += self._reason(record["name"], record["waiting"], now)
        return lines

    def _peers(self, runner: Record) -> Iterator[str]:
        for uid, swop in sorted(runner["swops"].items(), key=lambda item: item[1]["index"]):
            yield from self._status(f"SWOP {swop['index']}", uid, swop)
        for name, peer in sorted(runner["peers"].items()):
            yield from self._status(name, name, peer)

    def _status(self, shown: str, key: str, peer: Record) -> Iterator[str]:
        text = f"{shown} : {peer['state']}"
        if peer["text"]:
            text += f" : {first_line(peer['text'])}"
        if self._told.get(key) != text:
            self._told[key] = text
            yield text

    def _round(self, contract: Record, now: float, *, final: bool) -> str:
        """Line about the latest round, or "" when there is no new one to tell yet."""
        name, last = contract["name"], contract["last"]
        if last is None:
            return ""
        if self._round_seen.get(name, (-1, 0.0))[0] != last["round"]:
            self._round_seen[name] = (last["round"], now)
        rested = now - self._round_told_at.get(name, -ROUND_PAUSE) >= ROUND_PAUSE
        late = now - self._round_seen[name][1] >= ROUND_PAUSE
        text = round_line(contract, even_without_loss=late or final)
        if not text or text == self._told.get(name) or not (rested or final):
            return ""
        self._told[name] = text
        self._round_told_at[name] = now
        return text

    def _reason(self, name: str, reason: str, now: float) -> Iterator[str]:
        before, since = self._waiting.get(name, ("", now))
        if reason != before:
            self._waiting[name] = (reason, now)
        elif reason and now - since >= STANDS and self._told.get(f"{name} waits") != reason:
            self._told[f"{name} waits"] = reason
            yield f"{name} : {reason}"


def failures(runner: Record) -> Iterator[str]:
    """Who failed, and why, with the whole text that was reported."""
    for name, peer in sorted(runner["peers"].items()):
        if peer["state"] == "ERROR":
            yield f"{name} : {peer['text']}".replace("\n", "\n    ")
    for uid, swop in sorted(runner["swops"].items(), key=lambda item: item[1]["index"]):
        if swop["state"] == "ERROR":
            yield f"SWOP {swop['index']} {uid} : {swop['text']}".replace("\n", "\n    ")


def round_line(contract: Record, *, even_without_loss: bool) -> str:
    """The newest round of which all learners have reported; else the last one, or "" to wait."""
    last, members = contract["last"], contract["members"].values()
    peers = len(last["roster"])
    newest = max((member["reported_round"] for member in members), default=-1)
    reports = [m for m in members if m["reported_round"] == newest >= 0 and m["loss"]]
    if reports and len(reports) >= peers and newest >= last["round"] - 1:
        loss = sum(float(member["loss"]) for member in reports) / len(reports)
        return f"round {newest} : peers {peers} : loss {loss:.4f}"
    return f"round {last['round']} : peers {peers}" if even_without_loss else ""


def _belongs(contract: Record, runner: Record) -> bool:
    """Whether the contract has been at work since the task was assigned.

    A task does not name its contract (the user's program does), so this goes by time. Both times
    are claims of the network nodes, good enough for what people read.
    """
    if runner["peer_type"] != "SL" or contract["status"] == "UNINITIALIZED":
        return False
    last = contract["last"]
    fresh = last is not None and last["at_ms"] >= runner["started_ms"]
    return fresh or (
        last is None and any(m["state"] == "active" for m in contract["members"].values())
    )
