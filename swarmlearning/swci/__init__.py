"""Commands from a program: `Swci`, a client of a command interface in web mode."""

from __future__ import annotations

from swarmlearning.swci.client import Swci

__all__ = ["Swci"]
