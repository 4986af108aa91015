"""PyTorch. Not supported yet: the class says so when it is used."""

from __future__ import annotations

from swarmlearning.callback import NotYetAvailable
from swarmlearning.errors import SwarmError

__all__ = ["SwarmCallback", "SwarmError"]


class SwarmCallback(NotYetAvailable):
    """Raises SwarmError: PyTorch comes with a later version."""

    framework = "PyTorch"
