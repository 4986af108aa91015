"""Golden transcripts of sessions: plain words, what happens, and exactly what is printed.

Paragraphs of a transcript:

- lines that begin with `SWCI:` and what follows them: a command of the script, with its output;
- lines that begin with `!`: something happens in the network; `! +3 …` in three seconds;
- all others: words for the reader.

`SWARM_REWRITE=1` writes the files as they are now; read the difference before committing it.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from swci.commands import language
from swci.script import run_line
from swci.session import Session
from tests.swci.network import FakeNetwork

HERE = Path(__file__).parent
TRANSCRIPTS = sorted((HERE / "transcripts").glob("*.txt"))

REWRITE = os.environ.get("SWARM_REWRITE") == "1"

_COMMAND = re.compile(r"SWCI:\d+ >(?: (.*))?")
_INLINE = {"Current Directory : ": "cd ", "EXIT ON FAILURE IS TURNED ": "EXIT ON FAILURE "}


def as_typed(shown: str) -> str:
    """The command behind an echoed line: some replies stand in place of the echo."""
    for reply, command in _INLINE.items():
        if shown.startswith(reply):
            return command + shown[len(reply) :]
    return shown


class Event(NamedTuple):
    """Something that happens in the network, or a line that is typed and what it shows."""

    text: str
    happens: bool = False
    shown: str = ""


def paragraphs(text: str) -> Iterator[list[Event] | str]:
    """A transcript cut into events, and words for the reader."""
    for paragraph in re.split(r"\n{2,}", text.strip("\n")):
        lines = paragraph.split("\n")
        if lines[0].startswith("! "):
            yield [Event(line[2:].replace("\\n", "\n"), True) for line in lines]
        elif _COMMAND.match(lines[0]):
            starts = [at for at, line in enumerate(lines) if _COMMAND.fullmatch(line)]
            yield [
                Event(as_typed(lines[at].partition(" > ")[2]), shown="\n".join(lines[at:end]))
                for at, end in zip(starts, [*starts[1:], len(lines)], strict=True)
            ]
        else:
            yield paragraph


def events(text: str) -> Iterator[Event]:
    """All that happens and is typed in a transcript."""
    for part in paragraphs(text):
        if not isinstance(part, str):
            yield from part


def replay(text: str) -> str:
    """Run a transcript; the file as it should be."""
    network = FakeNetwork()
    session = Session(
        language(), network.connect, user_directory=HERE / "usr", env={}, clock=network.clock
    )
    parts = []
    for part in paragraphs(text):
        if isinstance(part, str):
            parts.append(part)
        elif part[0].happens:
            for event in part:
                happen(network, event.text)
            parts.append("\n".join("! " + event.text.replace("\n", "\\n") for event in part))
        else:
            stream = io.StringIO()
            for event in part:
                outcome = run_line(session, event.text, stream)
                if outcome.leave:
                    stream.write(f"(the session ends, status {0 if outcome.ok else 1})\n")
            parts.append(stream.getvalue().rstrip("\n"))
    return "\n\n".join(parts) + "\n"


def happen(network: FakeNetwork, line: str) -> None:
    if line.startswith("+"):
        seconds, _, act = line[1:].partition(" ")
        network.clock.at(float(seconds), lambda: network.act(act))
    else:
        network.act(line)


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    expected = path.read_text()
    found = replay(expected)
    if REWRITE:
        path.write_text(found)
        return
    assert found == expected


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 6
