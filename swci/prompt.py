"""The prompt: lines from a person, with history, completion, and Ctrl-C that ends only a wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from swarm.errors import SwarmFault
from swci.output import StreamOutput
from swci.script import Run
from swci.session import Outcome, Session

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document

REMEMBER = 3.0  # seconds that names of objects are kept for completion
_TABLES = {"task": "tasks", "taskrunner": "taskrunners", "contract": "contracts"}


class Suggestions:
    """What may stand next on a command line: keywords, names on the ledger, files."""

    def __init__(self, session: Session, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._monotonic = monotonic
        self._names: dict[str, tuple[float, list[str]]] = {}

    def after(self, text: str) -> list[str]:
        """Words that can follow, given the line up to the cursor."""
        words = text.split()
        begun = words.pop() if words and not text[-1:].isspace() else ""
        found: list[str] = []
        for element in self._session.language.expected_after(words):
            if element is None:
                continue
            if element.kind in ("keyword", "choice"):
                found += element.text.upper().split("|")
            else:
                found += self._values(element.text, begun)
        return sorted({word for word in found if word.upper().startswith(begun.upper())})

    def _values(self, argument: str, begun: str) -> list[str]:
        if argument == "context":
            return list(self._session.contexts)
        if argument == "variable":
            return list(self._session.active.env) if self._session.active else []
        if argument in ("path", "directory"):
            return list(self._files(begun, only_directories=argument == "directory"))
        if argument in _TABLES:
            return self._on_ledger(_TABLES[argument])
        return []

    def _on_ledger(self, table: str) -> list[str]:
        """Names of a table; none while the network cannot be asked."""
        at, names = self._names.get(table, (-REMEMBER, []))
        if self._monotonic() - at < REMEMBER or self._session.active is None:
            return names
        try:
            names = list(self._session.active.client.table(table))
        except SwarmFault:
            names = []
        self._names[table] = (self._monotonic(), names)
        return names

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

    Ctrl-C ends the command that runs, and not the session.
    """
    editor = _editor(Suggestions(session), history)
    while True:
        try:
            line = editor.prompt(session.prompt)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return Outcome(ok=True, leave=True)
        try:
            outcome = (run or run_interruptible)(session, line, stream)
        except KeyboardInterrupt:  # it has been told
            continue
        if outcome.leave:
            return outcome


def run_interruptible(session: Session, line: str, stream: TextIO) -> Outcome:
    """Execute a line; Ctrl-C ends what it is waiting for, and the session goes on."""
    out = StreamOutput(stream)
    try:
        return session.execute(line, out)
    except KeyboardInterrupt:
        out.line("INTERRUPTED : what the network has begun goes on")
        return Outcome(ok=True)
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
        kept = FileHistory(str(history))
    except OSError:  # a read-only home: lines are remembered for this session
        kept = InMemoryHistory()
    return PromptSession(history=kept, completer=SuggestionCompleter(), complete_in_thread=True)
