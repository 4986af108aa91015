"""What goes into `apply` beside transactions, and what comes out: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Header(NamedTuple):
    """The part of a block's header that the state machine sees.

    `time_ms` is the proposer's claim: it is recorded for people and decides nothing.
    """

    height: int
    time_ms: int
    proposer: str
    recovery: bool = False  # certified by survivors and accepted here (`swarm/ledger/recovery.py`)


class Validator(NamedTuple):
    """One that votes on blocks: its node's uid and its key (SubjectPublicKeyInfo, DER)."""

    uid: str
    public_key_der: bytes


@dataclass(frozen=True)
class Verdict:
    """The state machine's answer to one transaction.

    When `ok` is false nothing has changed, `code` is one of SW4xxx (or SW1001 for a defect of our
    own) and `text` says why. `result` holds canonical values only.
    """

    ok: bool
    code: str = ""
    text: str = ""
    result: dict[str, Any] = field(default_factory=dict)


class Refused(Exception):
    """Raised by operations to refuse a transaction; `State.apply` turns it into a Verdict.

    Not an error of this node and never seen outside of the state machine.
    """

    def __init__(self, code: str, text: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text
        self.result = result or {}
