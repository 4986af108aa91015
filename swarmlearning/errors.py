"""The one exception that a user's program sees."""

from __future__ import annotations


class SwarmError(Exception):
    """Swarm training cannot start or go on. The text says what happened, in words for the user."""
