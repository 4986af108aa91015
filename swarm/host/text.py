"""Texts of others, as they are shown on a terminal."""

from __future__ import annotations

MAX_TEXT = 600  # characters of anything that others said


def clean(value: object) -> str:
    """A text of somebody else on one line, without anything that a terminal would obey."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    shown = "".join(c if c.isprintable() else " " for c in text[: MAX_TEXT + 1])
    return shown if len(shown) <= MAX_TEXT else shown[:MAX_TEXT] + "…"
