"""One log format for all nodes, the one that users' log filters already know."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from swarm.errors import LocalError

FORMAT = "%(asctime)s : %(name)s : %(levelname)s : %(message)s"
FILE_BYTES, FILES = 20_000_000, 5  # of a log in LOGS_DIR: at most so much, in so many files
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# Libraries that log each request at INFO: interesting when debugging them, noise otherwise.
_CHATTY = ("docker", "httpcore", "httpx", "hypercorn", "libp2p", "urllib3")


def level_from(env: Mapping[str, str], component: str = "") -> str:
    """The level that the environment asks for: `<component>_LOG_LEVEL` before `SWARM_LOG_LEVEL`."""
    return env.get(f"{component}_LOG_LEVEL") or env.get("SWARM_LOG_LEVEL") or "INFO"


def configure(level: str | None = None, stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (default: standard output).

    Where the environment has LOGS_DIR, to `<name of the node>.log` there as well. `level` is a name
    of `LEVELS` in any case; None asks the environment. May be called again; the last call wins.
    Raises LocalError SW9001 on an unknown level, SW9011 when LOGS_DIR cannot be written to.
    """
    name = (level or level_from(os.environ)).upper()
    if name not in LEVELS:
        raise LocalError("SW9001", f"unknown log level {name!r}, expected one of {list(LEVELS)}")
    handlers: list[logging.Handler] = [logging.StreamHandler(stream or sys.stdout)]
    if os.environ.get("LOGS_DIR"):
        handlers.append(_file(os.environ))
    root = logging.getLogger()
    for handler in handlers:
        handler.setFormatter(logging.Formatter(FORMAT))
    root.handlers[:] = handlers
    root.setLevel(name)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(name if name == "DEBUG" else "WARNING")


def _file(env: Mapping[str, str]) -> logging.Handler:
    path = Path(env["LOGS_DIR"]) / f"{Path(env.get('SWARM_NODE_NAME') or 'node').name}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        return RotatingFileHandler(path, maxBytes=FILE_BYTES // FILES, backupCount=FILES - 1)
    except OSError as fault:
        raise LocalError("SW9011", f"LOGS_DIR: {path} ({fault.strerror})") from fault
