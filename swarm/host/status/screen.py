"""The overview on a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from swarm.host.status.overview import ContractRow, NodeRow, Overview, RunnerRow

WIDE, NARROW = 100, 60  # columns from which on addresses are shown, and what nodes do

_STYLES = {
    "RUNNING": "green", "COMPLETE": "green", "MERGING": "green", "here": "green",
    "ERROR": "bold red", "ASSIGNED": "yellow", "CHECKIN": "yellow",
}  # fmt: skip


def draw(view: Overview, width: int) -> RenderableType:
    """The whole screen: what is wrong or waits first, as a small terminal cuts off the end."""
    return Group(*_parts(view, width))


def _parts(view: Overview, width: int) -> Iterator[RenderableType]:
    if view.problem:
        yield Text(f"No network node answers: {view.problem}", style="bold red")
    if view.network is not None:
        yield from _network(view)
    for warning in view.warnings:
        yield Text.assemble(("! ", "bold yellow"), (warning, "yellow"))
    if view.network is None:
        return
    yield _title("CONTRACTS", len(view.contracts))
    for contract in view.contracts:
        yield from _contract(contract)
    yield _title("TASKRUNNERS", len(view.taskrunners))
    for runner in view.taskrunners:
        yield from _runner(runner)
    gone = f"; {view.gone} gone" if view.gone else ""
    yield _title("NODES", len(view.nodes), gone)
    yield Padding(_nodes(view.nodes, width), (0, 0, 0, 2))


def _network(view: Overview) -> Iterator[RenderableType]:
    network = view.network
    assert network is not None, "the caller looked"
    yield Text.assemble(
        ("NETWORK ", "bold"), network.chain, f"  block {network.height}", f"  {view.at}"
    )
    yield Text(
        f"  {network.validators} validator{'s' * (network.validators != 1)}, "
        f"{network.quorum} for a quorum, {network.fault_model}"
    )
    if network.waiting:
        yield _waits(network.waiting)


def _title(name: str, count: int, more: str = "") -> Text:
    return Text.assemble((name, "bold"), f" {count or 'none'}{more}")


def _waits(why: str) -> RenderableType:
    return Padding(Text.assemble(("waits: ", "yellow"), why), (0, 0, 0, 4))


def _styled(word: str) -> tuple[str, str]:
    return word, _STYLES.get(word, "")


def _contract(row: ContractRow) -> Iterator[RenderableType]:
    facts = [f"round {row.round}", row.learners, row.last]
    line = Text.assemble("  ", (row.name, "cyan"), "  ", _styled(row.status))
    line.append("".join(f" · {fact}" for fact in facts if fact))
    yield line
    if row.waiting:
        yield _waits(row.waiting)


def _runner(row: RunnerRow) -> Iterator[RenderableType]:
    line = Text.assemble("  ", (row.name, "cyan"), "  ", _styled(row.state))
    line.append("".join(f" · {fact}" for fact in (row.task, row.progress) if fact))
    yield line
    if row.waiting:
        yield _waits(row.waiting)


def _nodes(rows: tuple[NodeRow, ...], width: int) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column()
    if width >= WIDE:
        table.add_column(no_wrap=True)
    if width >= NARROW:
        table.add_column()
    for row in rows:
        cells = [Text(row.type), Text(row.name), Text(*_styled(row.state))]
        if row.state != "here":
            cells[2].stylize("red")
        if width >= WIDE:
            cells.append(Text(row.address))
        if width >= NARROW:
            cells.append(Text(row.doing))
        table.add_row(*cells)
    return table
