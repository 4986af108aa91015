"""The page on logs: its commands run, against an operator's real remains."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm.launch import nodes
from swop.process_runtime import ProcessRuntime
from swop.runtime import BuildRequest
from swop.work import Work
from tests.docs.test_commands import blocks, shell
from tests.swop.programs import IMAGE, ended, python


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "home"))
    for name, component in (("swop1", "swop"), ("sn1", "sn")):
        nodes.directory(name).mkdir(parents=True)
        nodes.register(name, component, os.getpid(), remove=False)
    (nodes.directory("sn1") / "log").write_text("the network node's\n")
    runtime = ProcessRuntime("a" * 32, nodes.directory("swop1") / "data")
    runtime.build(BuildRequest(IMAGE, (), None, {}), Work())
    code = "print('epoch 1'); print('epoch 2'); print('epoch 3')"
    program = python(runtime, code, name="demo-train-u-0-1a2b3c4d")
    runtime.start(program)
    ended(runtime, program.name)
    runtime.remove([program.name])
    output = shell(tmp_path, "".join(blocks("docs/how-to/logs.md")))
    assert "the network node's" in output
    assert "demo-train-u-0-1a2b3c4d  -      removed" in output
    assert output.endswith("epoch 2\nepoch 3\nepoch 1\nepoch 2\nepoch 3\n")
