"""Plain values that travel through the API, as its clients see them.

Deliberately free of pydantic: learners import this, and every megabyte counts there. The server
describes the same values for OpenAPI in `sentinel/schemas.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from swarm.error_catalogue import CATALOGUE
from swarm.errors import RemoteError

Record = dict[str, Any]

# What this version speaks. Both sides say it in a header with each message; those that say nothing
# (browsers, curl) are taken as they are.
PROTOCOL = 1
PROTOCOL_HEADER = "Swarm-Protocol"

# A transaction may expire at most 2000 heights ahead; half of that leaves room for a stale height.
EXPIRES_AFTER = 1000


class Endpoint(NamedTuple):
    """Where an SN's API listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Verdict:
    """What the state machine said about one transaction; byte strings in `result` are hex."""

    ok: bool
    code: str = ""
    text: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    height: int = 0


def known_code(code: str, otherwise: str) -> str:
    """Return `code` when this version knows it, else `otherwise` (an SN may be newer than us)."""
    return code if code in CATALOGUE else otherwise


class VerdictError(RemoteError):
    """The transaction was committed, and the state machine refused it.

    `verdict` holds the whole answer. A code that this version does not know becomes SW5007, with
    the original one in the text.
    """

    def __init__(self, op: str, verdict: Verdict) -> None:
        code = known_code(verdict.code, "SW5007")
        text = verdict.text if code == verdict.code else f"{verdict.code} {verdict.text}"
        super().__init__(code, f"{op}: {text}")
        self.op = op
        self.verdict = verdict


def verdict_of(answer: Mapping[str, Any]) -> Verdict:
    """Read the JSON answer of `POST /v1/transactions`; raises KeyError or TypeError on nonsense."""
    kinds = {"ok": bool, "code": str, "text": str, "result": dict, "height": int}
    for name, kind in kinds.items():
        # Not converted: an SN may send what no conversion survives, such as an endless number.
        if type(answer[name]) is not kind:
            raise TypeError(f"{name} is not of the type {kind.__name__}")
    return Verdict(**{name: answer[name] for name in kinds})
