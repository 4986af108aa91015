"""Runs lines for programs: one JSON document a command, each on a line of its own.

    {"number": 3, "command": "LIST TASKS", "ok": true,
     "result": ["ROOTTASK", "build"], "messages": [], "error": null}

`number` is the one of the prompt. Of a command that failed, `error` has `code`, `causes` and
`remedy`, and `result` what had come out before, or null. `messages` are the lines that people see
on the way. `docs/reference/commands.md` has the results of each command.
"""

from __future__ import annotations

import json
from typing import TextIO

from swci.output import JsonOutput
from swci.session import Outcome, Session

INTERRUPTED = "SW8030"


def run_json(session: Session, line: str, stream: TextIO) -> Outcome:
    """Execute one line and write its document; nothing for blank lines and comments."""
    number = session.count
    out = JsonOutput()
    try:
        outcome = session.execute(line, out)
    except KeyboardInterrupt:
        out.error(INTERRUPTED, ("interrupted",))
        _write(stream, out, number, line, ok=False)
        raise
    if session.count > number:
        _write(stream, out, number, line, ok=outcome.ok)
    return outcome


def tell_error(code: str, cause: str, stream: TextIO) -> None:
    """The document of a session that could not begin."""
    out = JsonOutput()
    out.error(code, (cause,))
    _write(stream, out, None, "", ok=False)


def _write(stream: TextIO, out: JsonOutput, number: int | None, line: str, *, ok: bool) -> None:
    stream.write(json.dumps(out.document(number, line.strip(), ok=ok)) + "\n")
    stream.flush()
