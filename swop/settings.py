"""What run-swop tells the operator, as environment variables."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swarm.address import service_address
from swarm.errors import LocalError
from swop.kept_logs import MIB
from swop.profile import ManagerType
from swop.rules import Rules, read_rules

TRUE_WORDS = frozenset({"true", "1", "yes", "on"})
FALSE_WORDS = frozenset({"false", "0", "no", "off"})
KEPT_MIB, MOST_KEPT_MIB = 64, 65536


@dataclass(frozen=True)
class Settings:
    """The operator's environment, checked."""

    profile: Path
    name: str  # announced name; part of the node's uid
    sn_host: str  # "" when the profile has to name it
    sn_port: int | None
    sn_service: bool  # it is behind a reverse proxy, under this name
    runtime: ManagerType | None  # None: as the profile says
    keep: bool  # keep SL and ML after RESET, for debugging
    keep_logs: int  # bytes for logs of SLs and MLs that were removed
    stream_logs: bool  # their output goes to the operator's log, too
    user: str  # "uid:gid" of SL and ML; "" = as they come
    data: Path
    image: str  # "" = the operator's own
    rules: Rules  # what tasks may do here


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Raises LocalError SW7004, with the variable's name."""
    directory = Path(environment.get("USR_DIR") or "/platform/swarm/usr")
    file = environment.get("SWOP_PROFILE")
    if not file:
        raise LocalError("SW7004", "SWOP_PROFILE (--profile-file-name) is not set")
    name = environment.get("SWARM_NODE_NAME") or socket.gethostname()
    data = environment.get("SWARM_DATA_DIR")
    sn_host, sn_port = _network_node(environment)
    return Settings(
        profile=directory / file,
        name=name,
        sn_host=sn_host,
        sn_port=sn_port,
        sn_service=bool(environment.get("SN_API_SERVICE")),
        runtime=_runtime(environment.get("SWARM_RUNTIME", "")),
        keep=environment.get("SWOP_KEEP_CONTAINERS", "").strip().lower() in TRUE_WORDS,
        keep_logs=_kept(environment.get("SWOP_KEEP_LOGS", "")),
        stream_logs=environment.get("SWOP_STREAM_LOGS", "").strip().lower() in TRUE_WORDS,
        user=_user(environment),
        data=Path(data) if data else Path.home() / ".swarm" / name / "data",
        image=environment.get("SWARM_IMAGE", ""),
        rules=read_rules(environment),
    )


def _network_node(environment: Mapping[str, str]) -> tuple[str, int | None]:
    """The SN behind a reverse proxy where one is named, else its host and port."""
    if service := environment.get("SN_API_SERVICE", ""):
        try:
            return service_address(service)
        except ValueError as error:
            raise LocalError("SW7004", f"SN_API_SERVICE: {error}") from None
    return environment.get("SN_NODE_IP", ""), _port(environment, "SN_API_SERVER_PORT")


def _port(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise LocalError("SW7004", f"{name}: expected a port number, found {text!r}")
    return int(text)


def _kept(text: str) -> int:
    """Bytes for kept logs: a number of MiB, or a truth value."""
    word = text.strip().lower()
    if not word or (word in TRUE_WORDS and word != "1"):
        return KEPT_MIB * MIB
    if word in FALSE_WORDS:
        return 0
    if not word.isdigit() or not 1 <= int(word) <= MOST_KEPT_MIB:
        cause = (
            f"SWOP_KEEP_LOGS: expected 0 to {MOST_KEPT_MIB} (MiB), True or False, found {text!r}"
        )
        raise LocalError("SW7004", cause)
    return int(word) * MIB


def _runtime(text: str) -> ManagerType | None:
    if not text:
        return None
    try:
        return ManagerType(text.upper())
    except ValueError as error:
        cause = f"SWARM_RUNTIME: expected DOCKER or PROCESS, found {text!r}"
        raise LocalError("SW7004", cause) from error


def _user(environment: Mapping[str, str]) -> str:
    uid, gid = environment.get("SWOP_UID", ""), environment.get("SWOP_GID", "")
    for name, text in (("SWOP_UID", uid), ("SWOP_GID", gid)):
        if text and not text.isdigit():
            raise LocalError("SW7004", f"{name}: expected a number, found {text!r}")
    return f"{uid}:{gid or uid}" if uid else ""
