"""The output of programs in the operator's log: lines, limits, secrets, and following real ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swop import log_stream
from swop.log_stream import AT_ONCE, LONGEST, PER_SECOND, Limited, Lines, LogStreams
from swop.mask import MASK, Mask
from swop.process_runtime import ProcessRuntime
from swop.runtime import BuildRequest
from swop.work import Work
from tests.swop.programs import IMAGE, ended, eventually, python


def lines_of(*chunks: bytes) -> list[str]:
    lines = Lines()
    found = [line for chunk in chunks for line in lines.feed(chunk)]
    return [*found, *lines.end()]


class TestLines:
    @given(st.lists(st.text("ab\r\n é", max_size=12)))
    def test_it_does_not_matter_how_the_bytes_come(self, parts: list[str]) -> None:
        raw = "".join(parts).encode()
        whole = lines_of(raw)
        assert lines_of(*(raw[i : i + 1] for i in range(len(raw)))) == whole
        assert (
            whole
            == [line.rstrip("\r").rpartition("\r")[2] for line in raw.decode().split("\n")][
                : len(whole)
            ]
        )

    def test_a_progress_bar_is_one_line(self) -> None:
        bar = b"".join(b"\r%d/100" % n for n in range(101))
        assert lines_of(b"epoch 1\n", bar, b"\nend") == ["epoch 1", "100/100", "end"]

    def test_lines_without_an_end_do_not_cost_memory(self) -> None:
        lines = Lines()
        for _ in range(1000):
            assert list(lines.feed(b"x" * 10_000)) == []
        (line,) = lines.feed(b"\n")
        assert len(line) == LONGEST and line.endswith("…")
        assert list(lines.feed(b"short\n")) == ["short"]

    def test_terminals_are_not_commanded(self) -> None:
        assert lines_of(b"\x1b[31mred\x1b[0m\x07 \xff\n") == ["red� �"]


class TestLimited:
    def test_what_is_beyond_the_rate_is_counted_and_told(self) -> None:
        said: list[str] = []
        now = [0.0]
        limited = Limited(said.append, lambda: now[0])
        for number in range(int(AT_ONCE) + 7):
            limited.line(str(number))
        assert said == [str(number) for number in range(int(AT_ONCE))]
        now[0] += 2 / PER_SECOND
        limited.line("next")
        assert said[-2:] == ["… 7 lines left out", "next"]
        limited.account()
        assert said[-1] == "next"


class TestMask:
    def mask(self, **environment: str) -> Mask:
        return Mask(environment)

    def test_values_of_secret_variables(self) -> None:
        mask = self.mask(DB_PASSWORD="hunter22", HF_TOKEN="abcd\nefgh", MAX_EPOCHS="1000", PIN="1")
        assert mask.line("log in with hunter22, then efgh") == f"log in with {MASK}, then {MASK}"
        assert mask.line("1000 epochs") == "1000 epochs"

    def test_the_longer_of_two_secrets_wins(self) -> None:
        assert self.mask(A_TOKEN="abcdef", B_TOKEN="abcd").line("abcdef") == MASK

    def test_short_values_mask_nothing(self) -> None:
        assert self.mask(MY_PASSWORD="a").line("a banana") == "a banana"

    def test_passwords_in_urls(self) -> None:
        line = "via http://user:pa55@proxy:80/ and https://example.com:443/@x"
        assert (
            self.mask().line(line) == f"via http://{MASK}@proxy:80/ and https://example.com:443/@x"
        )

    def test_private_keys_over_several_lines(self) -> None:
        text = "a\n-----BEGIN EC PRIVATE KEY-----\nMIG\n-----END EC PRIVATE KEY-----\nb"
        assert self.mask().text(text) == f"a\n{MASK}\n{MASK}\n{MASK}\nb"
        one = "k=-----BEGIN PRIVATE KEY-----MIG-----END PRIVATE KEY----- done"
        assert self.mask().line(one) == f"k={MASK} done"

    @given(st.text(max_size=60))
    def test_other_text_stays(self, text: str) -> None:
        if "://" not in text:
            assert self.mask().line(text) == text


@pytest.fixture
def runtime(tmp_path: Path):
    runtime = ProcessRuntime("a" * 32, tmp_path / "data")
    runtime.build(BuildRequest(IMAGE, (), None, {}), Work())
    yield runtime
    names = [found.name for found in runtime.adopt()]
    runtime.stop(names, 1.0)
    runtime.remove(names)
    runtime.close()


def test_a_program_is_followed_from_its_first_line_to_its_last(
    runtime: ProcessRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "swop")
    streams = LogStreams(runtime)
    code = "import os; print('first'); print(os.environ['MY_TOKEN']); print('last', end='')"
    program = python(runtime, code, environment={"MY_TOKEN": "s3cret", "PYTHONUNBUFFERED": "1"})
    runtime.start(program)
    streams.begin(program)
    streams.begin(program)  # it is followed already
    eventually(lambda: f"{program.name} | last" in caplog.messages)
    prefix = f"{program.name} | "
    assert caplog.messages == [prefix + "first", prefix + MASK, prefix + "last"]
    streams.close()


def test_a_restarted_operator_tells_only_what_is_new(
    runtime: ProcessRuntime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "swop")
    go = tmp_path / "go"
    code = (
        "import os, time; print('before')\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.02)\n"
        "print('after')"
    )
    program = python(runtime, code)
    runtime.start(program)
    eventually(lambda: runtime.log_tail(program.name) == "before")
    streams = LogStreams(runtime)
    streams.begin(program, lines=0)
    eventually(lambda: program.name in streams._outputs)
    chunks = streams._outputs[program.name]
    assert chunks is not None
    # It is followed when its file has been opened at the end; the program speaks after that.
    eventually(lambda: _is_open(runtime._logs.path(program.name)))
    go.touch()
    ended(runtime, program.name)
    eventually(lambda: f"{program.name} | after" in caplog.messages)
    assert not any("before" in text for text in caplog.messages)
    streams.close()


def _is_open(path: Path) -> bool:
    """Has this process the file open, and gone to its end?"""
    for link in Path("/proc/self/fd").iterdir():
        try:
            if link.readlink() == path:
                info = Path(f"/proc/self/fdinfo/{link.name}").read_text()
                return f"pos:\t{path.stat().st_size}\n" in info
        except OSError:
            continue
    return False


def test_closing_does_not_wait_for_programs(
    runtime: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = python(runtime, "import time; print('up'); time.sleep(300)")
    runtime.start(program)
    streams = LogStreams(runtime)
    streams.begin(program)
    (thread,) = streams._threads.values()
    streams.close()
    assert not thread.is_alive()
    monkeypatch.setattr(log_stream, "JOIN_SECONDS", 0)
    streams.begin(program)
    assert list(streams._threads.values()) == [thread]
