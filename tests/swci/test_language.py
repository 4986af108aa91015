"""The parser against any text, and against a slow obvious matcher."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swci.command import Command, CommandError, Element
from swci.commands import TABLE, language
from swci.language import MAX_LINE, Language

KEYWORDS = sorted(
    {
        word
        for command in TABLE
        for variant in command.variants
        for element in variant
        if element.kind in ("keyword", "choice")
        for word in element.text.split("|")
    }
)
WORDS = st.one_of(
    st.sampled_from(KEYWORDS),
    st.sampled_from(KEYWORDS).map(str.lower),
    st.text("abcXYZ019._-/:", min_size=1, max_size=8),
    st.integers(0, 99999).map(str),
)
COMMANDISH = st.lists(WORDS, min_size=1, max_size=9)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=200), COMMANDISH.map(" ".join)))
def test_any_line_is_parsed_or_explained(line: str) -> None:
    try:
        language().parse(line)
    except CommandError as fault:
        (message,) = fault.lines
        assert message
        assert "\n" not in message


def obvious(words: list[str]) -> tuple[str, dict[str, str]] | None:
    """Try each variant of each command in turn."""
    for command in TABLE:
        for variant in command.variants:
            args = match(variant, words)
            if args is not None:
                return command.grammar, args
    return None


def match(variant: tuple[Element, ...], words: list[str]) -> dict[str, str] | None:
    args = {}
    for position, element in enumerate(variant):
        if position >= len(words) or not element.matches(words[position]):
            return None
        if element.kind == "rest":
            return {**args, element.text: " ".join(words[position:])}
        if element.kind == "choice":
            args["choice"] = words[position].upper()
        elif element.kind != "keyword":
            args[element.text] = words[position]
    return args if len(words) == len(variant) else None


@st.composite
def nearly_commands(draw: st.DrawFn) -> list[str]:
    """A command with its arguments filled in, and sometimes one word changed, lost or added."""
    variant = draw(st.sampled_from([v for command in TABLE for v in command.variants]))
    words = []
    for element in variant:
        if element.kind in ("keyword", "choice"):
            word = draw(st.sampled_from(element.text.split("|")))
            words.append(draw(st.sampled_from([word.upper(), word.lower(), word.title()])))
        elif element.kind == "int":
            words.append(str(draw(st.integers(0, 9999))))
        else:
            words.append(draw(WORDS))
    change = draw(st.sampled_from(["none", "none", "drop", "add", "replace"]))
    place = draw(st.integers(0, len(words) - 1))
    if change == "drop" and len(words) > 1:
        del words[place]
    elif change == "add":
        words.insert(place, draw(WORDS))
    elif change == "replace":
        words[place] = draw(WORDS)
    return words


@settings(max_examples=300, deadline=None)
@given(st.one_of(nearly_commands(), COMMANDISH))
def test_agrees_with_the_obvious_matcher(words: list[str]) -> None:
    expected = obvious(words)
    try:
        parsed = language().parse(" ".join(words))
    except CommandError:
        assert expected is None
    else:
        assert (parsed.command.grammar, parsed.args) == expected


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("ASSIGN TASK to TO To with 2 PEERS", {"task": "to", "taskrunner": "To", "peers": "2"}),
        ("create CONTEXT Context With ip IP", {"context": "Context", "host": "IP"}),
        ("GET CONTEXT ENV x", {"variable": "x"}),
        ("GET CONTEXT ENV c x", {"context": "c", "variable": "x"}),
        ("WAIT FOR IP h 1 2", {"host": "h", "port": "1", "retries": "2"}),
        ("WAIT FOR IP h 1", {"host": "h", "port": "1"}),
        ("APPEND TASK BODY t 1   - a  b ", {"task": "t", "index": "1", "text": "  - a  b"}),
        ("LIST\tNODES", {}),
    ],
)
def test_arguments(line: str, args: dict[str, str]) -> None:
    assert language().parse(line).args == args


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "'' is not complete"),
        ("LIST NODESX", "expected CONTEXT, CONTEXTS, CONTRACTS, NODES"),
        (
            "ASSIGN TASK t TO r WITH few PEERS",
            "expected <peers>, ALL after ASSIGN TASK t TO r WITH",
        ),
        ("EXIT ON FAILURE MAYBE", "expected ON|OFF, the end of the line after EXIT ON FAILURE"),
        ("x" * (MAX_LINE + 1), f"at most {MAX_LINE} characters"),
        ("\x1b[31mLIST", "'?[31mLIST' is no command"),
    ],
)
def test_complaints(line: str, message: str) -> None:
    with pytest.raises(CommandError) as caught:
        language().parse(line)
    assert message in caught.value.lines[0]


def test_every_command_has_help_and_a_distinct_grammar() -> None:
    assert all(command.help.endswith(".") for command in TABLE)
    assert len({command.grammar for command in TABLE}) == len(TABLE)
    assert all(command.keywords for command in TABLE)


def test_a_small_language() -> None:
    def handler(*_: object) -> None:
        raise AssertionError("not called")

    small = Language([Command("SAY <word> [TWICE|THRICE]", "Say it.", handler)])
    assert small.parse("say TWICE twice").args == {"word": "TWICE", "choice": "TWICE"}
    assert [e.shown if e else None for e in small.expected_after(["say", "x"])] == [
        None,
        "TWICE|THRICE",
    ]
