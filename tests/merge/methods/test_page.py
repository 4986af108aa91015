"""The page on merging says of each method what is true of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from swarm.merge import methods
from swarmlearning.settings import Settings, SLMergeMethod, SLPlatforms

PAGE = (Path(__file__).resolve().parents[3] / "docs/explanation/merging.md").read_text()
ROWS = {
    cells[1].strip(" `"): [cell.strip() for cell in cells[2:5]]
    for line in PAGE.partition("*Breakdown point*")[0].splitlines()
    if line.startswith("| `") and len(cells := line.split("|")) == 7
}


def test_it_has_all_methods() -> None:
    assert set(ROWS) >= set(methods.BUILT_IN) == {method.name for method in SLMergeMethod}


@pytest.mark.parametrize("name", methods.BUILT_IN)
def test_arguments_and_members_needed(name: str) -> None:
    arguments, needed, _ = ROWS[name]
    known = methods.BUILT_IN[name].ARGS
    stated = dict(re.findall(r"`(\w+)` \(([^)]*)\)", arguments))
    assert set(stated) == set(known)
    for key, default in stated.items():
        if known[key].default is not None:
            assert default == str(known[key].default)
    for f in (1, 2, 3):
        args = {"f": f} if "f" in known else {}
        count = {"1": 1, "2f + 1": 2 * f + 1}.get(needed, 2 * f + 3)
        assert methods.check(name, args, count) == ""
        if count > 1:
            assert methods.check(name, args, count - 1)
    if "m" in known:
        assert methods.check(name, {"f": 1, "m": 7}, 7) and not methods.check(name, {"m": 7}, 8)


def test_its_example() -> None:
    given: dict[str, Any] = {}
    code = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(code[0], {"SwarmCallback": given.update})
    sync, peers = given.pop("syncFrequency"), given.pop("minPeers")
    settings = Settings.read(sync, peers, "c", given, [SLPlatforms.KERAS])
    asked = methods.agreed(settings.merge_method, settings.merge_args, settings.min_peers)
    assert asked == ("krum", {"f": 1})
