"""`swarm doctor`: gathers facts, has them judged, and prints the findings; 0 is go, 1 is no-go."""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path

from swarm.host.doctor import local, reach
from swarm.host.doctor.engine import Engine
from swarm.host.doctor.facts import DoorFact, Facts, PathFact, SnFact
from swarm.host.doctor.findings import PROGRAMS, Finding, Level, goes, judge
from swarm.host.doctor.subject import (
    API,
    DOCKER,
    MESH,
    Keys,
    Subject,
    WantedPath,
    of_host,
    of_profile,
)
from swarm.host.hostfile import FILE_NAME, MAX_JOIN, read_host, split_place
from swarm.host.init import places_in
from swarm.host.text import clean
from swarm.identity import Identity
from swarm.launch.arguments import UsageError

TOKEN_BYTES = 16


def main(argv: Sequence[str]) -> int:
    """Execute `swarm doctor`; 0 for go, 1 for no-go. Raises LocalError, UsageError."""
    args = _parser().parse_args(argv)
    facts = examine(subject_of(args))
    findings = judge(facts)
    go = goes(findings)
    shown = [one for one in findings if not args.quiet or one.level is not Level.OK]
    if args.json:
        listed = [asdict(finding) for finding in shown]
        print(json.dumps({"go": go, "findings": listed}, indent=2, ensure_ascii=False))
    else:
        print("\n".join((*report(shown), verdict(findings))))
    return 0 if go else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swarm doctor",
        description="Check a host before it trains: certificates, clocks, ports in both "
        "directions, engine, GPUs, paths, disks. Exit status 0 means go, 1 no-go.",
    )
    parser.add_argument("-f", "--file", type=Path, metavar="FILE", help="the host's file")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="an operator's profile")
    parser.add_argument(
        "--join", default="", metavar="SN,SN", help="API addresses of running SNs, host[:port]"
    )
    parser.add_argument("--address", help="at which other hosts reach this one")
    parser.add_argument(
        "--runtime", choices=("process", "docker"), help="how nodes run (default: as the file says)"
    )
    for port, what in (("api", "API port"), ("p2p", "peer-to-peer port")):
        text = f"{what} of this host's SN, to be tried with those of the profile"
        parser.add_argument(f"--sn-{port}-port", type=int, metavar="PORT", help=text)
    parser.add_argument("--image", metavar="NAME", help="image of the user's program to look for")
    parser.add_argument("--cert", type=Path, help="certificate to ask SNs with (default: the SL's)")
    parser.add_argument("--key", type=Path, help="its key")
    parser.add_argument("--capath", type=Path, help="directory of trusted CA certificates")
    parser.add_argument("--cacert", type=Path, help="file of trusted CA certificates")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("-q", "--quiet", action="store_true", help="only what is wrong")
    return parser


def subject_of(args: argparse.Namespace) -> Subject:
    """What the command line asks to check. Raises LocalError, UsageError."""
    try:
        join = places_in(args.join)
    except ValueError as error:
        raise UsageError(f"--join: {error}") from error
    if len(join) > MAX_JOIN:
        raise UsageError(f"--join: {len(join)} network nodes are more than {MAX_JOIN}")
    if args.profile is not None and args.file is not None:
        raise UsageError("--file and --profile: give one of them")
    if args.profile is not None:
        subject = of_profile(args.profile, args.runtime, join)
    else:
        subject = of_host(read_host(args.file or Path(FILE_NAME)))
        subject = replace(subject, sns=tuple(dict.fromkeys((*subject.sns, *join))))
    for number, what in ((args.sn_api_port, API), (args.sn_p2p_port, MESH)):
        if number is not None:
            if not 0 < number < 65536:
                raise UsageError(f"--sn-…-port: {number}: bad port")
            subject = replace(subject, ports=(*subject.ports, (number, what)))
    if args.image is not None and subject.runtime == DOCKER:
        subject = replace(subject, images=(*subject.images, (args.image, PROGRAMS)))
    if args.cert is not None:
        if args.key is None:
            raise UsageError("--cert needs --key")
        given = Keys("--cert", "", args.cert, args.key, args.capath, args.cacert)
        subject = replace(subject, keys=(given, *subject.keys))
    return replace(subject, address=args.address or subject.address)


