"""Last lines of a file, and following one that grows."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm import logfile


@given(
    st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"x")), max_size=40),
    st.booleans(),
    st.integers(0, 45),
    st.integers(1, 7),
)
def test_the_last_lines_are_those_of_a_list(
    lines: list[bytes], ends: bool, wanted: int, chunk: int
) -> None:
    text = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    expected = b"".join(text.splitlines(keepends=True)[-wanted:] if wanted else [])
    if b"\r" in text or any(c in text for c in (b"\x0b", b"\x0c")):  # splitlines knows more ends
        pieces = text.split(b"\n")
        kept = [p + b"\n" for p in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
        expected = b"".join(kept[-wanted:] if wanted else [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfile, "CHUNK", chunk)
        assert text[logfile.tail_offset(io.BytesIO(text), wanted) :] == expected


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    over = threading.Event()
    looked: list[int] = []

    def is_over() -> bool:
        looked.append(1)
        if len(looked) == 2:
            path.write_bytes(b"first\n")
        return over.is_set()

    chunks = logfile.follow(path, is_over)
    assert next(chunks) == b"first\n"
    with path.open("ab") as file:
        file.write(b"last")
    over.set()
    assert list(chunks) == [b"last"]


def test_what_is_written_between_the_look_and_the_end_is_given(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a")
    answers = iter([False, False, True])

    def is_over() -> bool:
        over = next(answers)
        if over:
            path.write_bytes(b"abc")  # its last words, just before it is seen to have ended
        return over

    assert b"".join(logfile.follow(path, is_over)) == b"abc"


def test_a_file_that_never_comes_is_not_waited_for_beyond_the_end(tmp_path: Path) -> None:
    assert list(logfile.follow(tmp_path / "none", lambda: True)) == []
    closed = threading.Event()
    closed.set()
    assert list(logfile.follow(tmp_path / "none", lambda: False, closed=closed)) == []
