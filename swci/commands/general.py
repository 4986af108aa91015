"""Commands about the session and its directory."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from swci.command import ABSENT, WRONG_ARGUMENT, Command, CommandError
from swci.directory import FILES, USER_DIRECTORY
from swci.output import Output
from swci.result import Result, names, said
from swci.session import Session

Args = Mapping[str, str]

MAX_SLEEP = 86400  # seconds
MAX_LISTING = 20.0  # seconds that `ls` may take


def sleep(session: Session, args: Args, out: Output) -> Result:
    seconds = int(args["seconds"][:9])
    if seconds > MAX_SLEEP:
        raise CommandError(WRONG_ARGUMENT, f"at most {MAX_SLEEP} seconds")
    session.clock.pause(seconds)
    return Result({"seconds": seconds})


def change_directory(session: Session, args: Args, out: Output) -> Result:
    session.directory.change(args["directory"])
    shown = session.directory.shown
    return said(f"Current Directory : {shown}", directory=shown)


def print_directory(session: Session, args: Args, out: Output) -> Result:
    return said(session.directory.shown, directory=session.directory.shown)


def list_directory(session: Session, args: Args, out: Output) -> Result:
    """The host's own `ls`, so that it takes the options that users know."""
    words = [_ls_argument(session, word) for word in args.get("options", "").split()]
    try:
        done = subprocess.run(
            ["ls", *words],
            cwd=session.directory.real(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=MAX_LISTING,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as fault:
        raise CommandError(FILES, f"ls: {fault}") from None
    if done.returncode != 0 and done.stderr:
        raise CommandError(FILES, *done.stderr.rstrip("\n").split("\n"))
    return names(done.stdout.splitlines())


def _ls_argument(session: Session, word: str) -> str:
    if word.startswith("-"):
        return word
    real = session.directory.real(word)  # raises when it is out of bounds
    return str(real) if word.startswith(USER_DIRECTORY) else word


def leave(session: Session, args: Args, out: Output) -> None:
    session.leaving = True


def exit_on_failure(session: Session, args: Args, out: Output) -> Result:
    choice = args.get("choice", "ON")
    session.exit_on_failure = choice == "ON"
    on = session.exit_on_failure
    return said(f"EXIT ON FAILURE IS TURNED {choice}", exit_on_failure=on)


def show_help(session: Session, args: Args, out: Output) -> Result:
    words = args.get("command", "").split()
    found = session.language.starting_with(words)
    if not found:
        raise CommandError(ABSENT, f"no command begins with {' '.join(words)}")
    data = [{"grammar": one.usage, "help": one.help} for one in found]
    lines: list[str] = []
    for command in found:
        lines.append(command.usage)
        if words:
            lines += [f"    {line}" for line in command.help.split("\n")]
    return Result(data, tuple(lines))


COMMANDS = (
    Command("SLEEP <seconds:int>", "Wait so many seconds.", sleep, "{seconds}", waits=True),
    Command(
        "CD <directory>",
        f"Change the directory that paths begin in. {USER_DIRECTORY} is the user directory.",
        change_directory,
        "{directory}",
        inline=True,
    ),
    Command("LS [<options...>]", "List files, as the host's ls does it.", list_directory, "[line]"),
    Command("PWD", "Show the current directory.", print_directory, "{directory}"),
    Command("EXIT", "End the session.", leave),
    Command(
        "EXIT ON FAILURE [ON|OFF]",
        "ON (also if neither is given): the first command that fails ends the session, and the\n"
        "exit status is 1. OFF, as at the start: its error is shown and the session goes on.",
        exit_on_failure,
        "{exit_on_failure}",
        inline=True,
    ),
    Command(
        "HELP [<command...>]",
        "List all commands, or explain those that begin with these words.",
        show_help,
        "[{grammar, help}]",
    ),
)
