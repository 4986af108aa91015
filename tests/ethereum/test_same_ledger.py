"""One scenario through both orderers: the same verdicts, and the same tables in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from swarm.identity import Identity, Role
from tests import pki
from tests.ethereum.anvil import Anvil
from tests.ethereum.net import run
from tests.ledger.net import Swarm, sign, swarm

# Who sends what. The last column says what it stands for.
SCENARIO: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("operator", "task.create", {"name": "a", "type": "RUN_SWARM", "author": "A",
                                 "prereq": "ROOTTASK", "outcome": "o"}),
    ("operator", "task.create", {"name": "a", "type": "RUN_SWARM", "author": "A",
                                 "prereq": "ROOTTASK", "outcome": "o"}),  # exists already
    ("operator", "task.append", {"task": "a", "index": 1, "lines": ["one", "two"]}),
    ("operator", "task.append", {"task": "a", "index": 9, "lines": ["out of turn"]}),
    ("operator", "task.append", {"task": "none", "index": 1, "lines": ["x"]}),
    ("operator", "no.such.thing", {}),
    ("operator", "task.create", {"name": 7}),  # malformed arguments
    ("operator", "node.leave", {"uid": "0" * 32}),  # not for this role
    ("sn-2", "node.leave", {"uid": "sn-2"}),
    ("sn-2", "node.leave", {"uid": "sn-1"}),  # somebody else's
)  # fmt: skip
TIMES = {"time_ms", "at_ms", "started_ms", "ended_ms", "updated_ms"}


def without_times(value: Any) -> Any:
    """Blocks of the two have different clocks; everything else must be equal."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


async def play(made: Swarm) -> tuple[list[Any], dict[str, Any]]:
    """Send the scenario, one after the other, by turns through both nodes; all that came of it."""
    sites = await made.grow(2)
    who: dict[str, Identity] = {"operator": made.operator}
    who |= {site.name: site.identity for site in sites}
    names = {site.name: site.uid for site in sites}
    verdicts = []
    for number, (sender, op, args) in enumerate(SCENARIO):
        args = {key: names.get(value, value) if key == "uid" else value
                for key, value in args.items()}  # fmt: skip
        tx = sign(who[sender], made.genesis, op, args, sites[0].replica.state.height + 500)
        height, verdict = await sites[number % 2].replica.submit(tx)
        verdicts.append((height, verdict.ok, verdict.code, verdict.text, verdict.result))
    await made.at(height)
    assert len({site.replica.state.digest() for site in sites}) == 1
    state = sites[0].replica.state
    tables = ("nodes", "cas", "tasks", "taskrunners", "contracts", "meta")
    return verdicts, {name: without_times(dict(state.table(name))) for name in tables}


def test_both_orderers_come_to_the_same(
    tmp_path: Path, node: Anvil, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}
    authority = pki.authority(tmp_path / "ca")
    identity = pki.identity

    def once(directory: Path, role: Role | str, ca: Any, **options: Any) -> Identity:
        """The same member, with the same key, in both swarms."""
        name = directory.name
        if name not in made:
            made[name] = identity(tmp_path / "members" / name, role, ca, **options)
        found: Identity = made[name]
        return found

    monkeypatch.setattr(pki, "authority", lambda *_: authority)
    monkeypatch.setattr(pki, "identity", once)
    results: list[Any] = []

    async def test(swarm_: Swarm) -> None:
        results.append(await play(swarm_))

    async def embedded() -> None:
        with trio.fail_after(3600):
            async with swarm(tmp_path / "embedded") as one:
                await test(one)

    trio.run(embedded, clock=trio.testing.MockClock(autojump_threshold=0))
    above: Callable[[Any], Awaitable[None]] = test
    run(tmp_path / "ethereum", node, above)
    (verdicts, tables), (other_verdicts, other_tables) = results
    assert verdicts == other_verdicts
    assert [ok for _, ok, *_ in verdicts] == [True, False, True] + 5 * [False] + [True, False]
    assert tables == other_tables
