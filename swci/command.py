"""What a command is: its grammar in one line, its help, its handler.

The grammar is written as users read it in HELP, and it is also what the parser is made from:

    CREATE CONTEXT <context> WITH IP <host> [<port:int>]
    EXIT ON FAILURE [ON|OFF]
    APPEND TASK BODY <task> <index:int> [<text...>]

Bare words are keywords, in any case. `<name>` is one word without blanks, `<name:int>` a whole
number, `<name...>` the rest of the line as it stands. `[…]` is optional. `A|B` is one of several
keywords; the one that was written is passed on under the name `choice`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from swci.output import Output
    from swci.result import Result
    from swci.session import Session

# Codes of errors that several commands have.
ABSENT = "SW8022"  # nothing has that name
WRONG_ARGUMENT = "SW8023"
DOWN = "SW8024"  # the network node does not answer

Kind = Literal["keyword", "choice", "word", "int", "rest"]
Handler = Callable[["Session", Mapping[str, str], "Output"], "Result | None"]

_PIECE = re.compile(
    r"\[(?P<optional>[^\]]+)\]"
    r"|<(?P<name>[a-z_]+)(?P<kind>:int|\.\.\.)?>"
    r"|(?P<choice>\w+(?:\|\w+)+)"
    r"|(?P<keyword>\w+)"
)


class CommandError(Exception):
    """A command could not be carried out; the lines say why.

    People see them behind `ERROR : `, without the code, as scripts know these texts from before
    there were codes; programs get the code.
    """

    def __init__(self, code: str, *lines: str) -> None:
        super().__init__(code, *lines)
        self.code = code
        self.lines = lines


@dataclass(frozen=True)
class Element:
    """One piece of a command's grammar."""

    kind: Kind
    text: str  # the keyword, the choices joined by |, or the argument's name

    @property
    def shown(self) -> str:
        """As it appears in HELP and in messages."""
        return self.text if self.kind in ("keyword", "choice") else f"<{self.text}>"

    def matches(self, word: str) -> bool:
        """Whether a word of a command line can stand for it."""
        if self.kind == "keyword":
            return word.upper() == self.text.upper()
        if self.kind == "choice":
            return word.upper() in self.text.upper().split("|")
        return word.isascii() and word.isdigit() if self.kind == "int" else True


@dataclass(frozen=True)
class Command:
    """One command of the language.

    `result` is the shape of what programs get: `{a, b?}` is an object, of which `b` may be absent,
    `{a: {b}}` one whose `a` is an object, `[name]` a list of texts, `[{a, b}]` a list of objects,
    and "" null. `<name>` stands for any key.
    `inline`: the reply takes the place of the echoed line, as `cd` and EXIT ON FAILURE have it.
    `waits`: it may take long and changes nothing, so it can run beside others and be given up.
    """

    grammar: str
    help: str
    handler: Handler = field(repr=False, compare=False)
    result: str = ""
    inline: bool = False
    waits: bool = False

    @cached_property
    def variants(self) -> tuple[tuple[Element, ...], ...]:
        """The grammar with each optional piece left out and put in.

        Of variants that look alike, as with two optional numbers, the one that fills the earlier
        argument counts.
        """
        variants: list[tuple[Element, ...]] = [()]
        for match in _PIECE.finditer(self.grammar):
            optional = match["optional"]
            pieces = tuple(
                _element(inner) for inner in _PIECE.finditer(optional if optional else match[0])
            )
            with_pieces = [(*variant, *pieces) for variant in variants]
            variants = variants + with_pieces if optional else with_pieces
        alike = {tuple((e.kind, _fixed(e)) for e in variant): variant for variant in variants[::-1]}
        return tuple(variant for variant in variants if variant in alike.values())

    @property
    def usage(self) -> str:
        """The grammar as people read it."""
        return self.grammar.replace(":int>", ">")

    @property
    def keywords(self) -> tuple[str, ...]:
        """The words that the command begins with."""
        words: list[str] = []
        for element in self.variants[0]:
            if element.kind != "keyword":
                break
            words.append(element.text.upper())
        return tuple(words)


def _fixed(element: Element) -> str:
    """What the parser tells elements of one kind apart by; nothing for arguments."""
    return element.text.upper() if element.kind in ("keyword", "choice") else ""


def _element(match: re.Match[str]) -> Element:
    if match["keyword"]:
        return Element("keyword", match["keyword"])
    if match["choice"]:
        return Element("choice", match["choice"])
    kinds: dict[str | None, Kind] = {None: "word", ":int": "int", "...": "rest"}
    return Element(kinds[match["kind"]], match["name"])
