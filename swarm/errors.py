"""Errors that people meet: a stable code, a cause and a remedy.

Two kinds, told apart by type so that blame is never guessed:

- `LocalError`: this node's files, flags, programs or disk are wrong. The command stops with the
  message.
- `RemoteError`: a peer, a client or the network misbehaved. It is logged and counted; it never ends
  a node.

Every code is listed once in `CATALOGUE`, with the remedy that the reference page repeats.
"""

from __future__ import annotations

from swarm.error_catalogue import CATALOGUE


class SwarmFault(Exception):
    """Base of all errors with a code.

    `str()` of it is one line: code, cause, remedy.
    """

    def __init__(self, code: str, cause: str) -> None:
        super().__init__(code, cause)
        self.code = code
        self.cause = cause
        self.remedy = CATALOGUE[code].remedy

    def __str__(self) -> str:
        return f"{self.code}: {self.cause}; {self.remedy}"


class LocalError(SwarmFault):
    """Something on this side is wrong: configuration, files, programs, disk."""


class RemoteError(SwarmFault):
    """Somebody else misbehaved, or cannot be reached."""
