"""Where the results of a command go. Each face of the interpreter brings its own."""

from __future__ import annotations

from typing import Protocol, TextIO

INDENT = "    "


class Output(Protocol):
    """Receives results while a command runs."""

    def line(self, text: str) -> None:
        """One line of a result; text with line breaks becomes several."""

    def mark(self) -> None:
        """A sign that something is still being waited for."""


class StreamOutput:
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


class LinesOutput:
    """Collects the lines of a result and drops marks."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.extend(text.split("\n"))

    def mark(self) -> None:
        """Nobody looks on while lines are collected."""
