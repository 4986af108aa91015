"""Links between learners whose certificates are revoked, barred or renewed while they are up.

Closing is to take at most 5 s; the bound here is generous, as the machine may be busy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.authority import issue_leaf
from swarm.errors import RemoteError
from swarm.identity.live import follow
from swarm.merge.exchange import Key
from swarm.merge.progress import Limits
from swarm.merge.wire import Channel, ConnectionGone, Kind
from tests import pki
from tests.merge.swarmlet import CONTRACT, Node, nodes, vectors
from tests.merge.test_server import SIZE, decided, get
from tests.processes import until

KEY = Key(CONTRACT, 0, 0)
BOUND = 15.0  # seconds in which the links must be closed; 5 are promised
PATIENCE = 60.0  # seconds for everything else


@pytest.fixture
def trio_of_nodes(tmp_path: Path) -> Iterator[list[Node]]:
    made = nodes(tmp_path, vectors(3, 4096))
    stops = [follow(node.identity, node.server.audit, node.dialler.audit) for node in made]
    yield made
    for stop in stops:
        stop.set()
    for node in made:
        node.close()


def exchange(members: list[Node], key: Key) -> None:
    roster = [node.member() for node in members]
    for node in members:
        node.begin(roster, key)
    for node in members:
        node.done.get(timeout=PATIENCE)
    until(lambda: all(n.exchange and n.exchange.delivered() for n in members), PATIENCE, "all over")


def links_of(node: Node) -> list[Channel]:
    """Idle connections that a node has made."""
    return [channel for channel, _ in node.dialler._idle.values()]


def ended(channel: Channel) -> threading.Event:
    """Set when the other side has closed an idle connection."""
    over = threading.Event()
    channel.sock.settimeout(PATIENCE)

    def read() -> None:
        try:
            channel.expect_raw(Kind.END)
        except (ConnectionGone, RemoteError):
            over.set()

    threading.Thread(target=read, daemon=True).start()
    return over


def authority(node: Node) -> pki.Authority:
    assert node.ca is not None
    return node.ca


def test_a_revocation_closes_the_links_that_are_up(
    trio_of_nodes: list[Node], caplog: pytest.LogCaptureFixture
) -> None:
    a, b, bad = trio_of_nodes
    exchange(trio_of_nodes, KEY)
    theirs = [ended(link) for link in links_of(bad)]  # from the one that is revoked
    assert len(theirs) == 2 and len(links_of(a)) == 2
    to_bad = [c for m, (c, _) in a.dialler._idle.items() if m.uid == bad.name]
    started = time.monotonic()
    authority(a).revoke(bad.identity)
    for over in theirs:
        assert over.wait(BOUND)
    print(f"closed after {time.monotonic() - started:.2f} s")
    with pytest.raises(ConnectionGone):
        to_bad[0].sock.settimeout(BOUND)
        to_bad[0].expect_json(Kind.END)
    assert "was revoked by its CA" in caplog.text
    # It may not return, and hears why; those who are left go on.
    model = decided(bytes(SIZE))
    a.server.keep(model)
    with pytest.raises(RemoteError, match="SL-1 was revoked by its CA"):
        get(bad, a, model.digest, bytearray(SIZE))
    with pytest.raises(RemoteError, match="SL-1 was revoked by its CA"):
        a.dialler.dial(bad.member())
    exchange([a, b], Key(CONTRACT, 1, 0))


def admitted(node: Node) -> bool:
    """Somebody with a good certificate is connected to it."""
    return any(guest.chain for guest in node.server._guests.all())


def test_an_eviction_ends_a_merge_that_is_under_way(trio_of_nodes: list[Node]) -> None:
    """The third one never starts, so that the other two stay connected and wait."""
    a, bad, absent = trio_of_nodes
    roster = [node.member() for node in trio_of_nodes]
    limits = Limits(stall=600, unreachable=600)
    for node in (a, bad):
        node.begin(roster, KEY, limits)
    until(lambda: admitted(a) and admitted(bad), PATIENCE, "they are connected")
    started = time.monotonic()
    a.identity.trust.bar({bad.identity.fingerprint: "evicted at height 7"})
    until(lambda: not admitted(a), BOUND, "its connection is closed")
    print(f"closed after {time.monotonic() - started:.2f} s")
    assert bad.exchange is not None and a.exchange is not None
    until(lambda: "evicted at height 7" in bad.exchange.waiting(), BOUND, "it hears why")  # type: ignore[union-attr]
    until(lambda: "evicted at height 7" in a.exchange.waiting(), BOUND, "so do the others")  # type: ignore[union-attr]
    assert absent.exchange is None


def test_links_are_made_with_renewed_certificates(trio_of_nodes: list[Node]) -> None:
    """By another CA, which takes the old one's place between two rounds."""
    exchange(trio_of_nodes, KEY)
    ca, before = authority(trio_of_nodes[0]), trio_of_nodes[0].identity.organisation
    new = pki.authority(ca.capath.parents[1], 2)
    for node in trio_of_nodes:
        held = node.identity
        pem = issue_leaf(new.issued, "SL-1", key=held._private).certificate_pem
        draft = held.source.cert.with_suffix(".new")
        draft.write_bytes(pem)
        draft.replace(held.source.cert)
    exchange(trio_of_nodes, Key(CONTRACT, 1, 0))
    until(
        lambda: all(node.identity.organisation != before for node in trio_of_nodes),
        PATIENCE,
        "all have taken it over",
    )
    ca.path.unlink()
    until(
        lambda: all(len(node.identity.trust.cas) == 1 for node in trio_of_nodes),
        PATIENCE,
        "the old CA is gone",
    )
    exchange(trio_of_nodes, Key(CONTRACT, 2, 0))