def examine(subject: Subject) -> Facts:
    """Gather all facts."""
    loaded = [local.identity(keys) for keys in subject.keys]
    identities = [identity for _, identity in loaded if identity is not None]
    address = local.address(subject.address) if subject.address else None
    engine = Engine() if subject.runtime == DOCKER else None
    token = secrets.token_bytes(TOKEN_BYTES)
    listener = local.Listener([port for port, _ in subject.ports], token, address)
    # On loopback, the other "hosts" are this one under other ports.
    own = subject.address if address and not address.loopback else ""
    ports = [local.port(n, what, listener.problems.get(n)) for n, what in subject.ports]
    if engine is not None:
        ports = [engine.publisher(port) for port in ports]
    running = [port.port for port in ports if port.ours and port.what == API]
    sns, doors = _ask(subject, identities, listener, token, own, running)
    disks = [local.disk(what, place) for what, place in subject.disks]
    if engine is not None and engine.root is not None:
        disks.append(local.disk("images and containers", engine.root))
    return Facts(
        now=datetime.now(timezone.utc),
        founder=subject.founder,
        problems=subject.problems,
        notices=subject.notices,
        identities=tuple(fact for fact, _ in loaded),
        paths=tuple(_path(wanted, engine) for wanted in subject.paths),
        address=address,
        ports=tuple(ports),
        sns=sns,
        doors=doors,
        engine=engine.fact(subject) if engine is not None else None,
        gpu=local.gpu(subject.gpus, subject.devices, engine.gpus if engine else None),
        disks=tuple(disks),
    )


def _ask(
    subject: Subject, identities: Sequence[Identity], listener: local.Listener, token: bytes,
    own: str, running: Sequence[int],
) -> tuple[tuple[SnFact, ...], tuple[DoorFact, ...]]:  # fmt: skip
    """Ask the SNs while our ports answer. Without a usable identity nobody can be asked."""
    with listener.answering():
        if not identities or not (subject.sns or running):
            return (), ()
        places = list({split_place(place): place for place in subject.sns}.values())
        own_sns = [(subject.address, port) for port in running if subject.address]
        ask = reach.Asking(identities[0], listener.open, token)
        return reach.ask_all(ask, places, own_sns, own)


def _path(wanted: WantedPath, engine: Engine | None) -> PathFact:
    if wanted.expected != "volume":
        return local.path(wanted)
    there = engine is not None and engine.has_volume(wanted.path)
    return PathFact(wanted.what, wanted.path, "volume" if there else "", "volume")


def report(findings: Sequence[Finding]) -> list[str]:
    """The findings for people, by topic in the order in which topics come up."""
    lines: list[str] = []
    for topic in dict.fromkeys(finding.topic for finding in findings):
        lines.append(topic)
        for one in (finding for finding in findings if finding.topic == topic):
            mark = one.level.value if one.level is Level.OK else one.level.value.upper()
            code = f"{one.code}: " if one.code else ""
            lines.append(f"  {mark:<8} {code}{clean(one.text)}")
            if one.remedy:
                lines.append(f"           → {clean(one.remedy)}")
    return lines


def verdict(findings: Sequence[Finding]) -> str:
    """`go`, or `no-go: 2 errors, 1 warning`."""
    counts = []
    for level in (Level.ERROR, Level.WARNING):
        number = sum(one.level is level for one in findings)
        if number:
            counts.append(f"{number} {level.value}{'s' * (number > 1)}")
    word = "go" if goes(findings) else "no-go"
    return f"{word}: {', '.join(counts)}" if counts else word
