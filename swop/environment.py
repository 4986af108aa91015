"""What a build task means without containers: the local Python environment, checked and recorded.

A build task names an image; under PROCESS its RUN_SWARM tasks run with the interpreter beside the
operator. The check is that this interpreter starts and can import `swarmlearning`; what else a
program needs shows when it runs. The record says what was there when the task ran.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from swarm.errors import LocalError

SECONDS = 120
FRAMEWORKS = (
    "numpy", "tensorflow", "tensorflow-cpu", "keras", "torch", "transformers", "peft",
    "scikit-learn",
)  # fmt: skip
PROBE = f"""
import json, platform, sys
from importlib import metadata
import swarmlearning
found = {{}}
for name in {FRAMEWORKS!r}:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
try:
    found["swarmlearning"] = metadata.version("swarmlearning")
except metadata.PackageNotFoundError:
    found["swarmlearning"] = "?"
print(json.dumps({{"version": platform.python_version(), "packages": found}}))
"""


@dataclass(frozen=True)
class EnvironmentRecord:
    """An interpreter and the packages that matter here."""

    python: str
    version: str
    packages: Mapping[str, str]

    @property
    def summary(self) -> str:
        names = ", ".join(f"{name} {version}" for name, version in sorted(self.packages.items()))
        return f"Python {self.version}, {names}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> EnvironmentRecord:
        try:
            packages = {str(name): str(item) for name, item in value["packages"].items()}
            return cls(str(value["python"]), str(value["version"]), packages)
        except (KeyError, AttributeError, TypeError) as error:
            raise LocalError("SW7015", f"a damaged environment record: {error!r}") from error


def examine(python: str) -> EnvironmentRecord:
    """Start the interpreter, import `swarmlearning`, and look around. LocalError SW7014."""
    try:
        done = subprocess.run(
            [python, "-c", PROBE], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalError("SW7014", f"{python} does not run: {error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LocalError("SW7014", f"{python} cannot import swarmlearning: {last[:300]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return EnvironmentRecord(python, found["version"], found["packages"])
