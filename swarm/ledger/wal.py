"""What SQLite does not tell: that a write-ahead log lost more than the step that a crash cut off.

SQLite reads a write-ahead log up to the first frame whose checksum does not fit and silently drops
the rest, since that is what a crash in the middle of a write looks like. A damaged byte looks the
same to it, and everything behind would be forgotten: blocks, and votes that this node may not
contradict. But with `synchronous=FULL` a transaction begins only when the one before is on disk, so
a crash cuts off one at most. More than one end of a transaction behind the last good frame, or a
bad header, is damage. A flaw in the very last transaction cannot be told from a crash.

This runs before SQLite sees the file, which would drop the frames for good.

Format: https://www.sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import struct
from pathlib import Path

_ORDERS = {0x377F0682: "<", 0x377F0683: ">"}  # of the words that checksums add up, by magic number
_HEADER = 32
_FRAME = 24
_WORD = 0xFFFFFFFF

Sums = tuple[int, int]


def path_of(database: Path) -> Path:
    """Where SQLite keeps the write-ahead log of a database."""
    return database.with_name(database.name + "-wal")


def damage(database: Path) -> str:
    """Why the log of a database lost more than a crash explains, or "". Raises OSError."""
    try:
        file = path_of(database).open("rb")
    except FileNotFoundError:
        return ""
    with file:
        header = file.read(_HEADER)
        if len(header) < _HEADER:
            return ""  # nothing was written yet
        order = _ORDERS.get(struct.unpack(">I", header[:4])[0])
        if order is None or struct.unpack(">II", header[24:]) != (
            sums := _add((0, 0), order, header[:24])
        ):
            return "the head of its write-ahead log is damaged"
        (page,) = struct.unpack(">I", header[8:12])
        number, bad, ends = 0, 0, 0
        while len(frame := file.read(_FRAME + page)) == _FRAME + page:
            number += 1
            if frame[8:16] != header[16:24]:
                # Another salt: of an earlier use of the file, and in the database since then.
                bad = bad or number
                continue
            if not bad:
                sums = _add(_add(sums, order, frame[:8]), order, frame[_FRAME:])
                bad = number if struct.unpack(">II", frame[16:24]) != sums else 0
            ends += bool(bad) and frame[4:8] != bytes(4)  # it ends a transaction
        return f"its write-ahead log is damaged in frame {bad}" if ends > 1 else ""


def _add(sums: Sums, order: str, data: bytes) -> Sums:
    """Continue a checksum over data whose size is a multiple of 8."""
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & _WORD
        second = (second + odd + first) & _WORD
    return first, second
