"""What should not have been raised: one file for each place."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path


def note(folder: Path, name: str, data: bytes, error: Exception) -> None:
    """Write what was raised, where, and for which input, unless that place is known."""
    frames = traceback.extract_tb(error.__traceback__)
    place = "\n".join(f"{frame.filename}:{frame.lineno}" for frame in frames[-3:])
    digest = hashlib.sha256(f"{type(error).__name__}\n{place}".encode()).hexdigest()[:12]
    path = folder / f"{name}-{digest}.txt"
    if not path.exists():
        text = "".join(traceback.format_exception(error))
        path.write_text(f"{name}\n{data.hex()}\n\n{text}")
