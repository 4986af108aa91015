"""How values are shown."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

NONE = "-"


def moment(milliseconds: int) -> str:
    """A time of the ledger, in UTC; "-" when it has not come yet."""
    if milliseconds <= 0:
        return NONE
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime(
        "%Y-%m-%d %H:%M:%S UTC"
    )


def field(name: str, value: object) -> str:
    """`NAME : value`; further lines of the value are indented beneath it."""
    text = str(value)
    return f"{name} : {text if text else NONE}".replace("\n", "\n    ")


def row(values: Iterable[object]) -> str:
    """Comma separated values; commas inside of values become blanks, line breaks too."""
    return ",".join(
        str(value).replace(",", " ").replace("\n", " ") if value != "" else NONE for value in values
    )


def first_line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.split("\n") if line.strip()), "")
