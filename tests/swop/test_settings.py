"""The operator's environment, and texts that the ledger takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import LocalError
from swarm.ledger.state import taskrunners
from swop.profile import ManagerType
from swop.runtime import LOG_LIMIT, bounded_tail
from swop.settings import read_settings
from swop.status_text import status_text


def test_what_run_swop_sets() -> None:
    settings = read_settings(
        {
            "USR_DIR": "/usr-dir",
            "SWOP_PROFILE": "p.yaml",
            "SWARM_NODE_NAME": "swop1",
            "SN_NODE_IP": "1.2.3.4",
            "SN_API_SERVER_PORT": "30304",
            "SWOP_UID": "1000",
            "SWOP_GID": "100",
            "SWOP_KEEP_CONTAINERS": "True",
            "SWARM_RUNTIME": "process",
            "SWARM_DATA_DIR": "/data",
        }
    )
    assert settings.profile == Path("/usr-dir/p.yaml")
    assert settings.user == "1000:100"
    assert settings.keep
    assert settings.runtime is ManagerType.PROCESS
    assert settings.data == Path("/data")


def test_defaults() -> None:
    settings = read_settings({"SWOP_PROFILE": "p.yaml"})
    assert settings.profile == Path("/platform/swarm/usr/p.yaml")
    assert not settings.keep
    assert settings.runtime is None
    assert settings.user == ""
    assert not settings.stream_logs


@pytest.mark.parametrize(
    ("text", "mib"), [("", 64), ("True", 64), ("1", 1), ("250", 250), ("0", 0), ("no", 0)]
)
def test_how_much_is_kept_of_logs(text: str, mib: int) -> None:
    settings = read_settings({"SWOP_PROFILE": "p", "SWOP_KEEP_LOGS": text, "SWOP_STREAM_LOGS": "1"})
    assert settings.keep_logs == mib << 20
    assert settings.stream_logs


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SWOP_PROFILE", ""),
        ("SN_API_SERVER_PORT", "many"),
        ("SN_API_SERVER_PORT", "70000"),
        ("SWARM_RUNTIME", "PODMAN"),
        ("SWOP_UID", "root"),
        ("SWOP_GID", "users"),
        ("SWOP_KEEP_LOGS", "all"),
        ("SWOP_KEEP_LOGS", "70000"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(LocalError) as caught:
        read_settings({"SWOP_PROFILE": "p.yaml", variable: value})
    assert caught.value.code == "SW7004"
    assert variable in caught.value.cause


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain\ttext\nsecond", "plain\ttext\nsecond"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("10%\r50%\r100%\n", "100%\n"),
        ("a\r\nb", "a\nb"),
        ("bell\x07 \u2028 \u202e", "bell� � �"),
    ],
)
def test_status_texts_are_plain(text: str, expected: str) -> None:
    assert status_text(text) == expected


@pytest.mark.parametrize("size", [0, 1, LOG_LIMIT, LOG_LIMIT + 1, 100_000])
@pytest.mark.parametrize("filler", ["x", "line\n", "\x1b[1m", "\x00", "\ud800"])
def test_the_ledger_takes_every_status_text(size: int, filler: str) -> None:
    text = status_text("reason; last lines of its log:\n" + filler * size)
    assert taskrunners.STATUS["text"].problem(text) == ""
    assert text.startswith("reason; last lines of its log:")


def test_a_tail_begins_at_a_line_where_it_can() -> None:
    text = "\n".join(f"line {number}" for number in range(1000))
    tail = bounded_tail(text, 100)
    assert len(tail) <= 100
    assert tail.startswith("…line ")
    assert tail.endswith("line 999")
    assert bounded_tail("y" * 200, 100) == "…" + "y" * 99
