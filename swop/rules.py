"""What this host's administrator allows tasks to do, as `SWOP_…` variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from swarm.errors import LocalError
from swop.reach import Reach, read_reach

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
TASK_SECONDS = 3600
CONTENT_BYTES = 50 << 30
USER_DIRECTORY = "/platform/swarm/usr"
WORDS = {"yes": True, "true": True, "1": True, "on": True}
WORDS |= {"no": False, "false": False, "0": False, "off": False}


@dataclass(frozen=True)
class Rules:
    """Limits and permissions for builds, pulls and content."""

    task_seconds: int = TASK_SECONDS
    reach: Reach = field(default_factory=Reach)
    files: str = ""  # directory below which content tasks may read files; "" = none
    content_bytes: int = CONTENT_BYTES
    logins: str = USER_DIRECTORY  # directory of the docker config.json files that tasks may name


def read_rules(environment: Mapping[str, str]) -> Rules:
    """Raises LocalError SW7004, with the variable's name."""
    public = _yes_or_no(environment, "SWOP_CONTENT_PUBLIC")
    name = "SWOP_CONTENT_HOSTS"
    files = environment.get("SWOP_CONTENT_FILES", "").rstrip("/")
    if files and (not files.startswith("/") or "/../" in f"{files}/"):
        raise LocalError("SW7004", f"SWOP_CONTENT_FILES: expected an absolute path, found {files}")
    return Rules(
        task_seconds=_number(environment, "SWOP_TASK_MAX_SECONDS", TASK_SECONDS),
        reach=read_reach(public, environment.get(name, ""), name),
        files=files,
        content_bytes=_number(environment, "SWOP_CONTENT_MAX_BYTES", CONTENT_BYTES),
        logins=environment.get("SWOP_REGISTRY_LOGINS")
        or environment.get("USR_DIR")
        or USER_DIRECTORY,
    )


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A positive number, with K, M, G or T for powers of 1024."""
    text = environment.get(name, "").strip()
    if not text:
        return default
    found = re.fullmatch(r"([1-9][0-9]{0,14})\s*([KMGT]?)", text, re.IGNORECASE)
    if not found:
        raise LocalError("SW7004", f"{name}: expected a number such as 3600 or 20G, found {text!r}")
    return int(found[1]) * UNITS[found[2].upper()]


def _yes_or_no(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "").strip().lower() or "yes"
    if text not in WORDS:
        raise LocalError("SW7004", f"{name}: expected yes or no, found {text!r}")
    return WORDS[text]
