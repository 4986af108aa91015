"""What programs get: for each command of all transcripts one document, as the page says."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from swarm.error_catalogue import CATALOGUE
from swci.commands import TABLE, language
from swci.json_lines import run_json, tell_error
from swci.output import MAX_MESSAGES, JsonOutput
from swci.result import number, several
from swci.script import run_line
from swci.session import Session
from tests.swci import test_transcripts as transcripts
from tests.swci.network import FakeNetwork

HERE = Path(__file__).parent
GOLDEN = HERE / "documents.jsonl"

Document = dict[str, Any]


@lru_cache(maxsize=1)
def documents() -> tuple[tuple[Document, str], ...]:
    """Each command of the transcripts as a document, with what people read."""
    return tuple(pair for path in transcripts.TRANSCRIPTS for pair in _of(path.read_text()))


def _of(text: str) -> Iterator[tuple[Document, str]]:
    network = FakeNetwork()
    session = Session(
        language(), network.connect, user_directory=HERE / "usr", env={}, clock=network.clock
    )
    for event in transcripts.events(text):
        if event.happens:
            transcripts.happen(network, event.text)
            continue
        stream = io.StringIO()
        run_json(session, event.text, stream)
        lines = stream.getvalue().splitlines()
        assert len(lines) == bool(event.text.strip() and not event.text.startswith("#"))
        for line in lines:
            yield json.loads(line), event.shown


def test_each_command_gives_one_document_that_agrees_with_the_text() -> None:
    assert len(documents()) > 150
    for document, shown in documents():
        assert list(document) == ["number", "command", "ok", "result", "messages", "error"]
        assert document["ok"] == (document["error"] is None) == ("    ERROR : " not in shown)
        if document["error"]:
            assert document["error"]["code"] in CATALOGUE
            for cause in document["error"]["causes"]:
                assert cause in shown
        for message in document["messages"]:
            assert message.strip() in shown


def test_results_have_the_documented_shapes() -> None:
    seen = set()
    for document, _ in documents():
        if document["ok"]:
            command = language().parse(document["command"]).command
            seen.add(command.grammar)
            check_shape(command.result, document["result"], document["command"])
    assert seen == {command.grammar for command in TABLE}, "no transcript shows some"


def check_shape(shape: str, value: Any, where: str) -> None:
    """Hold a value against a shape as `Command.result` has it."""
    if not shape:
        assert value is None, where
    elif shape.startswith("["):
        assert isinstance(value, list), where
        for number, one in enumerate(value):
            check_shape(shape[1:-1], one, f"{where}[{number}]")
    elif shape.startswith("{"):
        assert isinstance(value, dict), where
        keys = dict(parts(shape))
        for key, one in value.items():
            found = keys.get(key, keys.get(f"{key}?", keys.get("<variable>", keys.get("<name>"))))
            assert found is not None, f"{where}: {key} is not documented"
            if found:
                check_shape(found, one, f"{where}.{key}")
            else:
                assert not isinstance(one, list), f"{where}.{key}"
        needed = {key for key in keys if key[-1] not in "?>"}
        assert needed <= set(value), where
    else:
        assert isinstance(value, str), where


def parts(shape: str) -> Iterator[tuple[str, str]]:
    """Keys of an object's shape, and the shapes of their values, "" for plain ones."""
    depth, begin = 0, 1
    for at, character in enumerate(shape):
        depth += (character in "{[") - (character in "}]")
        if (character == "," and depth == 1) or (character == "}" and depth == 0):
            key, _, inner = shape[begin:at].strip().partition(": ")
            yield key, inner
            begin = at + 1


def test_shapes_are_told_apart() -> None:
    """The check itself finds what is wrong."""
    shape = "{a, b?: [{c}], d: {<name>}}"
    check_shape(shape, {"a": 1, "b": [{"c": 2}], "d": {"x": 3}}, "")
    check_shape(shape, {"a": None, "d": {}}, "")
    for wrong in (
        {"d": {}}, {"a": 1, "d": {}, "e": 1}, {"a": 1, "b": [{}], "d": {}}, {"a": [], "d": {}},
        {"a": 1, "b": {}, "d": {}}, [],
    ):  # fmt: skip
        with pytest.raises(AssertionError):
            check_shape(shape, wrong, "")


def test_documents_of_a_training() -> None:
    """The whole session of the MNIST example; `SWARM_REWRITE=1` writes the file."""
    found = [
        json.dumps(document)
        for document, _ in _of((HERE / "transcripts" / "02-mnist.txt").read_text())
    ]
    text = "\n".join(found) + "\n"
    if transcripts.REWRITE:
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_the_how_to_shows_what_is() -> None:
    """Its sessions, cut where the page has an ellipsis, and its document."""
    page = (HERE.parents[1] / "docs" / "how-to" / "commands.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    network = FakeNetwork()
    session = Session(language(), network.connect, user_directory=HERE, env={}, clock=network.clock)
    shown = io.StringIO()
    for line in "\n".join(blocks[:2]).replace("swarm", "c").splitlines():
        assert run_line(session, line, shown).ok, line
    network.world.task("build", "MAKE_USER_CONTAINER")
    network.world.task("run", "RUN_SWARM", "build")
    session.count = 4
    said = io.StringIO()
    for line in re.findall(r"^SWCI:\d+ > (.*)$", blocks[3], re.MULTILINE):
        run_line(session, line, said)
    for expected, found in zip(blocks[3].splitlines(), said.getvalue().splitlines(), strict=True):
        assert found.startswith(expected.rstrip("…")), found
    session.count = 2
    document = io.StringIO()
    run_json(session, "LIST TASKS", document)
    assert document.getvalue() == blocks[2].splitlines()[1] + "\n"


def test_an_interrupted_wait_has_its_document() -> None:
    network = FakeNetwork()
    session = Session(language(), network.connect, user_directory=HERE, env={}, clock=network.clock)
    stream = io.StringIO()
    network.clock.at(3, lambda: network.act("interrupt"))
    with pytest.raises(KeyboardInterrupt):
        run_json(session, "SLEEP 10", stream)
    document = json.loads(stream.getvalue())
    assert (document["ok"], document["error"]["code"]) == (False, "SW8030")


def test_a_session_that_cannot_begin() -> None:
    stream = io.StringIO()
    tell_error("SW8001", "cannot read it", stream)
    document = json.loads(stream.getvalue())
    assert document["number"] is None and not document["ok"]
    assert document["error"] == {
        "code": "SW8001",
        "causes": ["cannot read it"],
        "remedy": CATALOGUE["SW8001"].remedy,
    }


def test_messages_are_bounded() -> None:
    out = JsonOutput()
    for count in range(MAX_MESSAGES + 5):
        out.line(str(count))
    assert out.document(0, "x", ok=True)["messages"][0] == "5"


def test_values_that_json_lacks() -> None:
    assert [number(text) for text in ("", "0.5", "nan", "-inf", "3")] == [
        None, 0.5, "nan", "-inf", 3.0,
    ]  # fmt: skip
    assert several("X", "xs", []).lines == ()
