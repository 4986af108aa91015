"""Write what follows from the code: `errors.md`, `state-machine.md`, `commands.md`, and the
diagrams of `explanation/ledger.md`.

    python docs/reference/generate.py

A test compares the pages with what this writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_type_hints

from swarm.error_catalogue import CATALOGUE
from swarm.ledger.consensus import steps
from swarm.ledger.state import (
    DISPATCH,
    TABLES,
    authorities,
    contracts,
    evictions,
    evidence,
    ids,
    membership,
    records,
    recoveries,
    rounds,
    taskrunners,
    tasks,
)
from swarm.ledger.state.draft import MAX_VALIDATORS
from swarm.ledger.state.machine import MAX_AHEAD
from swarm.ledger.state.transitions import ANY, Transitions
from swci.commands import contexts, general, nodes
from swci.commands import contracts as contract_commands
from swci.commands import taskrunners as runner_commands
from swci.commands import tasks as task_commands
from swci.output import MAX_MESSAGES

HERE = Path(__file__).parent

SECTIONS = (
    ("SW10", "General"),
    ("SW11", "Making certificates"),
    ("SW12", "Identity and trust"),
    ("SW2", "Mesh of network nodes"),
    ("SW3", "Ledger"),
    ("SW4", "Verdicts of the state machine"),
    ("SW5", "API"),
    ("SW6", "Learner and merging"),
    ("SW7", "Operator"),
    ("SW8", "Command interface"),
    ("SW9", "Launch commands"),
)

DIAGRAMS: tuple[Transitions, ...] = (
    membership.TRANSITIONS,
    authorities.TRANSITIONS,
    evictions.TRANSITIONS,
    tasks.TRANSITIONS,
    taskrunners.TRANSITIONS,
    taskrunners.PEER_TRANSITIONS,
    rounds.CONTRACT_STATES,
    rounds.MEMBER_STATES,
)

RECORDS = {
    "nodes": records.Node,
    "cas": records.Authority,
    "evictions": records.Eviction,
    "evidence": records.Evidence,
    "recoveries": records.Recovery,
    "tasks": records.Task,
    "taskrunners": records.Taskrunner,
    "contracts": records.Contract,
    "schemas": records.Schema,
    "meta": records.Settings,
}

ERRORS_INTRO = """# Error codes

Every error has a code that stays the same, a meaning and a remedy. A message adds the cause: the
file, node or value that it is about.

Codes SW4xxx are verdicts: the transaction is on the ledger, the state machine refused it, and
nothing has changed. All network nodes come to the same verdict.
"""

STATE_INTRO = """# State machine

What the ledger's transactions do. The tables here are the ones that the code runs by; a change of
state that is not in them cannot happen. How blocks come about is in
[the ledger](../explanation/ledger.md), why rounds are safe in [rounds](../explanation/rounds.md).

An operation succeeds as a whole or is refused as a whole, with one of the codes SW4xxx of
[errors](errors.md). A refused transaction uses up its id and changes nothing else. An id belongs to
its sender and is remembered until the transaction has expired, at most {ahead} heights later.
"""

BOUNDS = (
    ("validators", MAX_VALIDATORS, "further SNs follow the log and serve the API"),
    (
        "nodes of one certificate",
        membership.MAX_NODES_PER_KEY,
        "its oldest one that is in no training and no task gives way",
    ),
    ("nodes of one organisation", membership.MAX_NODES_PER_ORGANISATION, ""),
    (
        "CAs",
        authorities.MAX_AUTHORITIES,
        f"{authorities.MAX_PENDING_PER_SN} of one SN waiting for votes",
    ),
    (
        "evictions",
        evictions.MAX_EVICTIONS,
        f"{evictions.MAX_PENDING_PER_ORGANISATION} of one organisation waiting for votes",
    ),
    ("cases against one validator", evidence.MAX_CASES, "more say nothing new"),
    ("recoveries", recoveries.MAX_RECOVERIES, ""),
    (
        "tasks of one organisation",
        tasks.MAX_PER_ORGANISATION,
        f"{tasks.MAX_LINES} lines of {tasks.MAX_LINE} characters, {tasks.MAX_BODY} in all",
    ),
    ("taskrunners of one organisation", taskrunners.MAX_PER_ORGANISATION, ""),
    (
        "pairs in one task",
        taskrunners.MAX_PAIRS,
        f"{taskrunners.MAX_PAIRS_PER_KEY} of one key",
    ),
    ("contracts of one organisation", contracts.MAX_PER_ORGANISATION, ""),
    (
        "learners in one contract",
        contracts.MAX_MEMBERS,
        f"{contracts.MAX_MEMBERS_PER_KEY} of one key; those that are gone give way",
    ),
    ("rounds in a contract's history", rounds.HISTORY, "older ones remain in the blocks"),
    (
        "transactions of one sender that have not expired",
        ids.MAX_PER_SENDER,
        "their ids are remembered until they have",
    ),
)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in row] for row in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


def errors() -> str:
    """The page of error codes."""
    parts = [ERRORS_INTRO]
    for prefix, title in SECTIONS:
        codes = [code for code in sorted(CATALOGUE) if code.startswith(prefix)]
        if codes:
            parts.append(f"## {title}\n")
        for code in codes:
            entry = CATALOGUE[code]
            meaning = entry.meaning[0].upper() + entry.meaning[1:]
            parts.append(f"### {code}\n\n{meaning}.\n\nRemedy: {entry.remedy}.\n")
    return "\n".join(parts)


def diagram(transitions: Transitions) -> str:
    """A state diagram that Markdown viewers draw."""
    names = {state: state.replace("-", "_") for row in transitions.rows for state in row[0:3:2]}
    arrows: dict[tuple[str, str], list[str]] = {}
    for row in transitions.rows:
        if row.source != ANY:
            arrows.setdefault((names[row.source], names[row.target]), []).append(row.event)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {transitions.initial}"]
    lines += [f"    {one} --> {other}: {', '.join(e)}" for (one, other), e in arrows.items()]
    return "\n".join([*lines, "```\n"])


def state_machine() -> str:
    """The page of the state machine."""
    parts = [STATE_INTRO.format(ahead=MAX_AHEAD), "## Operations\n"]
    rows = [
        (f"`{one.name}`", ", ".join(sorted(one.roles)), one.summary) for one in DISPATCH.values()
    ]
    parts.append(table(("Operation", "Sent by", "Purpose"), rows))
    parts.append(
        "An argument in brackets may be left out. Byte strings are hexadecimal in the API's JSON."
        " Unknown arguments are refused.\n"
    )
    for one in DISPATCH.values():
        rows_ = [
            (f"`{name}`" if field.required else f"[`{name}`]", field.what)
            for name, field in one.fields.items()
        ]
        parts.append(f"### {one.name}\n\n{table(('Argument', 'Shape'), rows_)}")
    parts.append("## States\n")
    for transitions in DIAGRAMS:
        rows = [(row.source, f"`{row.event}`", row.target, row.when) for row in transitions.rows]
        parts.append(f"### {transitions.title}\n\n{diagram(transitions)}")
        parts.append(table(("From", "Event", "To", "When"), rows))
    parts.append("## Tables\n")
    for name in TABLES:
        kind = RECORDS[name]
        fields = ", ".join(f"`{field}`" for field in get_type_hints(kind))
        about = (kind.__doc__ or "").strip().partition("\n")[0]
        parts.append(f"- **{name}** — {about}\n  {fields}")
    parts.append("\n## Bounds\n")
    parts.append(table(("Of", "At most", "Remark"), BOUNDS))
    return "\n".join(parts)


COMMANDS_INTRO = """# Commands

