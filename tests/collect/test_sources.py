"""What operators in containers keep of programs whose containers are gone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from swarm.collect.redact import Redactor
from swarm.collect.sources import containers
from swarm.launch.docker_backend import Docker

ENGINE = """
import io, json, sys, tarfile
words = sys.argv[1:]
LOGS = {
    "demo-run-s-0-ab12.log": "learner",
    "demo-run-u-0-ab12.log": "x" * 99 + "program",
    "notes": "no log",
}
if words[1] == "ls":
    print("c1" if "label=swarm.component" in words else "")
elif words[1] == "inspect":
    labels = {"swarm.component": "swop"}
    config = {"Image": "swarm-node:1", "Labels": labels, "Env": []}
    state = {"Status": "exited"}
    print(json.dumps([{"Name": "/swop1", "State": state, "Config": config, "Mounts": []}]))
elif words[1] == "cp":
    path = words[2].removeprefix("c1:/platform/swarm/SMLNODE/")
    if path == EMPTY:
        sys.exit("Could not find the file")
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for name, text in LOGS.items():
            if path in ("logs", f"logs/{name}"):
                member = tarfile.TarInfo(f"logs/{name}" if path == "logs" else name)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
"""


def engine(tmp_path: Path, empty: str) -> Docker:
    script = tmp_path / "engine.py"
    script.write_text(ENGINE.replace("EMPTY", json.dumps(empty)))
    return Docker((sys.executable, str(script)))


def test_logs_of_removed_programs(tmp_path: Path) -> None:
    found = list(containers(engine(tmp_path, ""), Redactor(), ""))
    assert [(f.role, f.name, f.state) for f in found] == [
        ("swop", "swop1", "exited"),
        ("sl", "demo-run-s-0-ab12", "removed"),
        ("ml", "demo-run-u-0-ab12", "removed"),
    ]
    assert [f.log(10) for f in found[1:]] == ["learner", "xxxprogram"]


def test_an_operator_that_keeps_none(tmp_path: Path) -> None:
    found = list(containers(engine(tmp_path, "logs"), Redactor(), ""))
    assert [f.name for f in found] == ["swop1"]
