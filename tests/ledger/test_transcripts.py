"""Every transcript of the consensus prints what it says. `SWARM_REWRITE=1` rewrites them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.ledger import transcript

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    text = path.read_text()
    now = transcript.run(text)
    if os.environ.get("SWARM_REWRITE"):
        path.write_text(now)
    else:
        assert now == text
