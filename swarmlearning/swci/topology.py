"""A drawing of who is connected to whom; needs networkx and matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swarmlearning.swci.answers import NODE_COLUMNS, Node

NEEDED = "plotTopology needs networkx and matplotlib: pip install 'swarmlearning[topology]'"


def graph(nodes: Sequence[Node], attrs: Sequence[str]) -> Any:
    """A networkx graph: network nodes among each other, and each other node with its parent.

    Nodes are uids with the attributes `type` and `label`: the name, and the columns in `attrs`.
    Raises RuntimeError without networkx, ValueError for a column that LIST NODES does not have.
    """
    unknown = [name for name in attrs if name not in NODE_COLUMNS]
    if unknown:
        raise ValueError(f"no column {unknown[0]} in LIST NODES: {', '.join(NODE_COLUMNS)}")
    try:
        import networkx
    except ImportError as fault:
        raise RuntimeError(NEEDED) from fault
    drawn = networkx.Graph()
    for node in nodes:
        more = [node[NODE_COLUMNS.index(name)] for name in attrs]
        drawn.add_node(node.uid, type=kind(node), label="\n".join([node.name, *more]))
    network = [node.uid for node in nodes if kind(node) == "SN"]
    drawn.add_edges_from((one, two) for i, one in enumerate(network) for two in network[i + 1 :])
    drawn.add_edges_from((n.uid, n.parent) for n in nodes if n.parent in drawn)
    return drawn


def kind(node: Node) -> str:
    """SN, SWOP or SL: the sentinel is a network node."""
    return node.type if node.type in ("SWOP", "SL") else "SN"


def draw(nodes: Sequence[Node], colours: dict[str, str], attrs: Sequence[str]) -> Any:
    """Draw into matplotlib's present axes; the graph. Raises as `graph`."""
    drawn = graph(nodes, attrs)
    try:
        import networkx
        from matplotlib import pyplot
    except ImportError as fault:
        raise RuntimeError(NEEDED) from fault
    networkx.draw(
        drawn,
        networkx.spring_layout(drawn, seed=1),  # the same drawing for the same nodes
        ax=pyplot.gca(),
        labels=dict(drawn.nodes(data="label")),
        node_color=[colours[of] for _, of in drawn.nodes(data="type")],
        node_size=1500,
        font_size=8,
    )
    return drawn
