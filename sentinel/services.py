"""What the API speaks for, and how a route says no."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sentinel.limits import Limits
from sentinel.metrics import Metrics
from sentinel.ports import Ledger
from sentinel.presence import Presence
from sentinel.refusals import Refusals
from sentinel.streams import Pulse


@dataclass(frozen=True)
class Services:
    """What the API speaks for."""

    ledger: Callable[[], Ledger]  # raises Refusal while the node is starting
    status: Callable[[], Mapping[str, Any]]
    bootstrap: Callable[[], Awaitable[Mapping[str, Any]]]
    presence: Presence
    ages: Callable[[], Mapping[str, float]]  # presence of everybody, network nodes included
    moved: Callable[[str, bool], None]  # a client came (True) or went: tell the other SNs
    pulse: Pulse
    refusals: Refusals
    metrics: Metrics
    limits: Limits


class Refusal(Exception):
    """Raised by a route: answered as status, code and text."""

    def __init__(self, status: int, code: str, text: str, retry_after: int = 0) -> None:
        super().__init__(status, code, text)
        self.status = status
        self.code = code
        self.text = text
        self.retry_after = retry_after  # seconds after which asking again makes sense; 0: unknown
