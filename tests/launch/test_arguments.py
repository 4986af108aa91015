"""Taking command lines apart."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.launch.arguments import Arguments, Option, UsageError, parse
from swarm.launch.docker_options import BUILT_IN, known_options, parse_help

OPTIONS = (
    Option(("detach", "d"), "", takes_value=False),
    Option(("sentinel",), "", takes_value=False),
    Option(("host-ip",), ""),
    Option(("primary-apls-ip", "apls-ip"), ""),
)

HELP = """
Usage:  docker container create [OPTIONS] IMAGE [COMMAND] [ARG...]

Options:
      --add-host list                  Add a custom host-to-IP mapping
      --brand-new string               An option of a newer engine
      --blkio-weight uint16            Block IO (relative weight),
                                       between 10 and 1000, or 0 to
                                       disable (default 0)
  -e, --env list                       Set environment variables
      --gpus gpu-request               GPU devices to add to the
      --help                           Print usage
      --init                           Run an init inside the container
  -i, --interactive                    Keep STDIN open even if not attached
  -P, --publish-all                    Publish all exposed ports to random ports
      --a-very-long-name-of-an-option list
                                       Its description on the next line
"""


def parsed(*words: str, sidecars: Sequence[str] = ()) -> Arguments:
    return parse(words, OPTIONS, BUILT_IN, sidecars=sidecars)


def test_both_ways_to_give_a_value() -> None:
    assert parsed("--host-ip", "1.2.3.4").own == {"host-ip": "1.2.3.4"}
    assert parsed("--host-ip=1.2.3.4").own == {"host-ip": "1.2.3.4"}
    assert parsed("--Host-IP=1.2.3.4").own == {"host-ip": "1.2.3.4"}


@pytest.mark.parametrize("words", [("--host-ip",), ("--host-ip", "-d"), ("--host-ip=",)])
def test_a_missing_value(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"^--host-ip: missing argument$"):
        parsed(*words)


def test_a_missing_value_of_dockers() -> None:
    with pytest.raises(UsageError, match=r"^--network: missing argument$"):
        parsed("--network", "--rm")
    with pytest.raises(UsageError, match=r"^-e: missing argument$"):
        parsed("-e")


def test_flags() -> None:
    assert parsed("-d").flag("detach")
    assert parsed("--detach=false", "--sentinel=TRUE").own == {
        "detach": "false",
        "sentinel": "true",
    }
    assert not parsed("-d=false").flag("detach")
    with pytest.raises(UsageError, match="--sentinel: maybe: expected true or false"):
        parsed("--sentinel=maybe")


def test_dockers_options_get_their_long_names() -> None:
    assert parsed("-e", "http_proxy=", "-eA=b", "-e=C=d", "-it", "--rm", "--pull=never").docker == [
        ("env", "http_proxy="),
        ("env", "A=b"),
        ("env", "C=d"),
        ("interactive", None),
        ("tty", None),
        ("rm", None),
        ("pull", "never"),
    ]
    assert parsed("-dit").docker == [("interactive", None), ("tty", None)]
    assert parsed("-h", "box", "-P", "-p=80:80").docker == [
        ("hostname", "box"),
        ("publish-all", None),
        ("publish", "80:80"),
    ]


def test_the_first_name_of_an_option_wins() -> None:
    for words in (
        ("--apls-ip=1", "--primary-apls-ip=2"),
        ("--primary-apls-ip=2", "--apls-ip=1"),
    ):
        assert parsed(*words).own == {"primary-apls-ip": "2"}
    assert parsed("--apls-ip=1").own == {"primary-apls-ip": "1"}


def test_what_nobody_knows_goes_to_the_program() -> None:
    found = parsed("--verbose", "word", "-z", "--", "--host-ip", "-d")
    assert found.rest == ["--verbose", "word", "-z", "--host-ip", "-d"]
    assert found.unknown == ["--verbose", "-z"]
    assert found.own == {}


def test_options_of_the_second_container() -> None:
    found = parsed(
        *("--ml-image=tf", "--ml-cmd", "a b", "--ml-w", "/x", "--ml-it", "--ml-env=A=1"),
        *("--ml-gpus", "all", "--ml-privileged", "--ml-pid-main", "--ml-volumes-from-main=false"),
        sidecars=["ml"],
    )
    assert found.sidecars["ml"] == [
        ("image", "tf"),
        ("cmd", "a b"),
        ("workdir", "/x"),
        ("interactive", None),
        ("tty", None),
        ("env", "A=1"),
        ("gpus", "all"),
        ("privileged", None),
        ("pid-main", "true"),
        ("volumes-from-main", "false"),
    ]
    assert parsed("--name=x", sidecars=["ml"]).sidecars == {}


def test_a_declared_sidecar() -> None:
    found = parsed(
        "--Log-image=a", "--sidecar=log", "--log-audit-e", "B=1", "--sidecar", "log-audit"
    )
    assert found.sidecars == {"log": [("image", "a")], "log-audit": [("env", "B=1")]}
    assert parsed("--", "--sidecar=x").rest == ["--sidecar=x"]
    for words in (["--sidecar"], ["--sidecar", "--name"], ["--sidecar="]):
        with pytest.raises(UsageError, match=r"^--sidecar: missing argument$"):
            parsed(*words)
    with pytest.raises(UsageError, match=r"^--sidecar: ../x: bad name$"):
        parsed("--sidecar=../x")


def test_help_and_dockers_hostname_share_a_letter() -> None:
    options = (*OPTIONS, Option(("help",), "", takes_value=False))
    for words in (["-h"], ["-h", "--rm"], ["-d", "-h"]):
        assert parse(words, options, BUILT_IN).flag("help")
    found = parse(["-h", "box"], options, BUILT_IN)
    assert found.docker == [("hostname", "box")] and not found.flag("help")


@pytest.mark.parametrize(
    ("word", "sidecars"),
    [
        ("--ml-image=x", []),
        ("--mlfoo", ["ml"]),
        ("--ml-wrong=1", ["ml"]),
        ("--ml-", ["ml"]),
        ("--log-wrong", ["log"]),
    ],
)
def test_sidecar_options_that_do_not_fit(word: str, sidecars: list[str]) -> None:
    name = word.partition("=")[0]
    with pytest.raises(UsageError, match=f"^Error: {name} is an unsupported option.$"):
        parsed(word, sidecars=sidecars)


@given(
    st.lists(
        st.text(max_size=12)
        | st.sampled_from(["--ml-e", "-e", "--", "-d=", "--rm", "-h", "--sidecar", "a"])
    )
)
def test_no_command_line_does_more_than_complain(words: list[str]) -> None:
    for sidecars in ([], ["ml"]):
        try:
            parsed(*words, sidecars=sidecars)
        except UsageError:
            continue


def test_the_engines_help_is_understood() -> None:
    found = parse_help(HELP)
    assert found.takes_value == {
        "add-host": True,
        "brand-new": True,
        "blkio-weight": True,
        "env": True,
        "gpus": True,
        "help": False,
        "init": False,
        "interactive": False,
        "publish-all": False,
        "a-very-long-name-of-an-option": True,
    }
    assert found.short == {"e": "env", "i": "interactive", "P": "publish-all"}


def test_without_an_engine_the_table_serves() -> None:
    assert known_options(None) is BUILT_IN
    assert known_options("/nowhere/docker") is BUILT_IN
    assert set(BUILT_IN.short.values()) <= set(BUILT_IN.takes_value)
