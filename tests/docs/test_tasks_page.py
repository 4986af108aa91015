"""The page on tasks: its examples are valid, and its tables say what the program does."""

from __future__ import annotations

import re
from pathlib import Path

from swarm.api.taskdef import BODIES, parse_body, parse_task
from swop.rules import Rules

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "tasks.md").read_text()


def test_one_good_example_of_each_type() -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    tasks = [parse_task(text, "tasks.md") for text in examples]
    assert sorted(task.TaskType for task in tasks) == sorted(BODIES)
    for task in tasks:
        assert parse_body(task.TaskType, task.body_lines(), task.Name) == task.Body


def test_the_rules_and_their_defaults() -> None:
    rules = Rules()
    rows = dict(re.findall(r"^\| `(SWOP_\w+)` \| `?(.*?)`? \|", PAGE, re.MULTILINE))
    assert rows == {
        "SWOP_CONTENT_PUBLIC": "yes" if rules.reach.public else "no",
        "SWOP_CONTENT_HOSTS": "none",
        "SWOP_CONTENT_FILES": rules.files or "none",
        "SWOP_CONTENT_MAX_BYTES": f"{rules.content_bytes >> 30}G",
        "SWOP_TASK_MAX_SECONDS": str(rules.task_seconds),
    }
    assert not rules.reach.names and not rules.reach.networks
