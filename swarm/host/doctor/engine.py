"""Facts from the container engine, through its command line client as the run-* commands use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swarm.errors import LocalError
from swarm.host.doctor.facts import EngineFact, PortFact
from swarm.host.doctor.subject import Subject
from swarm.launch.docker_backend import Docker
from swarm.launch.plan import LABEL


class Engine:
    """One engine that answers, or the reason why none does."""

    def __init__(self) -> None:
        self.problem: tuple[str, str] | None = None
        self._info: dict[str, Any] = {}
        try:
            self._docker = Docker.find()
            found = json.loads(self._docker.run("system", "info", "--format", "{{json .}}"))
            if errors := found.get("ServerErrors"):
                raise LocalError("SW9003", f"docker system info: {errors[0]}")
            self._info = found
        except LocalError as error:
            self.problem = (error.code, error.cause)
        except (ValueError, AttributeError) as error:
            self.problem = ("SW9003", f"docker system info: {error}")

    @property
    def gpus(self) -> bool | None:
        """Whether it can hand out NVIDIA devices; None without an engine."""
        if self.problem is not None:
            return None
        devices = self._info.get("DiscoveredDevices") or []
        listed = any("nvidia.com" in str(device) for device in devices)
        return listed or "nvidia" in (self._info.get("Runtimes") or {})

    @property
    def root(self) -> Path | None:
        """Where it keeps images and volumes, if that is on this host."""
        root = self._info.get("DockerRootDir") or _part(self._info, "store", "graphRoot")
        return Path(root) if isinstance(root, str) and Path(root).is_dir() else None

    def fact(self, subject: Subject) -> EngineFact:
        """What the subject needs of it."""
        if self.problem is not None:
            return EngineFact(self.problem)
        return EngineFact(
            None,
            str(self._info.get("ServerVersion") or _part(self._info, "version", "Version") or "?"),
            tuple((name, what, self._has("image", name)) for name, what in subject.images),
            tuple((name, self._has("network", name)) for name in subject.networks),
        )

    def has_volume(self, name: str) -> bool:
        """Whether there is such a volume."""
        return self.problem is None and self._has("volume", name)

    def _has(self, kind: str, name: str) -> bool:
        try:
            self._docker.run(kind, "inspect", name)
        except LocalError as error:
            if "no such" in error.cause.lower() or "not found" in error.cause.lower():
                return False
            raise
        return True

    def publisher(self, port: PortFact) -> PortFact:
        """A port that is taken, with the container that publishes it, if one does."""
        if self.problem is not None or port.ours or not port.problem:
            return port
        template = f'{{{{.Names}}}} {{{{.Label "{LABEL}"}}}} {{{{.Label "swarm.role"}}}}'
        condition = f"publish={port.port}"
        try:
            found = self._docker.run("container", "ls", "--filter", condition, "--format", template)
        except LocalError:
            found = ""  # podman has no such filter in older versions: then nobody is named
        if not found:
            return port
        name, *labels = found.splitlines()[0].split()
        return PortFact(port.port, port.what, port.problem, f"container {name}", bool(labels))


def _part(info: dict[str, Any], *keys: str) -> Any:
    """What podman says in a map of its own; None from others."""
    value: Any = info
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
