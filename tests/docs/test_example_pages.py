"""The commands on the pages of the PyTorch examples, up to the trainings that others run."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from textwrap import dedent

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
