"""What `--help` of the run-* commands says."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from swarm.launch.arguments import Option
from swarm.launch.plan import SL, SN, SWCI, SWOP, Component

WIDTH = 98
COLUMN = 34

_IDENTITY = "--cert C.pem --key K.pem --capath CA/"

# What the component is for, in a sentence or two, and the command lines that most people need.
_ABOUT: Mapping[str, tuple[str, Sequence[tuple[str, str]]]] = {
    SN.name: (
        "Starts a Swarm Network node (SN). The first one of a swarm is its sentinel; each further "
        "one joins through any that runs. It is ready when its log says "
        "`Starting SWARM-API-SERVER on port: 30304`.",
        (
            ("found a swarm", f"run-sn -d --name sn1 --host-ip 10.0.0.1 --sentinel {_IDENTITY}"),
            (
                "join one",
                f"run-sn -d --name sn2 --host-ip 10.0.0.2 --sentinel-ip 10.0.0.1 {_IDENTITY}",
            ),
            ("keep the ledger", "… -v /srv/sn1:/platform/swarm/SMLNODE"),
        ),
    ),
    SL.name: (
        "Starts a Swarm Learning node (SL) and, with --ml-… options, the user's program beside it. "
        "Both end when the training does; the status of this command is the learner's.",
        (
            (
                "a learner and its program",
                f"run-sl --name sl1 --host-ip 10.0.0.1 --sn-ip 10.0.0.1 {_IDENTITY} "
                "--ml-image my-image --ml-cmd train.py --ml-v /data:/data",
            ),
            (
                "without containers",
                f"run-sl --runtime process --host-ip 10.0.0.1 --sn-ip 10.0.0.1 {_IDENTITY} "
                "--ml-cmd train.py",
            ),
        ),
    ),
    SWOP.name: (
        "Starts a Swarm Operator (SWOP): it executes the tasks of a taskrunner on this host, as "
        "its profile says, and starts learners and programs for them.",
        (
            (
                "an operator",
                "run-swop -d --name swop1 --sn-ip 10.0.0.1 --usr-dir swop "
                f"--profile-file-name p.yaml {_IDENTITY}",
            ),
            ("keep what it started, to look at it", "… -e SWOP_KEEP_CONTAINERS=True"),
            ("let tasks fetch data from a server inside", "… -e SWOP_CONTENT_HOSTS=data.lan"),
        ),
    ),
    SWCI.name: (
        "Starts a Swarm Command Interface (SWCI): it runs a script of commands, and then a prompt "
        "unless the script ends with EXIT. Its container is removed afterwards, unless --rm=false.",
        (
            ("a script", f"run-swci --usr-dir swci --init-script-name swci-init {_IDENTITY}"),
            ("a prompt", f"run-swci {_IDENTITY}"),
        ),
    ),
}

_END = (
    "All options of `docker container create` are understood, too: -e, -v, -p, --network, --rm, … "
    "A flag sets a variable of the node's environment; which one, and what else can be set there, "
    "is in docs/reference/configuration.md. `stop-swarm` ends nodes, `swarm logs` shows their "
    "output."
)


def usage(component: Component, own: Sequence[Option], common: Sequence[Option]) -> str:
    """The text of --help."""
    about, examples = _ABOUT[component.name]
    lines = [f"Usage: run-{component.name} [options] [-- arguments of the node's program]", ""]
    lines += [*textwrap.wrap(about, WIDTH), "", "Examples:"]
    for title, example in examples:
        lines.append(f"  # {title}")
        lines += _command(example)
    lines += ["", f"Options of a {component.title} node:", *_described(own)]
    if component is SL:
        lines += [
            *_row("--ml-image IMAGE", "the user's program: its image"),
            *_row("--ml-cmd, --ml-entrypoint", "its arguments, and the program itself"),
            *_row("--ml-user UID[:GID]", "its user (default: you)"),
            *_row("--ml-<option>", "any option of docker for its container, as --ml-v, --ml-gpus"),
        ]
    lines += ["", "Options of all nodes:", *_described(common)]
    lines += [
        *_row(
            "--<sidecar>-<option>",
            "--<sidecar>-image, -cmd, -pid-main, -volumes-from-main, and docker's options",
        ),
        "",
        *textwrap.wrap(_END, WIDTH),
        "",
    ]
    return "\n".join(lines)


def _command(text: str) -> list[str]:
    """A command line over as many lines as it takes; an option and its value stay together."""
    first, *options = text.split(" -")
    lines = [f"  {first}"]
    for option in options:
        if len(lines[-1]) + len(option) > WIDTH - 4:
            lines[-1] += " \\"
            lines.append(f"    -{option}")
        else:
            lines[-1] += f" -{option}"
    return lines


def _described(options: Sequence[Option]) -> list[str]:
    lines: list[str] = []
    for option in options:
        names = ", ".join(f"-{name}" if len(name) == 1 else f"--{name}" for name in option.names)
        lines += _row(names, option.help)
    return lines


def _row(names: str, text: str) -> list[str]:
    first, *rest = textwrap.wrap(text, WIDTH - COLUMN) or [""]
    head = f"  {names:<{COLUMN - 4}}  {first}"
    if len(names) > COLUMN - 4:
        head, rest = f"  {names}", [first, *rest]
    return [head, *(f"{'':<{COLUMN}}{line}" for line in rest)]
