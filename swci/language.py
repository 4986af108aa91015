"""The parser, made from the table of commands.

The table becomes a lark grammar (LALR with a contextual lexer), in which a word is taken for a
keyword only where the grammar has one: a task may be called TO or CONTEXT. Messages and completion
come from the same table, by walking it along the words that are there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lark import Lark, Tree
from lark.exceptions import LarkError

from swci.command import Command, CommandError, Element

NO_COMMAND = "SW8020"
MAX_LINE = 16 * 1024  # characters; the ledger's lines are far shorter


@dataclass(frozen=True)
class Parsed:
    """A command with its arguments."""

    command: Command
    args: dict[str, str]


class Language:
    """All commands, and what can be asked about them."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = tuple(commands)
        self._variants = [
            (command, variant) for command in self.commands for variant in command.variants
        ]
        self._lark = Lark(self.grammar(), parser="lalr", lexer="contextual", start="start")

    def grammar(self) -> str:
        """The lark grammar of the whole language."""
        keywords = {
            word.upper()
            for _, variant in self._variants
            for element in variant
            if element.kind in ("keyword", "choice")
            for word in element.text.split("|")
        }
        rules = ["start: " + " | ".join(f"v{i}" for i in range(len(self._variants)))]
        rules += [
            f"v{i}: " + " ".join(map(_symbol, variant))
            for i, (_, variant) in enumerate(self._variants)
        ]
        terminals = [rf"K_{word}.3: /{re.escape(word)}(?!\S)/i" for word in sorted(keywords)]
        terminals += [r"INT.2: /[0-9]+(?!\S)/", r"WORD.1: /\S+/", r"REST.9: /[ \t].+/"]
        return "\n".join([*rules, *terminals, "%ignore /[ \\t]+/"])

    def parse(self, line: str) -> Parsed:
        """Parse one command line. Raises CommandError, and nothing else, on any text."""
        if len(line) > MAX_LINE:
            raise CommandError(NO_COMMAND, f"a command has at most {MAX_LINE} characters")
        try:
            tree = self._lark.parse(line.strip())
        except LarkError:
            raise CommandError(NO_COMMAND, self._complaint(line)) from None
        variant = tree.children[0]
        assert isinstance(variant, Tree), "start consists of one variant"
        command, elements = self._variants[int(variant.data[1:])]
        args: dict[str, str] = {}
        for element, token in zip(elements, variant.children, strict=True):
            if element.kind == "choice":
                args["choice"] = str(token).upper()
            elif element.kind == "rest":
                args[element.text] = str(token)[1:]  # the blank that ends the word before it
            elif element.kind != "keyword":
                args[element.text] = str(token)
        return Parsed(command, args)

    def expected_after(self, words: Sequence[str]) -> list[Element | None]:
        """What may come after these words; None stands for the end. Empty: nothing fits."""
        found: dict[Element | None, None] = {}
        for _, variant in self._variants:
            if len(words) <= len(variant) and all(map(Element.matches, variant, words)):
                found[variant[len(words)] if len(words) < len(variant) else None] = None
            elif _in_rest(variant, words):
                found[None] = None
        return list(found)

    def starting_with(self, words: Sequence[str]) -> list[Command]:
        """Commands whose keywords begin with these words."""
        wanted = tuple(word.upper() for word in words)
        return [c for c in self.commands if c.keywords[: len(wanted)] == wanted]

    def _complaint(self, line: str) -> str:
        """Where a line goes wrong, and what would have been right there."""
        words = line.split()
        good = 0
        while good < len(words) and self.expected_after(words[: good + 1]):
            good += 1
        expected = self.expected_after(words[:good])
        shown = ", ".join(sorted({e.shown if e else "the end of the line" for e in expected}))
        if good == len(words):
            return f"{_quoted(line)} is not complete: expected {shown}"
        if good == 0:
            return f"{_quoted(words[0])} is no command; HELP lists them"
        return f"expected {shown} after {' '.join(words[:good])}, not {_quoted(words[good])}"


def _symbol(element: Element) -> str:
    if element.kind == "keyword":
        return f"K_{element.text.upper()}"
    if element.kind == "choice":
        return "(" + " | ".join(f"K_{word.upper()}" for word in element.text.split("|")) + ")"
    return {"word": "WORD", "int": "INT", "rest": "REST"}[element.kind]


def _in_rest(variant: Sequence[Element], words: Sequence[str]) -> bool:
    """Whether the words run into an argument that takes the rest of the line."""
    return (
        bool(variant)
        and variant[-1].kind == "rest"
        and len(words) > len(variant)
        and all(map(Element.matches, variant, words))
    )


def _quoted(text: str) -> str:
    """Text of a user in a message: printable and short."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:80])
    return f"{shown!r}" if len(text) <= 80 else f"{shown!r}..."
