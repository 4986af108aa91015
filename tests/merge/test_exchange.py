"""Whole exchanges over TLS on loopback: the mean, resumption, and who is blamed for what."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.merge.exchange import Exchange, Key, Law
from swarm.merge.progress import Limits
from swarm.merge.wire import PROTOCOL
from tests.merge.swarmlet import CONTRACT, Node, nodes, vectors
from tests.processes import until

KEY = Key(CONTRACT, 0, 0)
BOUND = 30.0  # seconds; never reached when things work
Make = Callable[[list[NDArray[np.float32]]], list[Node]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Node] = []

    def factory(data: list[NDArray[np.float32]]) -> list[Node]:
        made.extend(nodes(tmp_path, data))
        return made

    yield factory
    for node in made:
        node.close()


def blamed(exchange: Exchange) -> dict[str, str]:
    """Wait until the exchange blames somebody."""
    bell = threading.Event()
    for _ in range(int(BOUND / 0.02)):
        found = exchange.poll()
        if found:
            return found
        bell.wait(0.02)
    raise AssertionError(f"nobody is blamed: {exchange.waiting()}")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [16, 4096, 300_000])
def test_all_get_the_same_weighted_mean(make: Make, count: int, length: int) -> None:
    data = vectors(count, length)
    members = make(data)
    weights = [10 * (i + 1) for i in range(count)]
    roster = [node.member(weight) for node, weight in zip(members, weights, strict=True)]
    for node in members:
        node.begin(roster, KEY)
    results = [node.done.get(timeout=BOUND) for node in members]
    assert len({result.digest for result in results}) == 1
    assert len({bytes(node.output) for node in members}) == 1
    expected = np.average(np.stack(data).astype(float), axis=0, weights=weights)
    np.testing.assert_allclose(members[0].result(), expected, rtol=1e-5, atol=1e-6)


def test_rounds_follow_each_other_over_the_same_connections(make: Make) -> None:
    members = make(vectors(3, 4096))
    for number in range(3):
        roster = [node.member() for node in members]
        for node in members:
            if node.exchange:
                node.exchange.abort()
            node.begin(roster, Key(CONTRACT, number, 0))
        digests = {node.done.get(timeout=BOUND).digest for node in members}
        assert len(digests) == 1
        for node in members:
            node.vector = node.vector + np.float32(number + 1)


def test_weight_zero_sends_nothing_and_gets_all(make: Make) -> None:
    data = vectors(3, 300_000)
    data[1][:] = np.nan
    members = make(data)
    roster = [node.member(weight) for node, weight in zip(members, [1, 0, 1], strict=True)]
    for node in members:
        node.begin(roster, KEY)
    for node in members:
        node.done.get(timeout=BOUND)
    np.testing.assert_allclose(members[1].result(), (data[0] + data[2]) / 2, rtol=1e-5)


def test_bytes_on_the_wire_are_near_the_optimum(make: Make) -> None:
    members = make(vectors(4, 2_000_000))
    roster = [node.member() for node in members]
    exchanges = [node.begin(roster, KEY) for node in members]
    for node in members:
        node.done.get(timeout=BOUND)
    for node, exchange in zip(members, exchanges, strict=True):
        exchange.abort()
        optimum = 2 * node.vector.nbytes * 3 // 4
        assert exchange.bytes_sent < 1.05 * optimum + 150_000


def test_a_member_that_never_comes_is_blamed_as_unreachable(make: Make) -> None:
    members = make(vectors(3, 4096))
    roster = [node.member() for node in members]
    members[2].server.close()
    limits = Limits(stall=20, unreachable=0.3)
    first = members[0].begin(roster, KEY, limits)
    members[1].begin(roster, KEY, limits)
    assert list(blamed(first)) == ["sl-2"]
    assert "cannot be reached" in blamed(first)["sl-2"]


def test_a_member_of_another_version_is_blamed_for_that(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = make(vectors(2, 4096))
    roster = [node.member() for node in members]
    monkeypatch.setattr("swarm.merge.sending.PROTOCOL", 1)  # what both of them say, and not hear
    exchange = members[0].begin(roster, KEY, Limits(stall=60, unreachable=0.3))
    members[1].begin(roster, KEY)
    why = blamed(exchange)["sl-1"]
    assert f"it is of another version: this learner speaks protocol {PROTOCOL}" in why


def test_a_silent_member_is_blamed_by_all_and_nobody_else_is(make: Make) -> None:
    members = make(vectors(3, 300_000))
    roster = [node.member() for node in members]
    limits = Limits(stall=1.5, unreachable=20)
    exchanges = [node.begin(roster, KEY, limits) for node in members[:2]]
    for exchange in exchanges:
        assert list(blamed(exchange)) == ["sl-2"]


def test_a_root_that_does_not_fit_is_found_at_once(make: Make) -> None:
    members = make(vectors(3, 4096))
    roster = [node.member() for node in members[:2]]
    roster.append(members[2].member(root=bytes(32)))
    limits = Limits(stall=60, unreachable=60)
    exchanges = [node.begin(roster, KEY, limits) for node in members]
    for exchange in exchanges[:2]:
        assert "root of its check-in" in blamed(exchange)["sl-2"]


def test_blocks_that_do_not_fit_their_digest_are_found_at_once(make: Make) -> None:
    members = make(vectors(2, 300_000))
    roster = [node.member() for node in members]
    limits = Limits(stall=60, unreachable=60)
    members[1].begin(roster, KEY, limits, spoil=True)
    good = members[0].begin(roster, KEY, limits)
    assert "does not fit its digest" in blamed(good)["sl-1"]


def test_a_broken_connection_is_made_again_and_goes_on(make: Make) -> None:
    members = make(vectors(3, 3_000_000))
    roster = [node.member() for node in members]
    exchanges = [node.begin(roster, KEY) for node in members]
    for _ in range(5):
        for exchange in exchanges:
            with exchange.attempt.changed:
                channels = list(exchange.attempt.outgoing.values())
            for channel in channels:
                channel.abort()
    digests = {node.done.get(timeout=BOUND).digest for node in members}
    assert len(digests) == 1
    assert all(not exchange.poll() for exchange in exchanges)


def test_a_stranger_and_an_impostor_get_nothing(make: Make, tmp_path: Path) -> None:
    members = make(vectors(3, 4096))
    roster = [node.member() for node in members[:2]]
    exchanges = [node.begin(roster, KEY) for node in members[:2]]
    # A learner with a good certificate that is no member, claiming a member's uid.
    impostor = members[2]
    impostor.name = "sl-0"
    fake = [impostor.member(), members[1].member()]
    lone = impostor.begin(fake, KEY, Limits(stall=0.5, unreachable=5))
    digests = {node.done.get(timeout=BOUND).digest for node in members[:2]}
    assert len(digests) == 1
    assert "sl-1" in blamed(lone)
    assert all(not exchange.poll() for exchange in exchanges)


def test_an_exchange_that_has_ended_leaves_nothing_to_the_collector(make: Make) -> None:
    """Megabytes would wait for it, round after round."""
    members = make(vectors(2, 100_000))
    roster = [node.member() for node in members]
    gc.collect()
    gc.disable()
    try:
        for number, law in enumerate([Law("mean"), Law("geomedian")]):
            ended = []
            for node in members:
                exchange = node.begin(roster, Key(CONTRACT, number, 0), law=law)
                ended.append(weakref.ref(exchange.attempt))
                del exchange
            for node in members:
                node.done.get(timeout=BOUND)
            for node in members:
                assert node.exchange is not None
                node.exchange.abort()
                node.server.offer(None)
                node.exchange = None
            until(lambda e=ended: not any(one() for one in e), BOUND, "they are gone")
    finally:
        gc.enable()


def test_abort_ends_all_threads_at_any_time(make: Make) -> None:
    members = make(vectors(3, 1_000_000))
    roster = [node.member() for node in members]
    for number in range(5):
        exchanges = [node.begin(roster, Key(CONTRACT, number, 0)) for node in members]
        for exchange in exchanges:
            exchange.abort()
            assert not exchange.attempt.outgoing
            assert not exchange.attempt.incoming
