"""Exchanges over TLS with every merge method: equal bytes everywhere, and the right ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.errors import LocalError, RemoteError
from swarm.merge import methods
from swarm.merge.exchange import Exchange, Key, Law
from swarm.merge.mean import Segment
from swarm.merge.methods import MixingWeights
from swarm.merge.methods.distances import Distances
from swarm.merge.methods.geomedian import GeoMedian
from swarm.merge.progress import Limits
from tests.merge.swarmlet import CONTRACT, Node, nodes, vectors
from tests.merge.test_exchange import BOUND, blamed
from tests.processes import until

Vectors = Sequence[NDArray[np.float32]]
LAWS = [
    Law("mean"),
    Law("coordmedian"),
    Law("trimmedmean", {"f": 1}),
    Law("geomedian"),
    Law("centeredclip"),
    Law("krum", {"f": 1}),
    Law("multikrum", {"f": 1, "m": 3}),
]
MIXING = [law for law in LAWS if issubclass(methods.BUILT_IN[law.method], MixingWeights)]
FAR = Limits(stall=60, unreachable=60)  # seconds; nobody is blamed for being slow


@pytest.fixture(scope="module")
def octet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Eight members, whose connections are kept from test to test."""
    made = nodes(tmp_path_factory.mktemp("octet"), vectors(8, 16))
    yield made
    for node in made:
        node.close()


@pytest.fixture
def gather(octet: list[Node]) -> Iterator[Callable[[Vectors], list[Node]]]:
    """Gives as many members as there are vectors, each with one of them."""

    def give(data: Vectors) -> list[Node]:
        for node, vector in zip(octet, data, strict=False):
            node.vector, node.output = vector, bytearray(vector.nbytes)
            while not node.done.empty():
                node.done.get()
        return octet[: len(data)]

    yield give
    for node in octet:
        if node.exchange:
            node.exchange.abort()
            node.exchange = None


attempts = iter(range(1 << 30))


def start(members: list[Node], law: Law, weights: Sequence[int] = ()) -> list[Exchange]:
    shares = weights or [1] * len(members)
    roster = [node.member(weight) for node, weight in zip(members, shares, strict=True)]
    key = Key(CONTRACT, 0, next(attempts))
    return [node.begin(roster, key, FAR, law=law) for node in members]


def finish(members: list[Node]) -> bytes:
    """Wait for all; the bytes that all of them have."""
    digests = {node.done.get(timeout=BOUND).digest for node in members}
    outputs = {bytes(node.output) for node in members}
    assert len(digests) == len(outputs) == 1
    return outputs.pop()


def alone(data: Vectors, law: Law, weights: Sequence[int]) -> NDArray[np.float32]:
    """What one process makes of all vectors at once."""
    layout = [Segment(0, data[0].nbytes, "float32")]
    method = methods.make(law.method, law.args, layout, weights)
    inputs = [data[i].tobytes() for i in method.contributors]
    if isinstance(method, MixingWeights):
        distances = Distances(layout, len(inputs))
        distances.add(inputs, 0)
        method.settle(distances.matrix)
    out = bytearray(data[0].nbytes)
    method.reduce(inputs, memoryview(out), 0)
    return np.frombuffer(out, np.float32)


@pytest.mark.parametrize(
    ("law", "count"),
    [(law, n) for law in LAWS for n in range(2, 9) if not methods.check(*law, n)],
    ids=lambda value: getattr(value, "method", value),
)
def test_all_get_the_same_and_what_one_alone_would(
    gather: Callable[[Vectors], list[Node]], law: Law, count: int
) -> None:
    weights = [10 * (i + 1) for i in range(count)]
    for length in (16, 4096, 70_000):
        data = vectors(count, length, seed=length)
        members = gather(data)
        exchanges = start(members, law, weights)
        merged = np.frombuffer(finish(members), np.float32)
        np.testing.assert_allclose(merged, alone(data, law, weights), rtol=1e-6, atol=1e-7)
        assert all(not exchange.poll() for exchange in exchanges)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.method)
