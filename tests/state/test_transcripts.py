"""Every transcript of the state machine prints what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import golden
from tests.state.transcript import Session

FILES = golden.files(Path(__file__).parent / "transcripts")


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    golden.check(path, Session())
