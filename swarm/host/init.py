"""`swarm init`: writes swarm.yaml from flags, and asks for what is missing at a terminal."""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from certs.gen_cert import make_host
from swarm.errors import LocalError
from swarm.host.hostfile import (
    API_PORT,
    FILE_NAME,
    FS_PORT,
    P2P_PORT,
    checked_address,
    parse_host,
    split_place,
)
from swarm.launch.arguments import UsageError

Answers = Mapping[str, str]
Ask = Callable[[str, str], str]  # question, default → what was typed


@dataclass(frozen=True)
class Question:
    """One thing to know. `check` raises ValueError with what was expected."""

    key: str
    text: str
    default: Callable[[Answers], str] = lambda answers: ""
    check: Callable[[str], object] = lambda text: text
    needed: bool = True
    applies: Callable[[Answers], bool] = lambda answers: True

    @property
    def flag(self) -> str:
        return f"--{self.key.replace('_', '-')}"


def _word(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", text):
        raise ValueError("expected letters and digits, with _ . - between them, 40 at most")


def _choice(*words: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        if text not in words:
            raise ValueError(f"expected {' or '.join(words)}")

    return check


def _port(text: str) -> None:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError("expected a port from 1 to 65535")


def places_in(text: str) -> list[str]:
    """A list with commas or blanks. Raises ValueError."""
    places = text.replace(",", " ").split()
    for place in places:
        split_place(place)
    return places


QUESTIONS = (
    Question("name", "A short name for this host", lambda _: "host-1", _word),
    Question(
        "address",
        "Address or name at which the other hosts reach this one",
        lambda _: _own_address(),
        checked_address,
    ),
    Question(
        "join",
        "API addresses of running network nodes to join (empty: found a new network)",
        check=places_in,
        needed=False,
    ),
    Question(
        "runtime",
        "Run nodes as plain processes or in Docker: process, docker",
        lambda _: "process",
        _choice("process", "docker"),
    ),
    Question(
        "network",
        "Docker network of this host's containers",
        lambda answers: f"{answers['name']}-net",
        applies=lambda answers: answers["runtime"] == "docker",
    ),
    Question(
        "certificates", "Directory of the certificates, as gen-cert writes it", lambda _: "cert"
    ),
    Question(
        "index", "Index of this host in their names, as in sn-1-cert.pem", lambda _: "1", _word
    ),
    Question("api_port", "API port of the network node", lambda _: str(API_PORT), _port),
    Question("p2p_port", "Peer-to-peer port of the network node", lambda _: str(P2P_PORT), _port),
    Question(
        "profile",
        "Profile of the operator (empty: write one pair of learner and program into the file)",
        needed=False,
    ),
    Question(
        "data",
        "Directory with this host's data",
        lambda _: "data",
        applies=lambda answers: not answers["profile"],
    ),
    Question(
        "learner_port",
        "Port of the learner",
        lambda _: str(FS_PORT),
        _port,
        applies=lambda answers: not answers["profile"],
    ),
)


def main(argv: Sequence[str]) -> int:
    """Execute `swarm init`; the exit status. Raises LocalError, UsageError."""
    args = _parser().parse_args(argv)
    interactive = sys.stdin.isatty() and not args.yes
    given = {q.key: value for q in QUESTIONS if (value := getattr(args, q.key)) is not None}
    answers = collect(given, _ask if interactive else None)
    if args.output.exists() and not args.force:
        raise LocalError("SW9038", f"{args.output} exists already")
    text = text_of(answers)
    parse_host(text, args.output.name)
    base = args.output.absolute().parent
    base.mkdir(parents=True, exist_ok=True)
    if args.make_certificates:
        directory = base / Path(answers["certificates"]).expanduser()
        made = make_host(directory, answers["index"], hosts=[answers["address"]])
        print(f"{directory}: a new CA, and certificates for SN, SL, SWOP and SWCI")
        print(f"Copy {made.ca_cert} into ca/capath of every other host, and theirs into this one.")
    draft = args.output.with_name(f".{args.output.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(args.output)
    print(f"{args.output}: written. Next: swarm doctor -f {args.output}, then swarm up")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swarm init",
        description="Write swarm.yaml, a whole host in one file. At a terminal it asks for what "
        "no option says; elsewhere defaults are taken.",
    )
    for question in QUESTIONS:
        parser.add_argument(question.flag, dest=question.key, metavar="…", help=question.text)
    parser.add_argument(
        "--make-certificates", action="store_true", help="make the certificates, too, with a new CA"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(FILE_NAME), metavar="FILE",
        help=f"file to write (default: {FILE_NAME})",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace the file")
    parser.add_argument("--yes", action="store_true", help="ask nothing: take the defaults")
    return parser


def collect(given: Answers, ask: Ask | None) -> dict[str, str]:
    """Answers to all questions that apply, "" for the others.

    What is given counts; the rest is asked for, or without `ask` taken by default. Raises
    UsageError for something given that cannot be.
    """
    answers: dict[str, str] = {}
    for question in QUESTIONS:
        if not question.applies(answers):
            answers[question.key] = ""
            continue
        default = question.default(answers)
        if question.key in given:
            answers[question.key] = given[question.key]
            if problem := _problem(question, given[question.key]):
                raise UsageError(f"{question.flag}: {given[question.key]!r}: {problem}")
        elif ask is None:
            answers[question.key] = default
            if problem := _problem(question, default):
                raise UsageError(f"{question.flag} is missing: {question.text}")
        else:
            answers[question.key] = _asked(question, default, ask)
    return answers


def _asked(question: Question, default: str, ask: Ask) -> str:
    prompt = question.text
    while True:
        answer = ask(prompt, default).strip() or default
        problem = _problem(question, answer)
        if not problem:
            return answer
        prompt = f"{problem}. {question.text}"


def _problem(question: Question, text: str) -> str:
    """What is wrong with an answer, "" for nothing."""
    if not text:
        return "expected something" if question.needed else ""
    try:
        question.check(text)
    except ValueError as error:
        return str(error)
    return ""


def _ask(text: str, default: str) -> str:
    try:
        return input(f"{text}{f' [{default}]' if default else ''}: ")
    except EOFError:
        raise UsageError("the answers ended before the questions: nothing was written") from None


def _own_address() -> str:
    """The address from which this host reaches others; "" when it reaches nobody.

    Connecting a datagram socket sends nothing: it only looks for a route (RFC 5737's address).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return ""


def text_of(answers: Answers) -> str:
    """The file, with a comment for each part."""
    lines = [
        "# A whole host in one file. `swarm doctor` checks it, `swarm up` starts it, `swarm down`",
        "# stops it. Paths are relative to this file.",
        f"name: {_scalar(answers['name'])}",
        f"runtime: {answers['runtime']:<22} # process, or docker",
        f"address: {_scalar(answers['address']):<22} # at which other hosts reach this one",
        "certificates:                   # files named as gen-cert names them",
        f"  directory: {_scalar(answers['certificates'])}",
        f"  index: {_scalar(answers['index'])}",
    ]
    if answers["runtime"] == "docker":
        lines += ["docker:", f"  network: {_scalar(answers['network'])}"]
    lines.append("network_node:")
    places = places_in(answers["join"])
    if places:
        lines.append("  join:                         # any running network nodes")
        lines += [f"    - {_scalar(place)}" for place in places]
    else:
        lines.append("  join: []                      # nobody: this host founds a new network")
    lines += [f"  api_port: {answers['api_port']}", f"  p2p_port: {answers['p2p_port']}"]
    lines.append("operator:")
    if answers["profile"]:
        lines.append(f"  profile: {_scalar(answers['profile'])}")
    else:
        lines += [
            "  learners:                     # one entry for each pair of learner and program",
            f"    - port: {answers['learner_port']}",
            f"      data: {_scalar(answers['data']):<21} # mounted for the program as its own",
        ]
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    """A text as YAML writes it, quoted where it would be something else without."""
    return yaml.safe_dump(text, default_flow_style=True, width=10_000).split("\n")[0]
