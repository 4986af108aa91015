"""PULL_IMAGE: which image, and with which login.

A task names its login in one of three ways: none; a path to a docker `config.json` on the host of
the operator; user name and password in the task itself, which stand on the ledger for all members
to read.

A file is taken from the directory only that the host's administrator set aside for it: a task of
another organisation must not choose among all logins of the host. Credential helpers that a file
names are never run.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker import auth
from docker.errors import DockerException

from swarm.errors import LocalError
from swop.mask import Mask

MAX_FILE = 1 << 20


@dataclass(frozen=True)
class Login:
    """User name and password at a registry. The password is in no text that is made of it."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class PullRequest:
    """A PULL_IMAGE task on this host."""

    task: str
    outcome: str
    repository: str  # registry, organisation and name
    tag: str
    login: Login | str | None  # str: path of a config.json
    logins: str = ""  # the directory that such paths must lie in

    @property
    def reference(self) -> str:
        return f"{self.repository}{'@' if ':' in self.tag else ':'}{self.tag}"

    @property
    def registry(self) -> str:
        name: str = auth.resolve_repository_name(self.repository)[0]
        return name


def credentials(request: PullRequest) -> dict[str, Any]:
    """What the engine shall log in with; {} for nobody. LocalError SW7030."""
    login = request.login
    if login is None:
        return {}
    if isinstance(login, Login):
        return {"username": login.username, "password": login.password}
    return _from_file(login, request)


def _from_file(name: str, request: PullRequest) -> dict[str, Any]:
    """The entry for the task's registry. No text of the file gets into a message."""
    root = Path(request.logins)
    path = root / name
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root.resolve()):
            cause = f"{path} is not below {root} (SWOP_REGISTRY_LOGINS)"
            raise LocalError("SW7030", cause)
        if not real.is_file() or real.stat().st_size > MAX_FILE:
            raise LocalError("SW7030", f"{path} is no docker config.json")
        value = json.loads(real.read_text(encoding="utf-8"))
        entries = auth.AuthConfig.parse_auth(value["auths"], raise_on_error=True)
        # Without the names of credential helpers: these are programs.
        found = auth.AuthConfig({"auths": entries}).resolve_authconfig(request.registry)
    except OSError as error:
        raise LocalError("SW7030", f"{path}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, DockerException):
        raise LocalError("SW7030", f"{path} is no docker config.json with logins") from None
    if not found:
        raise LocalError("SW7030", f"{path} has no login for {request.registry}")
    return dict(found)


def masked(login: Mapping[str, Any]) -> Mask:
    """Masks passwords and tokens, also in the form in which they travel."""
    password, token = str(login.get("password", "")), str(login.get("IdentityToken", ""))
    pair = base64.b64encode(f"{login.get('username', '')}:{password}".encode()).decode()
    return Mask({"PASSWORD": password, "TOKEN": token, "SECRET": pair})


def changes(items: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Of an engine's reports on layers, one line for each change; bars of progress are left out.

    Raises LocalError SW7029 at the engine's word that it failed.
    """
    last: dict[str, str] = {}
    for item in items:
        if "error" in item:
            raise LocalError("SW7029", str(item["error"])[:600])
        layer, status = str(item.get("id", "")), str(item.get("status", ""))
        if status and last.get(layer) != status:
            last[layer] = status
            yield f"{layer}: {status}" if layer else status
