"""What a filling process says, from its first line to its last word.

It has read what strangers wrote, so its words are taken for strangers' words, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from swarm.errors import LocalError
from swop.status_text import status_text
from swop.work import Work

MAX_LINES = 500  # of what a filling process says
MAX_LINE = 4096
CODES = re.compile(r"^SW70(13|2[0-9])$")  # what it may blame


def listen(lines: Iterable[bytes], work: Work) -> str:
    """Follow what a filling process prints, to its last word; returns its sentence.

    Raises LocalError: what it reports, or SW7028 when it ends without a word.
    """
    last = ""
    for count, line in enumerate(lines):
        kind, words = _message(line)
        if kind == "done":
            return words[0]
        if kind == "error":
            code, cause = words
            raise LocalError(code if CODES.match(code) else "SW7028", cause)
        if kind == "say" and count < MAX_LINES:
            work.progress(words[0])
        last = words[0] or last
    work.check()
    raise LocalError("SW7028", f"it ended without a result; its last words: {last or 'none'}")


def _message(line: bytes) -> tuple[str, list[str]]:
    """Kind and texts of one line; "" for anything else that is printed."""
    text = line[:MAX_LINE].decode("utf-8", "replace").strip()
    try:
        [(kind, value)] = json.loads(text).items()
    except (ValueError, AttributeError, TypeError):
        return "", [_plain(text)]
    words = [_plain(str(word)) for word in (value if isinstance(value, list) else [value])]
    return (kind, words) if len(words) == (2 if kind == "error" else 1) else ("", [_plain(text)])


def _plain(text: str) -> str:
    """On one line, without what steers terminals: names in archives are whatever they want."""
    return " ".join(status_text(text).split())
