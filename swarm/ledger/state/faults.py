"""Who failed a round and why: the last cases, kept in a contract's record for people.

A round goes on without a member within seconds, and its waiting sentence is gone by then; this is
what remains to be read afterwards. Nothing is decided by it. Texts come from members, so they are
cleaned and cut, and an old case makes room for a new one.
"""

from __future__ import annotations

from swarm.ledger.state import args as a
from swarm.ledger.state.records import Contract, Fault
from swarm.ledger.state.waiting import named, said_by

MOST = 16  # cases that a contract's record remembers
MOST_OTHERS = 4  # of an attempt, that were suspected by too few
LONGEST_WHY = 300  # characters


def reason(text: str) -> str:
    """A member's words as they may be kept: one line of bounded length."""
    return " ".join(a.cleaned(text[:LONGEST_WHY]).split())


def note(contract: Contract, height: int, uid: str, by: str, why: str) -> None:
    """Remember that member `uid` failed the present attempt; `by` names those who say so."""
    _add(contract, contract["round"], contract["attempt"], height, uid, by, why)


def note_suspicions(contract: Contract, height: int, out: list[str]) -> None:
    """What was said in an attempt that fails now, because those who are `out` are suspected.

    Who is put out may be the one that was right: its own accusations are kept as well, a few.
    """
    others = [uid for uid in sorted(contract["suspicions"]) if uid not in out]
    for uid in [*others[:MOST_OTHERS], *out]:
        accusers = contract["suspicions"][uid]
        note(contract, height, uid, named(contract, accusers), said_by(contract, accusers))


def note_afterwards(contract: Contract, height: int, uid: str, accuser: str, why: str) -> None:
    """What one member says of another about the last decided round; once for each pair."""
    last, by = contract["last"], named(contract, [accuser])
    assert last is not None, "checked by the caller"
    said = any(
        (one["round"], one["uid"], one["by"]) == (last["round"], uid, by)
        for one in contract["faults"]
    )
    if not said:
        _add(contract, last["round"], last["attempt"], height, uid, by, why)


def _add(
    contract: Contract, round_: int, attempt: int, height: int, uid: str, by: str, why: str
) -> None:
    fault = Fault(
        round=round_,
        attempt=attempt,
        uid=uid,
        name=named(contract, [uid]),
        by=by,
        why=reason(why),
        height=height,
    )
    contract["faults"] = [*contract["faults"], fault][-MOST:]
