"""How the failure of a request travels: as a code and a text.

A handler that raises `RemoteError` or `LocalError` on purpose gets its code and cause across;
anything else is a defect of that handler, answered without its insides and logged where it
happened.
"""

from __future__ import annotations

import logging

from swarm.error_catalogue import CATALOGUE
from swarm.errors import RemoteError, SwarmFault

log = logging.getLogger("swarm.mesh")

MAX_TEXT = 500  # characters of a remote text that are kept


def to_wire(method: str, error: Exception) -> list[str]:
    """The [code, text] that answers a request whose handler raised `error`."""
    if isinstance(error, SwarmFault):
        return [error.code, error.cause[:MAX_TEXT]]
    log.error("handler of %s failed", method, exc_info=error)
    return ["SW2005", f"{method}: {type(error).__name__}"]


def from_wire(body: object) -> RemoteError:
    """The error to raise for an answer of that form; unknown codes become SW2005."""
    if isinstance(body, list) and len(body) == 2 and all(isinstance(part, str) for part in body):
        code, text = body
        return RemoteError(code if code in CATALOGUE else "SW2005", printable(text))
    return RemoteError("SW2005", "an error without a text")


def printable(text: str) -> str:
    """A peer's text, cut and without control characters, so that it cannot forge log lines."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_TEXT])
