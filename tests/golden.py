"""Golden transcripts: prose, commands, and exactly what they print, in one text file.

Paragraphs that begin with "> " are commands with their output, the others are for readers.
`SWARM_REWRITE=1` in the environment writes what is printed now into the files, for a look at the
difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Protocol


class Session(Protocol):
    """Executes the commands of one transcript."""

    def run(self, line: str) -> list[str]:
        """Execute one command and return what it prints."""


def files(folder: Path) -> list[Path]:
    """The transcripts in `folder`, in the order of their names."""
    return sorted(folder.glob("*.txt"))


def render(text: str, session: Session) -> str:
    """Execute a transcript and return it with the output as it is now."""
    paragraphs = []
    for paragraph in re.split(r"\n{2,}", text.strip("\n")):
        lines = paragraph.split("\n")
        if lines[0].startswith("> "):
            output: list[str] = []
            for line in [one for one in lines if one.startswith("> ")]:
                output += [line, *session.run(line[2:])]
            paragraph = "\n".join(output)
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs) + "\n"


def check(path: Path, session: Session) -> None:
    """Fail unless a transcript prints what it says."""
    text = path.read_text()
    now = render(text, session)
    if os.environ.get("SWARM_REWRITE"):
        path.write_text(now)
    else:
        assert now == text
