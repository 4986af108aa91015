"""One session of the command interface: contexts, working directory, and what a line does.

The script runner and the prompt are faces of it; they differ in where lines come from and in how
results are shown, and share everything else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swarm.api.models import Verdict
from swarm.errors import SwarmFault
from swci.command import ABSENT, CommandError
from swci.directory import Directory
from swci.language import Language, Parsed
from swci.output import Output
from swci.ports import Client, Clock, Connect, Record

log = logging.getLogger("swci")

# Environment of this process that a context starts with: the settings that commands look at.
SETTINGS = {
    "SWCI_RUN_TASK_MAX_WAIT_TIME": "120",
    "SWCI_GENERIC_TASK_MAX_WAIT_TIME": "120",
}
DEFECT = "SW1001"
_OLD_SETTING = "SWCI_TASK_MAX_WAIT_TIME"  # once the name for both


@dataclass
class Context:
    """A network node to talk to, with settings."""

    name: str
    host: str
    port: int
    service: bool  # reached through a reverse proxy
    client: Client
    env: dict[str, str]
    version: str
    height: int = 0  # of our last write: reads are at least as new, from whichever node


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `leave`: the session is over."""

    ok: bool
    leave: bool = False


class Session:
    """State of a session, and `execute`."""

    def __init__(
        self,
        language: Language,
        connect: Connect,
        *,
        user_directory: Path,
        env: Mapping[str, str],
        clock: Clock | None = None,
        confined: bool = False,
    ) -> None:
        self.language = language
        self.connect = connect
        self.directory = Directory(user_directory, confined=confined)
        self.clock = clock or Clock()
        self.contexts: dict[str, Context] = {}
        self.active: Context | None = None
        self.exit_on_failure = False
        self.leaving = False
        self.count = 0  # commands executed so far: the number in the prompt
        self._env = env
        self._lent: tuple[Client, ...] = ()  # connections that are another session's

    @property
    def prompt(self) -> str:
        return f"SWCI:{self.count} > "

    @property
    def client(self) -> Client:
        """Client of the active context. Raises CommandError when there is none."""
        return self.context().client

    def context(self, name: str | None = None) -> Context:
        """The named context, or the active one. Raises CommandError."""
        if name is not None:
            if name not in self.contexts:
                raise CommandError(ABSENT, f"there is no context {name}")
            return self.contexts[name]
        if self.active is None:
            raise CommandError(
                "SW8021", "no context is active; use CREATE CONTEXT, then SWITCH CONTEXT"
            )
        return self.active

    def submit(self, op: str, args: Mapping[str, Any]) -> Verdict:
        """Write to the ledger. Raises RemoteError with the reason when it is refused."""
        context = self.context()
        verdict = context.client.submit(op, args)
        context.height = max(context.height, verdict.height)
        return verdict

    def record(self, table: str, key: str) -> Record | None:
        """One record of the ledger, None if there is none; it shows our own writes."""
        context = self.context()
        return context.client.record(table, key, min_height=context.height)

    def table(self, name: str) -> dict[str, Record]:
        """All records of a table; they show our own writes."""
        context = self.context()
        return context.client.table(name, min_height=context.height)

    def default_env(self) -> dict[str, str]:
        """Settings that a new context starts with."""
        return {
            name: self._env.get(name) or self._env.get(_OLD_SETTING) or default
            for name, default in SETTINGS.items()
        }

    def parse(self, line: str) -> Parsed | None:
        """The command of a line; None for a blank line or comment. Raises CommandError."""
        text = line.strip()
        return None if not text or text.startswith("#") else self.language.parse(text)

    def execute(self, line: str, out: Output) -> Outcome:
        """Carry out one line. Whatever goes wrong becomes a line `ERROR : …`.

        KeyboardInterrupt passes through: the face decides what it ends.
        """
        text = line.strip()
        if not text or text.startswith("#"):
            return Outcome(ok=True)
        self.count += 1
        try:
            parsed = self.language.parse(text)
            result = parsed.command.handler(self, parsed.args, out)
        except CommandError as fault:
            out.error(fault.code, fault.lines)
        except SwarmFault as fault:
            out.error(fault.code, (fault.cause,), (str(fault),))
        except Exception as fault:  # a defect of ours ends the command, not the session
            log.exception("command failed: %s", text)
            cause = f"unexpected {type(fault).__name__}: {fault}"
            out.error(DEFECT, (cause,), (f"{DEFECT}: {cause}",))
        else:
            if result is not None:
                out.result(result)
            return Outcome(ok=True, leave=self.leaving)
        return Outcome(ok=False, leave=self.exit_on_failure)

    def fork(self) -> Session:
        """Another session, that begins where this one stands and uses its connections."""
        fork = copy(self)  # first of all which context is active: those below include it then
        contexts = dict(self.contexts)  # at once, as a command may be making one
        fork.directory = copy(self.directory)
        fork.contexts = {name: replace(c, env=dict(c.env)) for name, c in contexts.items()}
        fork.active = fork.contexts[fork.active.name] if fork.active else None
        fork._lent = tuple(context.client for context in contexts.values())
        return fork

    def close(self) -> None:
        """Close the connections of its contexts."""
        for context in self.contexts.values():
            if context.client not in self._lent:
                context.client.close()
