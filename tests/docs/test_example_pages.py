"""The commands on the pages of the examples, up to the trainings that others run."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from tests.docs.test_commands import REPOSITORY, shell

EXAMPLES = REPOSITORY / "examples"
BLOCK = re.compile(r"^( *)```\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", ["mnist-pyt", "huggingface"])
def test_commands(tmp_path: Path, example: str) -> None:
    page = (EXAMPLES / example / "README.md").read_text()
    commands = [dedent(block) for _, block in BLOCK.findall(page)]
    assert len(commands) == 3
    workspace = tmp_path / "workspace" / example
    shutil.copytree(EXAMPLES / example, workspace)
    # Programs that would train for seconds are compiled only; test_torch_examples runs them.
    shell(tmp_path, 'python() { command python -m py_compile "$@"; }\n' + "".join(commands))
    for task in (workspace / "swci" / "taskdefs").glob("*.yaml"):
        assert "<PROJECT" not in task.read_text()
    assert list((workspace / "user1").glob("*.csv" if example == "huggingface" else "mnist.npz"))


def test_commands_of_scikit_learn(tmp_path: Path) -> None:
    """The program of the last one runs alone, and learns its own half of the digits."""
    workspace = tmp_path / "workspace" / "sklearn"
    shutil.copytree(EXAMPLES / "sklearn", workspace)
    page = (EXAMPLES / "sklearn" / "README.md").read_text()
    shell(tmp_path, "".join(dedent(block) for _, block in BLOCK.findall(page)), MAX_EPOCHS="4")
    assert 0.4 < json.loads((workspace / "user1" / "result.json").read_text())["accuracy"] <= 0.51
    assert "<" not in (workspace / "swci" / "taskdefs" / "swarm_sklearn_task.yaml").read_text()


def test_commands_of_fraud_detection(tmp_path: Path) -> None:
    """The last one compares; here the swarm's model is one that finds everything fraud."""
    workspace = tmp_path / "workspace" / "fraud-detection"
    shutil.copytree(EXAMPLES / "fraud-detection", workspace)
    np.savez(workspace / "user1" / "model.npz", w=np.zeros(30), b=np.array(1.0))
    page = (EXAMPLES / "fraud-detection" / "README.md").read_text()
    shown = shell(tmp_path, "".join(dedent(block) for _, block in BLOCK.findall(page)))
    assert re.search(r"^swarm +0\.500$", shown, re.MULTILINE), shown
    assert "<" not in (workspace / "swci" / "taskdefs" / "swarm_fraud_task.yaml").read_text()


def test_all_words_of_the_reviews_are_known() -> None:
    folder = EXAMPLES / "huggingface"
    spec = importlib.util.spec_from_file_location("reviews_data", folder / "data.py")
    assert spec is not None
    assert spec.loader is not None
    data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(data)
    words = (folder / "model" / "vocab.txt").read_text().split()
    assert words == data.vocabulary()
    for topic in data.TOPICS:
        for text, label in [*data.part(topic, 0, 3), *data.test(topic)]:
            assert set(text.split()) <= set(words)
            assert label in (0, 1)
