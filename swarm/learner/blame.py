"""Decisions about others in a running attempt: pure functions of the contract's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Suspicions = Mapping[str, Sequence[str]]  # accused -> accusers


def side_with(suspicions: Suspicions, me: str) -> list[str]:
    """Whom a bystander accuses, so that the attempt ends: all bystanders come to the same answer.

    Two that accuse each other are cut from each other; both are as good, so the larger uid goes.
    Otherwise it is who is accused by most (the larger uid among equals). Empty when there is
    nothing to decide, or when it would be oneself.
    """
    losers = {
        max(accused, accuser)
        for accused, accusers in suspicions.items()
        for accuser in accusers
        if accused in suspicions.get(accuser, ())
    }
    if not losers and suspicions:
        losers = {max(suspicions, key=lambda accused: (len(suspicions[accused]), accused))}
    return sorted(losers - {me})


def all_accusers(suspicions: Suspicions) -> set[str]:
    """Everybody who has accused somebody in this attempt."""
    return {accuser for accusers in suspicions.values() for accuser in accusers}


def accused_by(suspicions: Suspicions, uid: str) -> list[str]:
    """Whom `uid` accuses, sorted."""
    return sorted(accused for accused, accusers in suspicions.items() if uid in accusers)


def without(suspicions: Suspicions, uid: str) -> dict[str, list[str]]:
    """What is left of the suspicions when those of `uid` do not count."""
    rest = {a: [one for one in accusers if one != uid] for a, accusers in suspicions.items()}
    return {accused: accusers for accused, accusers in rest.items() if accusers}


def undecidable(merged: Mapping[str, str], roster: Sequence[str]) -> bool:
    """No digest can reach a majority any more, whatever those say who have not spoken yet."""
    counts: dict[str, int] = {}
    for digest in merged.values():
        counts[digest] = counts.get(digest, 0) + 1
    silent = sum(uid not in merged for uid in roster)
    return bool(counts) and 2 * (max(counts.values()) + silent) <= len(roster)
