"""CAs on the ledger: whose certificates may sign transactions.

The founder's trust store comes with the genesis. Later CAs are admitted by more than half of the
validators, so that one SN cannot bring strangers in alone.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

from swarm.identity import Role
from swarm.ledger.state import args as a
from swarm.ledger.state.draft import Context, Draft, validators
from swarm.ledger.state.operation import FULL, Operation, sending_sn
from swarm.ledger.state.records import Authority
from swarm.ledger.state.transitions import Transition, Transitions
from swarm.ledger.state.verdict import Refused

MAX_AUTHORITIES = 256
MAX_PENDING_PER_SN = 16
NOT_A_VALIDATOR = "SW4012"

TRANSITIONS = Transitions(
    "CA",
    "absent",
    (
        Transition("absent", "ca.admit", "proposed", "a validator votes for it"),
        Transition("proposed", "ca.admit", "proposed", "another validator votes for it"),
        Transition(
            "proposed", "majority", "admitted", "more than half of the validators have voted for it"
        ),
        Transition("admitted", "ca.admit", "admitted", "nothing is left to do"),
    ),
)


def _state_of(authority: Authority | None) -> str:
    if authority is None:
        return "absent"
    return "admitted" if authority["admitted"] else "proposed"


def admit(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Vote for a CA certificate (DER); a vote counts while its SN is a validator."""
    uid = sending_sn(draft, context)
    if all(validator.uid != uid for validator in validators(draft)):
        raise Refused(NOT_A_VALIDATOR, "only validators vote on CAs")
    der = args["der"]
    if not is_der_sequence(der):
        raise Refused("SW4013", "not one DER certificate")
    fingerprint = hashlib.sha256(der).hexdigest()
    TRANSITIONS.step(_state_of(draft.authority(fingerprint)), "ca.admit")
    if draft.authority(fingerprint) is None:
        _check_room(draft, uid)
        draft.put("cas", fingerprint, Authority(der=der, votes=[], admitted=False))
    authority = cast(Authority, draft.edit("cas", fingerprint))
    if not authority["admitted"]:
        authority["votes"] = sorted({*authority["votes"], uid})
        recount(draft)
    return {"fingerprint": fingerprint, "admitted": authority["admitted"]}


def _check_room(draft: Draft, uid: str) -> None:
    pending = sum(
        uid in record["votes"] and not record["admitted"] for _, record in draft.items("cas")
    )
    if pending >= MAX_PENDING_PER_SN or len(draft.keys("cas")) >= MAX_AUTHORITIES:
        raise Refused(FULL, "too many CAs are on the ledger or waiting for votes")


def recount(draft: Draft) -> None:
    """Admit every CA that has the votes of more than half of the present validators.

    Called when a vote or the set of validators changes.
    """
    present = {validator.uid for validator in validators(draft)}
    for fingerprint, record in list(draft.items("cas")):
        votes = sum(uid in present for uid in record["votes"])
        if not record["admitted"] and 2 * votes > len(present):
            authority = cast(Authority, draft.edit("cas", fingerprint))
            TRANSITIONS.step(_state_of(authority), "majority")
            authority["admitted"] = True


def is_der_sequence(der: bytes) -> bool:
    """Whether `der` is exactly one DER SEQUENCE (X.690, 8.1.3 and 10.1).

    No more is parsed here: what a library makes of the inside may change with its version, and the
    state must not. Signatures are checked against it wherever a transaction is verified.
    """
    if len(der) < 2 or der[0] != 0x30:
        return False
    first = der[1]
    if first < 0x80:
        return len(der) == 2 + first
    size = first & 0x7F
    if not 1 <= size <= 3 or len(der) < 2 + size:
        return False
    length = int.from_bytes(der[2 : 2 + size], "big")
    shortest = length >= 0x80 and length >> (8 * (size - 1)) != 0
    return shortest and len(der) == 2 + size + length


OPERATIONS = (
    Operation(
        "ca.admit",
        frozenset({Role.SN}),
        {"der": a.data(64, 16 * 1024)},
        admit,
        "vote for admitting a CA",
    ),
)