def test_members_of_weight_zero_take_part_in_the_work_only(
    gather: Callable[[Vectors], list[Node]], law: Law
) -> None:
    data = vectors(7, 70_000)
    data[0][:] = data[6][:] = np.nan
    weights = [0, 10, 20, 30, 40, 50, 0]
    members = gather(data)
    start(members, law, weights)
    merged = np.frombuffer(finish(members), np.float32)
    np.testing.assert_allclose(merged, alone(data, law, weights), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("law", LAWS[1:], ids=lambda law: law.method)
def test_what_is_not_finite_is_left_out_and_its_owner_named(
    gather: Callable[[Vectors], list[Node]], law: Law, caplog: pytest.LogCaptureFixture
) -> None:
    data = vectors(6, 70_000)
    data[2][12_345] = np.inf
    members = gather(data)
    with caplog.at_level(logging.WARNING, "swarm.merge"):
        start(members, law)
        merged = np.frombuffer(finish(members), np.float32)
    assert np.isfinite(merged).all()
    np.testing.assert_allclose(merged, alone(data, law, [1] * 6), rtol=1e-6, atol=1e-7)
    named = [line for line in caplog.messages if line.startswith("sl-2: NaN or infinity")]
    assert len(named) == (6 if law in MIXING else 1)  # by all, or by the owner of its shard
    assert len(named) == len(caplog.messages)


def test_the_mean_has_no_place_for_what_is_not_finite(
    gather: Callable[[Vectors], list[Node]],
) -> None:
    data = vectors(3, 70_000)
    data[2][100] = np.nan  # in the shard of the first
    members = gather(data)
    exchanges = start(members, Law("mean"))
    assert "weights are not finite" in blamed(exchanges[0])["sl-2"]
    assert all(node.done.empty() for node in members)


def test_one_who_finds_its_own_values_not_finite_gives_up(
    gather: Callable[[Vectors], list[Node]],
) -> None:
    data = vectors(2, 70_000)
    data[0][100] = np.nan
    exchanges = start(gather(data), Law("mean"))
    until(lambda: exchanges[0].failure is not None, BOUND, "its failure")
    assert exchanges[0].failure is not None and exchanges[0].failure.code == "SW6014"


@pytest.mark.parametrize("law", MIXING, ids=lambda law: law.method)
def test_nothing_finite_at_all_ends_it_with_a_reason(
    gather: Callable[[Vectors], list[Node]], law: Law
) -> None:
    data = vectors(5, 4096)
    for vector in data:
        vector[0] = np.nan
    for exchange in start(gather(data), law):
        until(lambda exchange=exchange: exchange.failure is not None, BOUND, "its failure")  # type: ignore[misc]
        assert isinstance(exchange.failure, RemoteError)
        assert exchange.failure.code == "SW6109"


def test_a_law_that_breaks_ends_it_with_a_reason(
    gather: Callable[[Vectors], list[Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mix(*args: object) -> Sequence[float]:
        raise ZeroDivisionError("no idea")

    monkeypatch.setattr(GeoMedian, "mix", mix)
    (exchange, _) = start(gather(vectors(2, 4096)), Law("geomedian"))
    until(lambda: exchange.failure is not None, BOUND, "its failure")
    assert isinstance(exchange.failure, LocalError)
    assert "geomedian: ZeroDivisionError: no idea" in exchange.failure.cause


@pytest.mark.parametrize("law", [Law("coordmedian"), Law("geomedian")], ids=lambda law: law.method)
def test_broken_connections_are_made_again_in_every_phase(
    gather: Callable[[Vectors], list[Node]], law: Law
) -> None:
    data = vectors(4, 1_000_000)
    members = gather(data)
    exchanges = start(members, law)
    for _ in range(8):
        for exchange in exchanges:
            with exchange.attempt.changed:
                channels = list(exchange.attempt.outgoing.values())
            for channel in channels:
                channel.abort()
    merged = np.frombuffer(finish(members), np.float32)
    np.testing.assert_allclose(merged, alone(data, law, [1] * 4), rtol=1e-6, atol=1e-7)


def test_abort_ends_all_threads_while_members_agree(tmp_path: Path) -> None:
    members = nodes(tmp_path, vectors(3, 300_000))
    try:
        for number in range(5):
            roster = [node.member() for node in members]
            key = Key(CONTRACT, number, 0)
            law = Law("geomedian")
            for exchange in [node.begin(roster, key, law=law) for node in members]:
                exchange.abort()
                assert not exchange.attempt.outgoing and not exchange.attempt.incoming
    finally:
        for node in members:
            node.close()


def test_bytes_of_a_mixing_method_are_near_the_optimum(
    gather: Callable[[Vectors], list[Node]],
) -> None:
    data = vectors(4, 2_000_000)
    members = gather(data)
    exchanges = start(members, Law("geomedian"))
    finish(members)
    until(lambda: all(exchange.delivered() for exchange in exchanges), BOUND, "all delivered")
    for exchange in exchanges:
        assert exchange.bytes_sent < 1.02 * 2 * data[0].nbytes * 3 // 4 + 150_000
