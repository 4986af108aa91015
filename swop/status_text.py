"""Text that the ledger takes as a status: bounded, and free of control characters."""

from __future__ import annotations

import re

from swop.runtime import LOG_LIMIT, bounded_tail

# Colours and cursor movements of terminals (ECMA-48), which programs print into their logs.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
# What the ledger refuses in a text: control characters but tab and line feed, line separators,
# marks that reorder what a reader sees, halves of surrogate pairs.
_REFUSED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def one_line(text: str) -> str:
    """A line without what only a terminal understands, in its last version."""
    return _REFUSED.sub("�", _ESCAPES.sub("", text).rstrip("\r").rpartition("\r")[2])


def status_text(text: str) -> str:
    """`text` as a status. A line that was overwritten (progress bars) keeps its last version."""
    clean = "\n".join(one_line(line) for line in text.split("\n"))
    if len(clean) <= LOG_LIMIT:
        return clean
    # The reason stands at the beginning, the log's end at the end: keep both.
    head, _, rest = clean.partition("\n")
    head = head[: LOG_LIMIT // 2]
    return f"{head}\n{bounded_tail(rest, LOG_LIMIT - len(head) - 1)}"
