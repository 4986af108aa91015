"""MAKE_SWARM_USER_CONTENT at the operator: which volumes, made by which steps.

BUILDCONTENT makes the volume `<Outcome>`, for builds and for what all learners share. SWARMCONTENT
makes one for each node of the profile, `<Outcome>-<idx>`, which the profile's `privatedata` names.

A volume remembers by a digest what it was made of. The same task finds it and is done at once;
another task of the same name is refused, as nobody may overwrite data by a task.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from swarm.api.taskdef import VOLUME
from swarm.errors import LocalError
from swop.fetching import Access, host_and_port, scheme_of
from swop.filling import Job, Step, where
from swop.rules import Rules


@dataclass(frozen=True)
class ContentRequest:
    """A MAKE_SWARM_USER_CONTENT task on this host."""

    task: str
    outcome: str
    volumes: tuple[str, ...]
    steps: tuple[Step, ...]
    rules: Rules = field(default_factory=Rules)
    proxies: dict[str, str] = field(default_factory=dict)
    user: str = ""  # "uid:gid" that the content shall belong to
    dns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(VOLUME, self.outcome):
            cause = f"task {self.task}: its Outcome {self.outcome!r} cannot name a volume"
            raise LocalError("SW7013", cause)
        for step in self.steps:
            if step.is_fetched and scheme_of(step.target) != "file":
                host_and_port(step.target)
            if step.operation == "DOWNLOAD":
                where(step)

    @property
    def digest(self) -> str:
        """What the content is made of."""
        steps = json.dumps([asdict(step) for step in self.steps])
        return hashlib.sha256(steps.encode()).hexdigest()

    @property
    def uses_network(self) -> bool:
        return any(scheme_of(step.target) in ("http", "https") for step in self.steps)

    @property
    def uses_files(self) -> bool:
        """Does it read files that the host offers?"""
        return bool(self.rules.files) and any(scheme_of(s.target) == "file" for s in self.steps)

    def job(self, volumes: Iterable[str], files_seen_at: str = "", lifeline: bool = False) -> Job:
        """What the filling process shall do, with the volumes at these paths."""
        rules = self.rules
        access = Access(rules.reach, rules.files, files_seen_at, self.proxies)
        limits = (rules.content_bytes, rules.task_seconds)
        return Job(self.steps, tuple(volumes), access, *limits, lifeline)


def taken(volume: str) -> LocalError:
    """Somebody else's data must stay as it is."""
    cause = f"the volume {volume} is on this host already, with other content than this task's"
    return LocalError("SW7026", cause)


def finished(names: Iterable[str], already: Iterable[str], text: str) -> str:
    """The sentence on the result."""
    old, new = sorted(already), sorted(names)
    parts = [f"made {', '.join(new)}: {text}"] if new else []
    parts += [f"{', '.join(old)} was there already, made of the same steps"] if old else []
    return f"Content Task Completed : {'; '.join(parts)}"
