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
from pathlib import Path

import pytest

from swci.commands import language
from swci.script import run_line
from swci.session import Session
from tests.swci.network import FakeNetwork

HERE = Path(__file__).parent
TRANSCRIPTS = sorted((HERE / "transcripts").glob("*.txt"))

_COMMAND = re.compile(r"SWCI:\d+ >(?: (.*))?")
_INLINE = {"Current Directory : ": "cd ", "EXIT ON FAILURE IS TURNED ": "EXIT ON FAILURE "}


def as_typed(shown: str) -> str:
    """The command behind an echoed line: some replies stand in place of the echo."""
    for reply, command in _INLINE.items():
        if shown.startswith(reply):
            return command + shown[len(reply) :]
    return shown


def replay(text: str) -> str:
    """Run a transcript; the file as it should be."""
    network = FakeNetwork()
    session = Session(
        language(), network.connect, user_directory=HERE / "usr", env={}, clock=network.clock
    )
    paragraphs = []
    for paragraph in re.split(r"\n{2,}", text.strip("\n")):
        lines = paragraph.split("\n")
        if lines[0].startswith("! "):
            for line in lines:
                happen(network, line[2:].replace("\\n", "\n"))
        elif _COMMAND.match(lines[0]):
            stream = io.StringIO()
            for match in filter(None, map(_COMMAND.fullmatch, lines)):
                outcome = run_line(session, as_typed(match[1] or ""), stream)
                if outcome.leave:
                    stream.write(f"(the session ends, status {0 if outcome.ok else 1})\n")
            paragraph = stream.getvalue().rstrip("\n")
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs) + "\n"


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
    if os.environ.get("SWARM_REWRITE") == "1":
        path.write_text(found)
        return
    assert found == expected


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 6
