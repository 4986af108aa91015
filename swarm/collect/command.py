"""The command `swarm collect`, and swarmLogCollector, the name that users know."""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from swarm.collect import certificates, sources, system
from swarm.collect.archive import Archive
from swarm.collect.redact import Redactor
from swarm.errors import LocalError
from swarm.launch import cli, docker_backend
from swarm.launch.arguments import UsageError
from swarm.launch.docker_backend import Docker

MB = 1_000_000
LOG_MB, ARCHIVE_MB = 20, 200  # at most, before compression
YAML_BYTES = 1 * MB


def main(argv: Sequence[str]) -> int:
    """Execute `swarm collect`; the exit status. Raises UsageError, LocalError."""
    parser = argparse.ArgumentParser(
        prog="swarm collect",
        description="Writes one archive with what helps to find a fault on this host: logs and "
        "descriptions of all nodes and user programs, versions, system, profiles, tasks, and the "
        "public parts of certificates. Values of unknown variables, arguments of programs, "
        "passwords, tokens and keys are left out. Look through it before you hand it on: what user "
        "programs print is in it.",
        epilog="example: swarm collect --workspace workspace/mnist --output /tmp",
        allow_abbrev=False,
    )
    parser.add_argument("--output", default="logs", help="directory of the archive (default: logs)")
    parser.add_argument(
        "--workspace", help="directory with swop/*.yaml and swci/taskdefs/*.yaml, to add these"
    )
    parser.add_argument("--ml-image", default="", help="containers of this image as well")
    parser.add_argument(
        "--no-programs", action="store_true", help="without the logs of user programs"
    )
    parser.add_argument(
        "--log-mb", type=int, default=LOG_MB, help=f"of each log the last so many MB ({LOG_MB})"
    )
    parser.add_argument("--sudo", action="store_true", help="call docker through sudo")
    given = parser.parse_args(list(argv))
    if not 0 < given.log_mb <= ARCHIVE_MB:
        raise UsageError(f"--log-mb: {given.log_mb}: 1 to {ARCHIVE_MB} expected")
    return _collect(given)


def swarm_log_collector(argv: Sequence[str] | None = None) -> int:
    """`swarmLogCollector "<DOCKER_HUB>" "workspace=<dir>" | "mlimage=<image>"`."""
    return cli.guarded("swarmLogCollector", _by_the_other_name, argv)


def _by_the_other_name(argv: Sequence[str]) -> int:
    words: list[str] = []
    for word in list(argv)[1:]:  # the first one says where images come from, which nobody asks here
        name, _, value = word.partition("=")
        option = {"workspace": "--workspace", "mlimage": "--ml-image"}.get(name.lower())
        if option is None or not value:
            raise UsageError(f'{word}: "workspace=<directory>" or "mlimage=<image>" expected')
        words += [option, value]
    if not words:
        raise UsageError('"<DOCKER_HUB>" and "workspace=<directory>" or "mlimage=<image>" expected')
    return main(words)


def _collect(given: argparse.Namespace) -> int:
    workspace = Path(given.workspace) if given.workspace else None
    if workspace is not None and not workspace.is_dir():
        raise UsageError(f"--workspace: {given.workspace}: bad directory")
    notes: list[str] = []
    docker = _engine(given.sudo, notes)
    redactor = Redactor()
    # Descriptions and files first: from them it is known what logs must not tell.
    found = list(sources.local(redactor))
    if docker is not None:
        found += sources.containers(docker, redactor, given.ml_image)
    files = _yaml_files(workspace, [f.profile for f in found if f.profile is not None])
    documents = [(name, _document(path, redactor, notes)) for name, path in files]
    host = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname())
    path = Path(given.output) / f"swarm_logs_{host}_{time.strftime('%Y%m%d%H%M%S')}.tar.gz"
    limits = {"file_limit": given.log_mb * MB, "total_limit": ARCHIVE_MB * MB}
    try:
        with Archive(path, **limits) as archive:
            archive.add("versions.json", system.versions())
            archive.add("certificates.txt", _certificates(found))
            for name, text in documents:
                archive.add(name, text)
            index = _nodes(archive, found, redactor, given)
            about = [*index, "", *notes, *(f"only the end of {name}" for name in archive.cut)]
            text = "\n".join([*about, "", system.described(docker, redactor)])
            archive.add("out.log", redactor.text(text))
    except OSError as fault:
        raise LocalError("SW9013", f"{path} ({fault.strerror})") from fault
    print(path)
    return 0


def _engine(sudo: bool, notes: list[str]) -> Docker | None:
    if docker_backend.client() is None:
        return None
    docker = Docker.find(sudo)
    try:
        docker.run("container", "ls", "--quiet")
    except LocalError as fault:
        notes.append(f"no containers: {fault.cause.splitlines()[0]}")
        print(f"swarm collect: {notes[-1]}", file=sys.stderr)
        return None
    return docker


def _nodes(
    archive: Archive,
    found: Sequence[sources.Found],
    redactor: Redactor,
    given: argparse.Namespace,
) -> list[str]:
    """Add description and log of each node; which file is whose."""
    counted: Counter[str] = Counter()
    index = ["file, name, component, state"]
    for node in found:
        counted[node.role] += 1
        number, program = counted[node.role], node.role in ("ml", "sidecar")
        # The names that HPE's collector gives.
        if program:
            log, inspect = f"user_{number}.log", f"ml_inspect_{number}.log"
        else:
            log = f"{node.role}_{node.tag}_{number}.log"
            inspect = f"{node.role}_inspect_{node.tag}_{number}.log"
        archive.add(inspect, node.description)
        if not (program and given.no_programs):
            archive.add(log, redactor.text(node.log(given.log_mb * MB)))
        index.append(f"{log}, {node.name}, {node.role}, {node.state}")
    return index


def _certificates(found: Iterable[sources.Found]) -> str:
    paths = dict.fromkeys(path for node in found for path in node.certificates)
    lines = [line for path in paths for line in certificates.described(path)]
    return "\n".join(lines or ["no node of this host tells where its certificate is"]) + "\n"


def _yaml_files(workspace: Path | None, profiles: Iterable[Path]) -> list[tuple[str, Path]]:
    """Names in the archive, and files: the workspace's, and profiles of running operators."""
    files: dict[Path, tuple[str, Path]] = {}
    if workspace is not None:
        for directory, kind in (("swci/taskdefs", "tasks"), ("swop", "profiles")):
            for path in sorted((workspace / directory).glob("*.yaml")):
                files.setdefault(path.resolve(), (kind, path))
    for path in profiles:
        files.setdefault(path.resolve(), ("profiles", path))
    taken: Counter[str] = Counter()
    named = []
    for kind, path in files.values():
        name = f"{kind}/{path.name}"
        taken[name] += 1
        named.append((name if taken[name] == 1 else f"{kind}/{taken[name]}-{path.name}", path))
    return named


def _document(path: Path, redactor: Redactor, notes: list[str]) -> str:
    try:
        if path.stat().st_size > YAML_BYTES:
            raise ValueError(f"larger than {YAML_BYTES} bytes")
        return redactor.yaml(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as fault:
        kind = fault.strerror if isinstance(fault, OSError) else type(fault).__name__
        notes.append(f"{path} is left out: it cannot be read as YAML ({kind})")
        return f"[{notes[-1]}]\n"
