"""What a command gives back: a value for programs, and the same in lines for people.

A handler says each thing once, through the functions here:

    return fields(field("TASK NAME", task["name"]), field("FINALIZED", task["finalized"]))

which people see as `TASK NAME : build`, and programs as `{"task_name": "build", …}`. A field has
one key, made from its label; what is shown as "-" is null for programs, and where people need other
words than the value has (a time, a list of names), `shown` gives them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from swci import display


class Result(NamedTuple):
    """`data` consists of what JSON has; `lines` say the same."""

    data: Any
    lines: tuple[str, ...] = ()


class Field(NamedTuple):
    """One named part of a result."""

    key: str
    data: Any
    lines: tuple[str, ...]


def field(label: str, data: Any, shown: object = None, *, key: str = "") -> Field:
    """`LABEL : shown`; without `shown`, the value as it is."""
    line = display.field(label, data if shown is None else shown)
    return Field(key or key_of(label), None if data == "" else data, (line,))


def time_field(label: str, milliseconds: int) -> Field:
    """A time of the ledger."""
    return field(label, instant(milliseconds), display.moment(milliseconds))


def several(label: str, key: str, items: Iterable[tuple[Any, object]]) -> Field:
    """A list under one key: a line with the same label for each of its values."""
    pairs = list(items)
    lines = tuple(display.field(label, shown) for _, shown in pairs)
    return Field(key, [data for data, _ in pairs], lines)


def groups(key: str, items: Iterable[Result]) -> Field:
    """A list of results under one key."""
    found = list(items)
    return Field(key, [one.data for one in found], tuple(line for one in found for line in one[1]))


def fields(*parts: Field | None) -> Result:
    """A result of named parts; those that are None are left out."""
    present = [part for part in parts if part is not None]
    lines = tuple(line for part in present for line in part.lines)
    return Result({part.key: part.data for part in present}, lines)


def said(text: str, **data: Any) -> Result:
    """One line, such as `CONTRACT CREATED : c`, with its parts for programs."""
    return Result(data, (text,))


def names(found: Iterable[str]) -> Result:
    """A list of names, one a line."""
    listed = list(found)
    return Result(listed, tuple(listed))


def rows(columns: Sequence[tuple[str, str]], found: Iterable[Sequence[Any]]) -> Result:
    """Comma separated rows under a header; `columns` are (key, title). Programs get objects.

    A cell is a value, or (value, shown) where people see something else.
    """
    keys = [key for key, _ in columns]
    data, lines = [], [display.row(title for _, title in columns)]
    for cells in found:
        pairs = [cell if isinstance(cell, tuple) else (cell, cell) for cell in cells]
        values = (None if value == "" else value for value, _ in pairs)
        data.append(dict(zip(keys, values, strict=True)))
        lines.append(display.row(shown for _, shown in pairs))
    return Result(data, tuple(lines))


def key_of(label: str) -> str:
    """`PEER TYPE` as a key: `peer_type`."""
    return label.lower().replace(" ", "_")


def instant(milliseconds: int) -> str | None:
    """A time of the ledger for programs: ISO 8601 in UTC, None when it has not come yet."""
    if milliseconds <= 0:
        return None
    at = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def number(text: str) -> float | str | None:
    """A decimal number of the ledger; None for "", and the text for what JSON cannot hold."""
    if not text:
        return None
    value = float(text)
    return value if math.isfinite(value) else text
