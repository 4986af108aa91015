"""Tasks: definitions that are written line by line, frozen, and then run any number of times."""

from __future__ import annotations

from typing import Any

from swarm.identity import Role
from swarm.ledger.state import args as a
from swarm.ledger.state.draft import Context, Draft
from swarm.ledger.state.operation import BUILT_IN, FULL, IN_USE, Operation, created_by
from swarm.ledger.state.records import Task
from swarm.ledger.state.transitions import Transition, Transitions
from swarm.ledger.state.verdict import Refused

ROOT = "ROOTTASK"
ROOT_TYPE = "ROOT_TASK"
RUN_SWARM = "RUN_SWARM"
TYPES = (RUN_SWARM, "MAKE_USER_CONTAINER", "MAKE_SWARM_USER_CONTENT", "PULL_IMAGE")

# Bounds, so that no organisation fills everybody's disk.
MAX_PER_ORGANISATION = 1000
MAX_LINES = 1000
MAX_LINE = 512  # characters
MAX_BODY = 48 * 1024  # characters

TRANSITIONS = Transitions(
    "Task",
    "absent",
    (
        Transition("absent", "task.create", "open", "its name is not taken"),
        Transition("open", "task.append", "open", "lines are added or overwritten"),
        Transition("open", "task.finalize", "finalized", "it cannot be changed from here on"),
        Transition("finalized", "task.finalize", "finalized", "nothing is left to do"),
        Transition("open", "task.delete", "absent", "its name is free again"),
        Transition(
            "finalized",
            "task.delete",
            "absent",
            "it is no task's prerequisite, and no taskrunner holds it",
        ),
    ),
)

WORDS = a.text(1, 160)


def create(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Create an empty task."""
    name = args["name"]
    if draft.task(name) is not None:
        raise Refused("SW4021", f"a task {name} exists already")
    if draft.task(args["prereq"]) is None:
        raise Refused("SW4020", f"there is no task {args['prereq']} to be the prerequisite")
    organisation = context.sender.organisation
    if created_by(draft, "tasks", organisation) >= MAX_PER_ORGANISATION:
        raise Refused(FULL, f"your organisation has created {MAX_PER_ORGANISATION} tasks already")
    task = Task(
        name=name,
        type=args["type"],
        author=args["author"],
        prereq=args["prereq"],
        outcome=args["outcome"],
        body=[],
        finalized=False,
        created=context.header.height,
        creator=context.sender.fingerprint,
        organisation=organisation,
    )
    draft.put("tasks", name, task)
    return {}


def _own(draft: Draft, context: Context, name: str) -> Task:
    """The task for changing; only its creator may, and everybody of that organisation."""
    task = draft.edit_task(name)
    if task is None:
        raise Refused("SW4020", f"there is no task {name}")
    sender = context.sender  # whose CA may have been replaced since
    if sender.organisation != task["organisation"] and sender.fingerprint != task["creator"]:
        raise Refused("SW4024", f"task {name} was created by another organisation")
    return task


def _own_open(draft: Draft, context: Context, name: str, event: str) -> Task:
    task = _own(draft, context, name)
    if not TRANSITIONS.allows("finalized" if task["finalized"] else "open", event):
        raise Refused("SW4022", f"task {name} is finalized")
    return task


def append(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Write lines from `index` (1 is the first line) on, over what was there."""
    task = _own_open(draft, context, args["task"], "task.append")
    start, lines, body = args["index"] - 1, args["lines"], task["body"]
    if start > len(body):
        raise Refused(
            a.MALFORMED, f"line {start + 1} would leave a gap; {len(body)} lines are there"
        )
    body[start : start + len(lines)] = lines
    if len(body) > MAX_LINES or sum(map(len, body)) > MAX_BODY:
        raise Refused(
            FULL, f"a task has at most {MAX_LINES} lines and {MAX_BODY} characters in all"
        )
    return {"lines": len(body)}


def finalize(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Freeze a task."""
    _own(draft, context, args["task"])["finalized"] = True
    return {}


def delete(draft: Draft, context: Context, args: dict[str, Any]) -> dict[str, Any]:
    """Delete a task; a finalized one only when nothing refers to it."""
    name = args["task"]
    if name == ROOT:
        raise Refused(BUILT_IN, f"{ROOT} is where all prerequisites end")
    task = _own(draft, context, name)
    if task["finalized"]:
        _check_unused(draft, name)
    TRANSITIONS.step("finalized" if task["finalized"] else "open", "task.delete")
    draft.delete("tasks", name)
    return {}


def _check_unused(draft: Draft, name: str) -> None:
    """Refuse while others rely on what the name stands for."""
    after = sum(task["prereq"] == name for _, task in draft.items("tasks"))
    if after:
        raise Refused(IN_USE, f"task {name} is the prerequisite of {_some(draft, name, after)}")
    for runner, record in draft.items("taskrunners"):
        if record["task"] == name:
            raise Refused(IN_USE, f"taskrunner {runner} is {record['state']} with task {name}")


def _some(draft: Draft, name: str, count: int) -> str:
    first = next(other for other, task in draft.items("tasks") if task["prereq"] == name)
    return f"task {first}" + (f" and {count - 1} more" if count > 1 else "")


SWCI = frozenset({Role.SWCI})
CREATE = {
    "name": a.NAME,
    "type": a.one_of(*TYPES),
    "author": WORDS,
    "prereq": a.NAME,
    "outcome": WORDS,
}
APPEND = {
    "task": a.NAME,
    "index": a.integer(1, MAX_LINES),
    "lines": a.list_of(a.text(0, MAX_LINE, tabs=True), MAX_LINES, least=1),
}
ONE = {"task": a.NAME}

OPERATIONS = (
    Operation("task.create", SWCI, CREATE, create, "create an empty task"),
    Operation("task.append", SWCI, APPEND, append, "write lines of its body"),
    Operation("task.finalize", SWCI, ONE, finalize, "freeze it"),
    Operation("task.delete", SWCI, ONE, delete, "delete it when nothing refers to it"),
)
