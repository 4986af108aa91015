"""Where the nodes of this host are, and what there is to know about each of them.

A source finds nodes (`Found`) with a description that is redacted already, and their logs, which
are read when all descriptions are, as those tell what logs must not.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from swarm.collect.redact import CONTAINER, Redactor
from swarm.errors import LocalError
from swarm.launch import nodes, programs
from swarm.launch.docker_backend import Docker
from swarm.launch.plan import LABEL, OPERATOR_DIRECTORY, USER_DIRECTORY

ROLES = ("sn", "swop", "swci", "sl", "ml", "sidecar")
ROLE_LABEL = "swarm.role"  # on what operators start
_LEARNER = re.compile(r"-s-\d+-[0-9a-z]+$")  # as operators name their pairs: s and u
CERTIFICATES = ("SWARM_ID_CERT", "SWARM_ID_CAPATH", "SWARM_ID_CACERT")


@dataclass(frozen=True)
class Found:
    """A node, or a user's program."""

    role: str
    name: str
    state: str
    tag: str  # of its image; "process" for a local one
    description: str
    log: Callable[[int], str]  # at most so many bytes, from its end
    certificates: tuple[Path, ...] = ()  # files and directories of this host
    profile: Path | None = None


def local(redactor: Redactor) -> Iterator[Found]:
    """Local processes that run-* started, and what operators among them started."""
    for node in nodes.known():
        place = nodes.directory(node.name)
        process = node.process()
        variables: Mapping[str, str] = {}
        with contextlib.suppress(psutil.Error):
            variables = process.environ() if process is not None else {}
        described: dict[str, Any] = {
            "Name": node.name,
            "Component": node.component,
            "State": node.state(),
            "Pid": node.pid,
            "Removed at its end (--rm)": node.remove,
            # What the caller's shell has besides is the caller's own business.
            "Env": redactor.environment(_ours(variables)),
        }
        paths = [Path(variables[name]) for name in CERTIFICATES if variables.get(name)]
        profile = variables.get("SWOP_PROFILE")
        yield Found(
            node.component,
            node.name,
            node.state(),
            "process",
            _json(described),
            _reader(place / "log"),
            tuple(paths),
            Path(variables.get("USR_DIR", "")) / profile if profile else None,
        )
    for program in programs.known():
        described = {"Name": program.name, "Role": program.role, "State": program.state}
        role = program.role if program.role in ROLES else "ml"
        yield Found(
            role, program.name, program.state, "process", _json(described), _reader(program.log)
        )


def containers(docker: Docker, redactor: Redactor, image: str) -> Iterator[Found]:
    """Containers of run-* and of operators; and those of `image`, where one is named.

    Then what operators in containers keep of programs whose containers they have removed.
    """
    seen: set[str] = set()
    names: set[str] = set()
    operators: list[str] = []
    filters = [f"label={LABEL}", f"label={ROLE_LABEL}"]
    filters += [f"ancestor={image}"] if image else []
    for condition in filters:
        listed = docker.run(
            "container", "ls", "--all", "--quiet", "--no-trunc", "--filter", condition
        )
        for identifier in listed.split():
            if identifier not in seen:
                seen.add(identifier)
                with contextlib.suppress(LocalError):  # it was removed meanwhile
                    found = _container(docker, redactor, identifier)
                    names.add(found.name)
                    operators += [identifier] if found.role == "swop" else []
                    yield found
    for operator in operators:
        for file in _kept(docker, operator):
            if Path(file).stem not in names:
                yield _removed(docker, operator, file)


def _kept(docker: Docker, operator: str) -> list[str]:
    """Names of the logs that an operator keeps."""
    return [name for name, _ in _copied(docker, operator, "logs") if name.endswith(".log")]


def _removed(docker: Docker, operator: str, file: str) -> Found:
    def log(limit: int) -> str:
        ends = [_end(stream, limit) for _, stream in _copied(docker, operator, f"logs/{file}")]
        return "".join(ends)

    name = Path(file).stem
    role = "sl" if _LEARNER.search(name) else "ml"
    return Found(role, name, "removed", "kept", _json({"Name": name, "State": "removed"}), log)


def _copied(docker: Docker, container: str, path: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Files of an operator's data directory, as the engine streams them."""
    command = [*docker.command, "container", "cp", f"{container}:{OPERATOR_DIRECTORY}/{path}", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    stream = archive.extractfile(member) if member.isreg() else None
                    if stream is not None:
                        yield Path(member.name).name, stream
        except tarfile.ReadError:
            return  # there is nothing at that path


def _end(stream: IO[bytes], limit: int) -> str:
    """The last bytes of a stream; no more than twice as many are ever held."""
    kept = bytearray()
    while chunk := stream.read(1 << 16):
        kept += chunk
        if len(kept) > 2 * limit:
            del kept[:-limit]
    return bytes(kept[-limit:]).decode(errors="replace")


def _container(docker: Docker, redactor: Redactor, identifier: str) -> Found:
    data = json.loads(docker.run("container", "inspect", identifier))[0]
    config = data["Config"]
    labels = config.get("Labels") or {}
    role = (labels.get(LABEL) or labels.get(ROLE_LABEL) or "ml").lower()
    variables = dict(line.partition("=")[::2] for line in config.get("Env") or ())
    mounts = {mount["Destination"]: mount for mount in data.get("Mounts") or ()}
    paths = [_on_host(variables.get(name, ""), mounts) for name in CERTIFICATES]
    profile = None
    if role == "swop" and variables.get("SWOP_PROFILE"):
        profile = _on_host(f"{USER_DIRECTORY}/{variables['SWOP_PROFILE']}", mounts)
    return Found(
        role if role in ROLES else "ml",
        str(data["Name"]).removeprefix("/"),
        str(data["State"]["Status"]),
        str(config.get("Image", "")).rpartition(":")[2][:40].replace("/", "_") or "latest",
        _json(redactor.shaped(data, CONTAINER)),
        lambda limit: _container_log(docker, identifier, limit),
        tuple(path for path in paths if path is not None),
        profile,
    )


def _on_host(path: str, mounts: Mapping[str, Mapping[str, Any]]) -> Path | None:
    """Where this host has a path of a container; None when it is in no directory of this host."""
    if not path:
        return None
    for target in (path, *map(str, Path(path).parents)):
        mount = mounts.get(target)
        if mount is not None and mount.get("Type") == "bind":
            return Path(mount["Source"]) / Path(path).relative_to(target)
    return None


def _container_log(docker: Docker, identifier: str, limit: int) -> str:
    """The end of a container's log, both streams."""
    command = [*docker.command, "container", "logs", "--timestamps", identifier]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        return _end(process.stdout, limit)


def _reader(path: Path) -> Callable[[int], str]:
    def read(limit: int) -> str:
        if path.is_symlink() or not path.is_file():
            return "[no log]\n"
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit))
            return file.read(limit).decode(errors="replace")

    return read


def _ours(variables: Mapping[str, str]) -> dict[str, str]:
    prefixes = ("SWARM_", "SN_", "SL_", "SWOP_", "SWCI_", "SENTINEL_", "THIS_NODE_IP", "USR_DIR")
    return {name: value for name, value in variables.items() if name.startswith(prefixes)}


def _json(described: Any) -> str:
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"
