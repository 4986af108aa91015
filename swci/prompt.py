"""The prompt: lines from a person, with history, completion, and Ctrl-C that ends only a wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from swarm.errors import SwarmFault
from swci.output import StreamOutput
from swci.ports import Record
from swci.script import Run, run_line
from swci.session import Outcome, Session

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document

INTERRUPTED = "INTERRUPTED : what the network has begun goes on"
REMEMBER = 3.0  # seconds that names of objects are kept for completion
HELP = "HELP"
_TABLES = {"task": "tasks", "taskrunner": "taskrunners", "contract": "contracts"}


class Suggestions:
    """What may stand next on a command line: keywords, names on the ledger, files."""

    def __init__(self, session: Session, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._monotonic = monotonic
        self._records: dict[tuple[str, str], tuple[float, dict[str, Record]]] = {}

    def after(self, text: str) -> list[str]:
        """Words that can follow, given the line up to the cursor."""
        words = text.split()
        begun = words.pop() if words and not text[-1:].isspace() else ""
        if words and words[0].upper() == HELP:
            found = self._keywords(words[1:])
        else:
            found = self._any(words, begun)
        return sorted({word for word in found if word.upper().startswith(begun.upper())})

    def _any(self, words: list[str], begun: str) -> list[str]:
        found: list[str] = []
        for element in self._session.language.expected_after(words):
            if element is None:
                continue
            if element.kind in ("keyword", "choice"):
                found += element.text.upper().split("|")
            else:
                found += self._values(element.text, words, begun)
        return found

    def _keywords(self, words: list[str]) -> list[str]:
        """What HELP can be asked about after these words."""
        commands = self._session.language.starting_with(words)
        return [c.keywords[len(words)] for c in commands if len(c.keywords) > len(words)]

    def _values(self, argument: str, words: list[str], begun: str) -> list[str]:
        if argument == "context":
            return list(self._session.contexts)
        if argument == "variable":
            return list(self._session.active.env) if self._session.active else []
        if argument in ("path", "directory"):
            return list(self._files(begun, only_directories=argument == "directory"))
        if argument in _TABLES:
            return list(self._on_ledger(_TABLES[argument]))
        nodes = self._on_ledger("nodes").items() if argument in ("node", "swop_uid") else ()
        if argument == "node":
            return [str(node["name"] or uid) for uid, node in nodes if node["active"]]
        if argument == "swop_uid":
            return [uid for uid, node in nodes if node["active"] and node["type"] == "SWOP"]
        if argument == "swop":
            runner = self._on_ledger("taskrunners").get(words[-1], {"swops": {}})
            return [
                key for uid, swop in runner["swops"].items() for key in (uid, str(swop["index"]))
            ]
        return []

    def _on_ledger(self, table: str) -> dict[str, Record]:
        """Records of a table; none while the network cannot be asked."""
        context = self._session.active
        if context is None:
            return {}
        at, records = self._records.get((context.name, table), (-REMEMBER, {}))
        if self._monotonic() - at < REMEMBER:
            return records
        # Noted first: while an answer takes its time, no key that is pressed asks again.
        self._records[context.name, table] = (self._monotonic(), records)
        try:
            records = context.client.table(table)
        except SwarmFault:
            records = {}
        self._records[context.name, table] = (self._monotonic(), records)
        return records

    def _files(self, begun: str, *, only_directories: bool) -> Iterator[str]:
        parent, slash, _ = begun.rpartition("/")
        try:
            entries = sorted(self._session.directory.real(parent + slash or ".").iterdir())
            for entry in entries:
                if entry.is_dir():
                    yield f"{parent}{slash}{entry.name}/"
                elif not only_directories:
                    yield f"{parent}{slash}{entry.name}"
        except OSError:
            return


def run_prompt(session: Session, history: Path, stream: TextIO, run: Run | None = None) -> Outcome:
    """Read and execute lines until EXIT, Ctrl-D, or a failure under EXIT ON FAILURE.

    Several lines that were pasted together are executed one after the other, as in a script. Ctrl-C
    ends the command that runs, and what was to follow it, and not the session.
    """
    editor = _editor(Suggestions(session), history)
    while True:
        try:
            text = editor.prompt(session.prompt)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return Outcome(ok=True, leave=True)
        outcome = run_typed(session, text, stream, run)
        if outcome.leave:
            return outcome


def run_typed(session: Session, text: str, stream: TextIO, run: Run | None = None) -> Outcome:
    """Execute what was typed, or pasted; Ctrl-C ends what is being waited for.

    What was typed stands at the prompt already; of several lines, each is shown with its results.
    """
    lines = text.splitlines()
    run = run or (run_line if len(lines) > 1 else _run_shown)
    outcome = Outcome(ok=True)
    try:
        for line in lines:
            outcome = run(session, line, stream)
            if outcome.leave:
                break
    except KeyboardInterrupt:
        if run in (run_line, _run_shown):
            StreamOutput(stream).line(INTERRUPTED)
        return Outcome(ok=True)
    return outcome


def _run_shown(session: Session, line: str, stream: TextIO) -> Outcome:
    out = StreamOutput(stream)
    try:
        return session.execute(line, out)
    finally:
        out.end_marks()


def _editor(suggestions: Suggestions, history: Path) -> PromptSession[str]:
    # Imported here: a script needs none of it.
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory

    class SuggestionCompleter(Completer):
        def get_completions(
            self, document: Document, complete_event: CompleteEvent
        ) -> Iterable[Completion]:
            text = document.text_before_cursor
            begun = text.split()[-1] if text and not text[-1].isspace() else ""
            for word in suggestions.after(text):
                yield Completion(word, start_position=-len(begun))

    kept: History
    try:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
        history.chmod(0o600)  # also one that was there before
        kept = FileHistory(str(history))
    except OSError:  # a read-only home: lines are remembered for this session
        kept = InMemoryHistory()
    return PromptSession(history=kept, completer=SuggestionCompleter(), complete_in_thread=True)
