"""The shapes of arguments: every value from a transaction passes through one of these checks.

A `Field` returns what is wrong with a value, or "" when it is right; it never raises, whatever it
is given. Lengths are small on purpose: what is accepted here is kept by every node for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from swarm.ledger.state.verdict import Refused

MALFORMED = "SW4002"


class Field(NamedTuple):
    """A check of one argument. `problem(value)` is "" when the value is right."""

    what: str
    problem: Callable[[Any], str]
    required: bool = True


# Named one by one: str.isprintable() follows the Unicode tables of the Python version at hand, and
# two nodes with different versions would come to different states. These are control characters,
# line separators, marks that reorder what a reader sees, and halves of surrogate pairs.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SETTING = re.compile("[A-Za-z_][A-Za-z0-9_]{0,31}")


def check(fields: Mapping[str, Field], args: Any, where: str = "") -> None:
    """Refuse (SW4002) unless `args` is a map with exactly these fields, each of the right shape."""
    problem = _map_problem(fields, args)
    if problem:
        raise Refused(MALFORMED, f"{where}{problem}")


def _map_problem(fields: Mapping[str, Field], args: Any) -> str:
    if type(args) is not dict:
        return "not a map"
    for key in args:
        if key not in fields:
            return f"unknown argument {_short(key)}"
    for key, spec in fields.items():
        if key not in args:
            if spec.required:
                return f"{key} is missing"
            continue
        problem = spec.problem(args[key])
        if problem:
            return f"{key}: {problem}"
    return ""


def _short(value: Any) -> str:
    """A value as it may appear in a refusal: printable and of bounded length."""
    if type(value) is str:
        return ascii(value[:40])
    if type(value) is int and -(1 << 63) <= value < 1 << 63:
        return str(value)
    return f"a {type(value).__name__}"


def integer(low: int, high: int) -> Field:
    """A whole number from `low` to `high`."""

    def problem(value: Any) -> str:
        if type(value) is not int or not low <= value <= high:
            return f"{_short(value)} is not a whole number from {low} to {high}"
        return ""

    return Field(f"whole number {low}–{high}", problem)


def text(least: int, most: int, *, tabs: bool = False) -> Field:
    """Printable text of `least` to `most` characters; with `tabs`, tabulators as well."""

    def problem(value: Any) -> str:
        if type(value) is not str or not least <= len(value) <= most:
            return f"not a text of {least} to {most} characters"
        found = _CONTROL.search(value.replace("\t", "") if tabs else value)
        return "contains control characters" if found else ""

    return Field(f"text of {least}–{most} characters", problem)


def note(most: int) -> Field:
    """Any text of at most `most` characters, such as the end of a program's log: pass it through
    `cleaned` before it is kept."""

    def problem(value: Any) -> str:
        right = type(value) is str and len(value) <= most
        return "" if right else f"not a text of at most {most} characters"

    return Field(f"any text of at most {most} characters", problem)


def cleaned(value: str) -> str:
    """`value` without control characters, except for line feeds and tabulators."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in "\t\n" else "\ufffd", value)


def pattern(expression: str, what: str) -> Field:
    """A text that matches the regular expression `expression` as a whole."""
    compiled = re.compile(expression)

    def problem(value: Any) -> str:
        if type(value) is not str or compiled.fullmatch(value) is None:
            return f"{_short(value)} is not {what}"
        return ""

    return Field(what, problem)


def data(least: int, most: int) -> Field:
    """A byte string of `least` to `most` bytes."""

    def problem(value: Any) -> str:
        if type(value) is not bytes or not least <= len(value) <= most:
            return f"not a byte string of {least} to {most} bytes"
        return ""

    return Field(f"{least}–{most} bytes" if least != most else f"{most} bytes", problem)


def one_of(*values: str) -> Field:
    """One of a few words."""

    def problem(value: Any) -> str:
        if type(value) is not str or value not in values:
            return f"{_short(value)} is none of {', '.join(map(repr, values))}"
        return ""

    return Field(" | ".join(value or '""' for value in values), problem)


def list_of(item: Field, most: int, *, least: int = 0, distinct: bool = False) -> Field:
    """A list of `least` to `most` items of one shape; with `distinct`, without repetition."""

    def problem(value: Any) -> str:
        if type(value) is not list or not least <= len(value) <= most:
            return f"not a list of {least} to {most} items"
        for place, one in enumerate(value):
            wrong = item.problem(one)
            if wrong:
                return f"item {place}: {wrong}"
        if distinct and len(set(value)) != len(value):
            return "an item is repeated"
        return ""

    return Field(f"list of {least}–{most} × {item.what}", problem)


def map_of(fields: Mapping[str, Field]) -> Field:
    """A map with exactly these fields."""
    what = ", ".join(f"{name} ({field.what})" for name, field in fields.items())
    return Field(f"map of {what}", lambda value: _map_problem(fields, value))


def settings(most: int) -> Field:
    """A map of at most `most` short names to whole numbers, booleans or short texts."""

    def problem(value: Any) -> str:
        if type(value) is not dict or len(value) > most:
            return f"not a map of at most {most} entries"
        for key, item in value.items():
            if type(key) is not str or _SETTING.fullmatch(key) is None:
                return f"{_short(key)} is not a name"
            wrong = type(item) is not bool and LARGE.problem(item) and SHORT.problem(item)
            if wrong:
                return f"{key} is neither a whole number, a boolean nor a short text"
        return ""

    return Field(f"map of at most {most} settings", problem)


def nullable(item: Field) -> Field:
    """`item`, or null."""
    return Field(
        f"{item.what}, or null", lambda value: "" if value is None else item.problem(value)
    )


def optional(item: Field) -> Field:
    """`item`, or nothing at all."""
    return item._replace(required=False)


def either(*fields: Field) -> Field:
    """The first field's problem unless one of them is satisfied."""

    def problem(value: Any) -> str:
        problems = [field.problem(value) for field in fields]
        return problems[0] if all(problems) else ""

    return Field(" or ".join(field.what for field in fields), problem)


FLAG = Field("boolean", lambda value: "" if type(value) is bool else "not a boolean")
LARGE = integer(-(1 << 62), 1 << 62)
SHORT = text(0, 64)
EMPTY = one_of("")
# Names are parts of URLs and of watch keys ("contracts/<name>"), so no blank, "/", "?", "#" or "%".
NAME = pattern(
    r"[A-Za-z0-9_][A-Za-z0-9_.:@+=~-]{0,159}", "a name of 1 to 160 letters, digits, _.:@+=~-"
)
UID = pattern(r"[0-9a-f]{32}", "a uid of 32 hexadecimal digits")
HEX16 = pattern(r"[0-9a-f]{16}", "an operation id of 16 hexadecimal digits")
HOST = pattern(r"[A-Za-z0-9_.:-]{1,253}", "a host name or address")
PORT = integer(0, 65535)
DIGEST = data(32, 32)
# Numbers with a fraction travel as text: no float may take part in a decision.
DECIMAL = pattern(
    r"(?=.{1,32}$)-?(?:[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|inf)|nan", "a decimal number"
)
COUNT = integer(0, 1 << 53)
