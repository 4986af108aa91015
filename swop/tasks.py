"""From a task on the ledger to what this operator does: a run, a build, or a plain refusal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from swarm.api.taskdef import (
    MakeSwarmUserContent,
    MakeUserContainer,
    PullImage,
    RegistryLogin,
    RunSwarm,
    parse_body,
)
from swarm.errors import LocalError
from swop.content import ContentRequest
from swop.filling import Step
from swop.plan import Host, Mount, RunTask, build_proxies
from swop.profile import MountType, Profile
from swop.pulling import Login, PullRequest
from swop.runtime import BuildRequest


def understand(
    task: Mapping[str, Any], prereq: Mapping[str, Any] | None, profile: Profile, host: Host
) -> RunTask | BuildRequest | PullRequest | ContentRequest:
    """What a task's record asks for; `prereq` is the record of the task that it names.

    Raises LocalError SW7012 (not available yet), SW7013 (unusable), RemoteError SW8010 (the body).
    """
    kind, name = task["type"], task["name"]
    body = parse_body(kind, task["body"], name)
    if isinstance(body, PullImage):
        return _pull(name, str(task["outcome"]), body, host)
    if isinstance(body, MakeSwarmUserContent):
        return _content(name, str(task["outcome"]), body, profile, host)
    if isinstance(body, RunSwarm):
        if prereq is None:
            raise LocalError("SW7013", f"task {name}: its Prereq {task['prereq']} does not exist")
        return _run(name, body, str(prereq["outcome"]))
    assert isinstance(body, MakeUserContainer)
    if body.BuildType != "INLINE":
        raise LocalError("SW7012", f"task {name}: BuildType REMOTE is not available yet")
    return BuildRequest(
        outcome=str(task["outcome"]),
        steps=tuple(body.BuildSteps),
        context_volume=body.BuildContext,
        proxies=build_proxies(profile),
    )


def _pull(name: str, outcome: str, body: PullImage, host: Host) -> PullRequest:
    given = body.Auth
    return PullRequest(
        task=name,
        outcome=outcome,
        repository=body.repository,
        tag=body.Tag,
        login=Login(given.Username, given.Password) if isinstance(given, RegistryLogin) else given,
        logins=host.rules.logins,
    )


def _content(
    name: str, outcome: str, body: MakeSwarmUserContent, profile: Profile, host: Host
) -> ContentRequest:
    volumes: tuple[str, ...] = (outcome,)
    if body.ContentType == "SWARMCONTENT":
        volumes = tuple(f"{outcome}-{node.idx}" for node in profile.pairs)
    steps = tuple(Step(item.Operation, item.Target, **item.options()) for item in body.OpsList)
    return ContentRequest(
        task=name,
        outcome=outcome,
        volumes=volumes,
        steps=steps,
        rules=host.rules,
        proxies=build_proxies(profile),
        user=host.user,
        dns=tuple(profile.dns),
    )


def _run(name: str, body: RunSwarm, image: str) -> RunTask:
    for key, path in (("WorkingDir", body.WorkingDir), ("PrivateContent", body.PrivateContent)):
        _require_absolute(name, key, path)
    shared = []
    for item in body.SharedContent or ():
        _require_absolute(name, "SharedContent Tgt", item.Tgt)
        shared.append(Mount(MountType(item.MType), item.Src, item.Tgt))
    return RunTask(
        name=name,
        image=image,
        entrypoint=_words(name, "Entrypoint", body.Entrypoint),
        command=_words(name, "Command", body.Command),
        workdir=body.WorkingDir,
        environment=body.environment(),
        private_target=body.PrivateContent,
        shared=tuple(shared),
    )


def _words(name: str, key: str, text: str) -> tuple[str, ...]:
    """Split as a shell would."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise LocalError("SW7013", f"task {name}: {key} {text!r}: {error}") from error


def _require_absolute(name: str, key: str, path: str | None) -> None:
    if path is not None and not path.startswith("/"):
        raise LocalError("SW7013", f"task {name}: {key} must be an absolute path, found {path!r}")