What the command interface (SWCI) understands, in scripts, at its prompt and for programs. Keywords
may be written in any case; names and paths are taken as they are. `[…]` may be left out, `A|B` is
one of several, `<text...>` is the rest of the line as it stands. `HELP` shows this list, `HELP`
with the first words of a command its text.

A session begins with the start-up script and goes on with standard input: a
[prompt](../how-to/commands.md) where that is a terminal. All commands act on the active context,
which `SWITCH CONTEXT` chooses. Each command counts, whether it fails or not; `SWCI:<n>` is the
number of the next one. Blank lines and comments (`#`) do not count.

A command that fails prints lines that begin with `ERROR : `, and the session goes on. After
`EXIT ON FAILURE` it ends there, with status 1; otherwise the status is 0, also after failures. It
is 130 when a script was interrupted.

## JSON

With `--output json` (`SWCI_OUTPUT=json`) nothing is printed but one document for each command, on
one line:

| Key | Value |
| --- | --- |
| `number` | the command's number in the session, from 0; null for a session that cannot begin |
| `command` | the line as it was given |
| `ok` | whether it was carried out |
| `result` | what the command gives, as listed below; null for those that give nothing |
| `messages` | what people read on the way, a list of lines; at most the last {messages} |
| `error` | null, or `code`, `causes` (a list of lines) and `remedy`; see [errors](errors.md) |

Below, `{{a, b?}}` is an object, of which `b` may be absent, `{{a: {{b}}}}` one whose `a` is an
object, `[name]` a list of texts, and `[{{a, b}}]` a list of objects; `<name>` stands for any key.
Where people read `-`, the value is null. Times are ISO 8601 in UTC,
to the millisecond. `created` is the height of the ledger's block that made the object.
"""

COMMAND_SECTIONS = {
    "Contexts": contexts,
    "Training contracts": contract_commands,
    "Tasks": task_commands,
    "Taskrunners": runner_commands,
    "Nodes": nodes,
    "The session": general,
}


def commands() -> str:
    """The page of the command interface."""
    parts = [COMMANDS_INTRO.format(messages=MAX_MESSAGES)]
    for title, module in COMMAND_SECTIONS.items():
        parts.append(f"## {title}\n")
        for one in module.COMMANDS:
            gives = f"Result: `{one.result}`.\n" if one.result else "Result: null.\n"
            help_ = re.sub(r"<[a-z_]+>", r"`\g<0>`", one.help)
            parts.append(f"**`{one.usage}`**\n\n{help_}\n\n{gives}")
    return "\n".join(parts)


def with_diagrams(page: Path) -> str:
    """A page written by hand, with the diagram of each table that it names between two marks."""

    def drawn(match: re.Match[str]) -> str:
        return f"{match[1]}\n{diagram(TITLED[match[2]])}{match[3]}"

    return MARKS.sub(drawn, page.read_text())


TITLED = {table.title: table for table in (*DIAGRAMS, steps.TRANSITIONS)}
MARKS = re.compile(r"(<!-- diagram: ([^>]+) -->)\n.*?(<!-- end -->)", re.DOTALL)
LEDGER = HERE.parent / "explanation" / "ledger.md"
PAGES = {
    "errors.md": errors,
    "state-machine.md": state_machine,
    "commands.md": commands,
    "../explanation/ledger.md": lambda: with_diagrams(LEDGER),
}


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page())


if __name__ == "__main__":
    main()
