"""Where the nodes of this host are, and what there is to know about each of them.

A source finds nodes (`Found`) with a description that is redacted already, and their logs, which
are read when all descriptions are, as those tell what logs must not.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from swarm.collect.redact import CONTAINER, Redactor
from swarm.errors import LocalError
from swarm.launch import nodes, programs
from swarm.launch.docker_backend import Docker
from swarm.launch.plan import LABEL, USER_DIRECTORY

ROLES = ("sn", "swop", "swci", "sl", "ml", "sidecar")
ROLE_LABEL = "swarm.role"  # on what operators start
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
    """Containers of run-* and of operators; and those of `image`, where one is named."""
    seen: set[str] = set()
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
                    yield _container(docker, redactor, identifier)


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
    """The end of a container's log, both streams; no more than that is ever held."""
    command = [*docker.command, "container", "logs", "--timestamps", identifier]
    kept = bytearray()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        while chunk := process.stdout.read(1 << 16):
            kept += chunk
            if len(kept) > 2 * limit:
                del kept[:-limit]
    return bytes(kept[-limit:]).decode(errors="replace")


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
