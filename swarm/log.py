"""One log format for all nodes, the one that users' log filters already know."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO

from swarm.errors import LocalError

FORMAT = "%(asctime)s : %(name)s : %(levelname)s : %(message)s"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# Libraries that log each request at INFO: interesting when debugging them, noise otherwise.
_CHATTY = ("docker", "httpcore", "httpx", "hypercorn", "libp2p", "urllib3")


def level_from(env: Mapping[str, str], component: str = "") -> str:
    """The level that the environment asks for: `<component>_LOG_LEVEL` before `SWARM_LOG_LEVEL`."""
    return env.get(f"{component}_LOG_LEVEL") or env.get("SWARM_LOG_LEVEL") or "INFO"


def configure(level: str | None = None, stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (default: standard output).

    `level` is a name of `LEVELS` in any case; None asks the environment. May be called again; the
    last call wins. Raises LocalError SW9001 on an unknown level.
    """
    name = (level or level_from(os.environ)).upper()
    if name not in LEVELS:
        raise LocalError("SW9001", f"unknown log level {name!r}, expected one of {list(LEVELS)}")
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(name)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(name if name == "DEBUG" else "WARNING")
