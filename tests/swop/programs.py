"""Programs and waiting for the operator's tests."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from swop.plan import LABEL_INDEX, LABEL_NODE, LABEL_OPERATION, LABEL_ROLE, Program
from swop.runtime import RunState, RunStatus, Runtime

IMAGE = "swarm-test-program:latest"
RUNTIMES = [  # for the fixture make_runtime
    "PROCESS",
    pytest.param("DOCKER", marks=pytest.mark.docker),
    pytest.param("PODMAN", marks=[pytest.mark.docker, pytest.mark.netns]),
]


def is_podman(runtime: Runtime) -> bool:
    return runtime.check().startswith("Podman")


def python(runtime: Runtime, code: str, **changes: Any) -> Program:
    """An ML program that runs `code`."""
    operation = changes.pop("operation", uuid.uuid4().hex[:16])
    name = f"swarm-test-u-0-{uuid.uuid4().hex[:8]}"
    program = Program(
        name=name,
        role="ML",
        operation=operation,
        index=0,
        image=IMAGE,
        entrypoint=("python3",),
        command=("-c", code),
        environment={"PYTHONUNBUFFERED": "1"},
        mounts=(),
        link=f"swarm-test-link-{uuid.uuid4().hex[:8]}",
        labels={
            LABEL_NODE: runtime.uid,  # type: ignore[attr-defined]
            LABEL_OPERATION: operation,
            LABEL_ROLE: "ML",
            LABEL_INDEX: "0",
        },
    )
    return replace(program, **changes)


def eventually(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true value of `condition`, looked at often; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


def ended(runtime: Runtime, name: str, seconds: float = 30.0) -> RunStatus:
    """Wait for the end of a program."""

    def look() -> RunStatus | None:
        status = runtime.status(name)
        return status if status.state is RunState.EXITED else None

    found: RunStatus = eventually(look, seconds)
    return found
