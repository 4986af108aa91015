"""Commands about tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarm.api.taskdef import BODIES, TaskDefinitionError, load_task
from swci.command import ABSENT, WRONG_ARGUMENT, Command, CommandError
from swci.output import Output
from swci.ports import Record
from swci.result import Field, Result, field, fields, names, said
from swci.session import Session

Args = Mapping[str, str]

ROOT_TASK = "ROOTTASK"
INVALID = "SW8010"
BATCH = 4  # lines of a body in one transaction


def create_from(session: Session, args: Args, out: Output) -> Result:
    shown = args["path"]
    try:
        task = load_task(session.directory.real(shown), shown)
    except TaskDefinitionError as fault:
        raise CommandError(INVALID, *fault.problems) from None
    out.line("Task definition is valid")
    session.submit(
        "task.create",
        {
            "name": task.Name,
            "type": task.TaskType,
            "author": task.Author,
            "prereq": task.Prereq,
            "outcome": task.Outcome,
        },
    )
    out.line(f"Task Registered : {task.Name}")
    out.line("Appending Task Body")
    lines = task.body_lines()
    _append_all(session, task.Name, lines, out)
    return Result({"task": task.Name, "lines": len(lines)})


def _append_all(session: Session, task: str, lines: Sequence[str], out: Output) -> None:
    for start in range(0, len(lines), BATCH):
        batch = list(lines[start : start + BATCH])
        session.submit("task.append", {"task": task, "index": start + 1, "lines": batch})
        out.line(_appended(start + 1, len(batch)))


def _appended(start: int, count: int) -> str:
    return f"batch start : {start} , len : {count} Successful"


def create_empty(session: Session, args: Args, out: Output) -> Result:
    name = args["task"]
    session.submit(
        "task.create",
        {
            "name": name,
            "type": args["choice"],
            "author": args["author"],
            "prereq": args["prereq"],
            "outcome": args["outcome"],
        },
    )
    return said(f"Task Registered : {name}", task=name)


def append_body(session: Session, args: Args, out: Output) -> Result:
    name, index = args["task"], int(args["index"][:9])
    if index < 1:
        raise CommandError(WRONG_ARGUMENT, "the first line of a body has the index 1")
    lines = [args.get("text", "")]
    verdict = session.submit("task.append", {"task": name, "index": index, "lines": lines})
    return said(_appended(index, 1), task=name, lines=verdict.result["lines"])


def finalize(session: Session, args: Args, out: Output) -> Result:
    name = args["task"]
    session.submit("task.finalize", {"task": name})
    return said(f"Task Finalized : {name}", task=name)


def delete(session: Session, args: Args, out: Output) -> Result:
    name = args["task"]
    session.submit("task.delete", {"task": name})
    return said(f"Task Deleted : {name}", task=name)


def get_info(session: Session, args: Args, out: Output) -> Result:
    task = _task(session, args)
    return fields(
        field("TASK NAME", task["name"]),
        field("TASK TYPE", task["type"]),
        field("AUTHOR", task["author"]),
        field("PREREQ", task["prereq"]),
        field("OUTCOME", task["outcome"]),
        field("FINALIZED", task["finalized"]),
        Field("created", task["created"], ()),  # tells it from one of that name before
    )


def get_body(session: Session, args: Args, out: Output) -> Result:
    body = _task(session, args)["body"]
    numbered = (f"{number:04d}: {line}" for number, line in enumerate(["---", *body]))
    return Result(body, tuple(numbered))


def _task(session: Session, args: Args) -> Record:
    record = session.record("tasks", args["task"])
    if record is None:
        raise CommandError(ABSENT, f"there is no task {args['task']}")
    return record


def list_tasks(session: Session, args: Args, out: Output) -> Result:
    return names(sorted(session.table("tasks"), key=lambda name: (name != ROOT_TASK, name)))


COMMANDS = (
    Command(
        "CREATE TASK FROM <path>",
        "Check the task definition in this YAML file and register it. The path is relative to\n"
        "the current directory. The task can be changed until it is finalized.",
        create_from,
        "{task, lines}",
    ),
    Command(
        f"CREATE TASK {'|'.join(BODIES)} <task> <author> <prereq> <outcome>",
        "Register a task without a body; APPEND TASK BODY writes one.",
        create_empty,
        "{task}",
    ),
    Command(
        "APPEND TASK BODY <task> <index:int> [<text...>]",
        "Write line <index> (1 is the first) of a task's body, over what is there.",
        append_body,
        "{task, lines}",
    ),
    Command(
        "FINALIZE TASK <task>",
        "Freeze a task. From then on it can be assigned, and not be changed.",
        finalize,
        "{task}",
    ),
    Command(
        "DELETE TASK <task>",
        "Delete a task; its name can be used again. One that is finalized must be the\n"
        "prerequisite of no other task, and no taskrunner may be at work on it, or hold it until\n"
        "its reset. Only the organisation that created it can do that.",
        delete,
        "{task}",
    ),
    Command(
        "GET TASK INFO <task>",
        "Type, author, prerequisite, outcome of a task.",
        get_info,
        "{task_name, task_type, author, prereq, outcome, finalized, created}",
    ),
    Command("GET TASK BODY <task>", "The body of a task, with line numbers.", get_body, "[line]"),
    Command("LIST TASKS", "Names of all tasks.", list_tasks, "[name]"),
)
