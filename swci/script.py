"""Runs the lines of a script, and shows them with their results.

A line is echoed behind the prompt, its results follow indented. `cd` and EXIT ON FAILURE reply in
place of the echo. Blank lines and comments are echoed and do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TextIO

from swci.command import CommandError
from swci.output import LinesOutput, StreamOutput
from swci.session import Outcome, Session

Run = Callable[[Session, str, TextIO], Outcome]  # executes a line and shows what comes of it

BANNER = "SWARM LEARNING SWCI NODE"


def run_lines(
    session: Session, lines: Iterable[str], stream: TextIO, run: Run | None = None
) -> Outcome:
    """Execute lines until one ends the session; the outcome of the last one executed."""
    outcome = Outcome(ok=True)
    for line in lines:
        outcome = (run or run_line)(session, line.rstrip(), stream)
        if outcome.leave:
            break
    return outcome


def run_line(session: Session, line: str, stream: TextIO) -> Outcome:
    """Echo and execute one line."""
    prompt = session.prompt
    out = StreamOutput(stream)
    if _replies_inline(session, line):
        collected = LinesOutput()
        outcome = session.execute(line, collected)
        if outcome.ok:
            stream.write(f"{prompt}{' '.join(collected.lines)}\n")
        else:
            stream.write(f"{prompt}{line}\n")
            for reply in collected.lines:
                out.line(reply)
        stream.flush()
        return outcome
    stream.write(f"{prompt}{line}".rstrip() + "\n")
    stream.flush()
    try:
        return session.execute(line, out)
    finally:
        out.end_marks()


def _replies_inline(session: Session, line: str) -> bool:
    try:
        parsed = session.parse(line)
    except CommandError:
        return False
    return parsed is not None and parsed.command.inline
