"""Commands about tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarm.api.taskdef import BODIES, TaskDefinitionError, load_task
from swci.command import Command, CommandError
from swci.display import field
from swci.output import Output
from swci.ports import Record
from swci.session import Session

Args = Mapping[str, str]

ROOT_TASK = "ROOTTASK"
BATCH = 4  # lines of a body in one transaction


def create_from(session: Session, args: Args, out: Output) -> None:
    shown = args["path"]
    try:
        task = load_task(session.directory.real(shown), shown)
    except TaskDefinitionError as fault:
        raise CommandError(*fault.problems) from None
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
    _append_all(session, task.Name, task.body_lines(), out)


def _append_all(session: Session, task: str, lines: Sequence[str], out: Output) -> None:
    for start in range(0, len(lines), BATCH):
        batch = list(lines[start : start + BATCH])
        session.submit("task.append", {"task": task, "index": start + 1, "lines": batch})
        out.line(f"batch start : {start + 1} , len : {len(batch)} Successful")


def create_empty(session: Session, args: Args, out: Output) -> None:
    session.submit(
        "task.create",
        {
            "name": args["task"],
            "type": args["choice"],
            "author": args["author"],
            "prereq": args["prereq"],
            "outcome": args["outcome"],
        },
    )
    out.line(f"Task Registered : {args['task']}")


def append_body(session: Session, args: Args, out: Output) -> None:
    index = int(args["index"][:9])
    if index < 1:
        raise CommandError("the first line of a body has the index 1")
    lines = [args.get("text", "")]
    session.submit("task.append", {"task": args["task"], "index": index, "lines": lines})
    out.line(f"batch start : {index} , len : 1 Successful")


def finalize(session: Session, args: Args, out: Output) -> None:
    session.submit("task.finalize", {"task": args["task"]})
    out.line(f"Task Finalized : {args['task']}")


def delete(session: Session, args: Args, out: Output) -> None:
    session.submit("task.delete", {"task": args["task"]})
    out.line(f"Task Deleted : {args['task']}")


def get_info(session: Session, args: Args, out: Output) -> None:
    task = _task(session, args)
    for name, key in (
        ("TASK NAME", "name"),
        ("TASK TYPE", "type"),
        ("AUTHOR", "author"),
        ("PREREQ", "prereq"),
        ("OUTCOME", "outcome"),
        ("FINALIZED", "finalized"),
    ):
        out.line(field(name, task[key]))


def get_body(session: Session, args: Args, out: Output) -> None:
    for number, line in enumerate(["---", *_task(session, args)["body"]]):
        out.line(f"{number:04d}: {line}")


def _task(session: Session, args: Args) -> Record:
    record = session.record("tasks", args["task"])
    if record is None:
        raise CommandError(f"there is no task {args['task']}")
    return record


def list_tasks(session: Session, args: Args, out: Output) -> None:
    names = sorted(session.table("tasks"), key=lambda name: (name != ROOT_TASK, name))
    for name in names:
        out.line(name)


COMMANDS = (
    Command(
        "CREATE TASK FROM <path>",
        "Check the task definition in this YAML file and register it. The path is relative to\n"
        "the current directory. The task can be changed until it is finalized.",
        create_from,
    ),
    Command(
        f"CREATE TASK {'|'.join(BODIES)} <task> <author> <prereq> <outcome>",
        "Register a task without a body; APPEND TASK BODY writes one.",
        create_empty,
    ),
    Command(
        "APPEND TASK BODY <task> <index:int> [<text...>]",
        "Write line <index> (1 is the first) of a task's body, over what is there.",
        append_body,
    ),
    Command(
        "FINALIZE TASK <task>",
        "Freeze a task. From then on it can be assigned, and not be changed.",
        finalize,
    ),
    Command("DELETE TASK <task>", "Delete a task that is not finalized.", delete),
    Command("GET TASK INFO <task>", "Type, author, prerequisite, outcome of a task.", get_info),
    Command("GET TASK BODY <task>", "The body of a task, with line numbers.", get_body),
    Command("LIST TASKS", "Names of all tasks.", list_tasks),
)
