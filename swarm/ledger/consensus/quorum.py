"""Quorum arithmetic and the choice of proposers: pure functions of ledger data."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.ledger.genesis import BYZANTINE


def quorum(validators: int, fault_model: str) -> int:
    """Votes that decide.

    More than 2/3 when validators may lie (two quorums then share an honest one), more than 1/2 when
    they only crash (two quorums share one at all).
    """
    return 2 * validators // 3 + 1 if fault_model == BYZANTINE else validators // 2 + 1


def tolerated(validators: int, fault_model: str) -> int:
    """How many validators may fail without stopping the others."""
    return validators - quorum(validators, fault_model)


def one_honest(validators: int, fault_model: str) -> int:
    """The paper's f + 1: so many validators include one that does not lie."""
    return tolerated(validators, fault_model) + 1 if fault_model == BYZANTINE else 1


def proposer(uids: Sequence[str], last: str, height: int, round_: int, rotate: int) -> str:
    """Return who proposes in `round_` of `height`.

    Sticky: whoever proposed the block before goes on, so a dead validator costs one time-out when
    its turn comes and nothing afterwards. Rotating: every `rotate` heights the next one takes over,
    so nobody can keep a transaction out for ever. Within a height, rounds go through all.
    """
    first = uids.index(last) if last in uids else height // rotate
    if height % rotate == 0:
        first += 1
    return uids[(first + round_) % len(uids)]
