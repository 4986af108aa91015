"""Why the ledger does not go on, in one sentence."""

from __future__ import annotations

from collections.abc import Callable

from swarm.ledger.consensus.core import Core

PATIENCE = 1.0  # seconds that a block may take before anybody is told
SILENT = 6.0  # seconds after which a neighbour counts as not there: a beat and a little


def explain(
    core: Core, now: float, name: Callable[[str], str], last_seen: Callable[[str], float | None]
) -> str:
    """Return what the core waits for, or "".

    `name` turns a uid into what people call it; `last_seen` gives the seconds since a neighbour was
    heard, None for never.
    """
    if core.left_behind:
        return core.left_behind
    me = core.config.uid
    best = core.sync.best()
    if best > core.height + 1:
        return f"fetching blocks: {core.height} of {best} are here"
    ages = {uid: last_seen(uid) for uid in core.validators if uid != me}
    gone = [uid for uid, age in ages.items() if age is None or age > SILENT]
    if me in core.validators and not core.may_vote and core.vote_from is None:
        return _no_memory(core.memory.lost, [name(uid) for uid in gone])
    here = len(core.validators) - len(gone)
    lacking = core.quorum - here
    if lacking > 0:
        who = ", ".join(f"{name(uid)} {_since(ages[uid])}" for uid in gone)
        return f"waiting for {lacking} more of {len(core.validators)} validators: {who}"
    if me in core.validators and not core.memory.confirmed:
        return "this node asks the other validators whether its data directory is an old copy"
    pending = core.pending()
    if pending is None or now - pending.since < PATIENCE:
        return ""
    quiet = sorted(name(uid) for uid in core.validators if uid not in pending.have)
    place = f"height {pending.height}, round {pending.round}, {pending.step}"
    if len(pending.have) >= pending.needed:
        return f"the validators disagree ({place}); they go to the next round"
    return (
        f"waiting for {pending.needed - len(pending.have)} more of {len(core.validators)} votes "
        f"({place}): {', '.join(quiet)}"
    )


def _no_memory(lost: bool, gone: list[str]) -> str:
    text = "this node's store is new and may have voted before: it asks the other validators"
    if lost:
        text = (
            "this node has signed what it does not remember: its data directory is an old copy, or "
            "its key is in use twice; it asks the other validators from when on it may vote"
        )
    return f"{text}; not seen: {', '.join(gone)}" if gone else text


def _since(age: float | None) -> str:
    return "has not been seen yet" if age is None else f"has not been seen for {age:.0f} s"
