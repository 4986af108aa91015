"""Hugging Face Transformers. Not supported yet: the class says so when it is used."""

from __future__ import annotations

from swarmlearning.callback import NotYetAvailable
from swarmlearning.errors import SwarmError

__all__ = ["SwarmCallback", "SwarmError"]


class SwarmCallback(NotYetAvailable):
    """Raises SwarmError: Hugging Face Transformers comes with a later version."""

    framework = "Hugging Face Transformers"
