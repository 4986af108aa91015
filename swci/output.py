"""Where the results of a command go. Each face of the interpreter brings its own.

A command says two kinds of things: on its way, lines and marks for whoever looks on; at its end,
one result, or the error that ended it. People see all of it as lines; `JsonOutput` makes one
document of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, TextIO

from swarm.error_catalogue import CATALOGUE
from swci.result import Result

INDENT = "    "
MAX_MESSAGES = 1000  # that a document keeps, the latest


class Output(ABC):
    """Receives what a command says."""

    @abstractmethod
    def line(self, text: str) -> None:
        """One line; text with line breaks becomes several."""

    @abstractmethod
    def mark(self) -> None:
        """A sign that something is still being waited for."""

    def result(self, result: Result) -> None:
        """What the command gives back."""
        for line in result.lines:
            self.line(line)

    def error(self, code: str, causes: Sequence[str], shown: Sequence[str] = ()) -> None:
        """Why it could not be carried out; people read `shown`, where that says more."""
        for line in shown or causes:
            self.line(f"ERROR : {line}")


class StreamOutput(Output):
    """Indented lines on a stream; marks gather on a line of their own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._in_marks = False

    def line(self, text: str) -> None:
        self.end_marks()
        for part in text.split("\n"):
            self._stream.write(f"{INDENT}{part}".rstrip() + "\n")
        self._stream.flush()

    def mark(self) -> None:
        self._stream.write("#" if self._in_marks else f"{INDENT}#")
        self._stream.flush()
        self._in_marks = True

    def end_marks(self) -> None:
        """Begin a new line after marks."""
        if self._in_marks:
            self._stream.write("\n")
            self._in_marks = False


class LinesOutput(Output):
    """Collects the lines of a result and drops marks."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.extend(text.split("\n"))

    def mark(self) -> None:
        """Nobody looks on while lines are collected."""


class JsonOutput(Output):
    """Collects everything as values that JSON has."""

    def __init__(self) -> None:
        self.data: Any = None
        self.fault: dict[str, Any] | None = None
        self._messages: deque[str] = deque(maxlen=MAX_MESSAGES)

    def line(self, text: str) -> None:
        self._messages.extend(text.split("\n"))

    def mark(self) -> None:
        """A document is for the end."""

    def result(self, result: Result) -> None:
        self.data = result.data

    def error(self, code: str, causes: Sequence[str], shown: Sequence[str] = ()) -> None:
        self.fault = {"code": code, "causes": list(causes), "remedy": CATALOGUE[code].remedy}

    def document(self, number: int | None, command: str, *, ok: bool) -> dict[str, Any]:
        """The document of one command, the `number`th of its session."""
        return {
            "number": number,
            "command": command,
            "ok": ok,
            "result": self.data,
            "messages": list(self._messages),
            "error": self.fault,
        }
