"""A member of an exchange that says the wrong thing: it is named at once, for what it did."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from swarm.merge import blocks
from swarm.merge.agreement import Agreement
from swarm.merge.exchange import Key, Law
from swarm.merge.progress import Limits
from swarm.merge.wire import PROTOCOL, Channel, Kind
from tests.merge.swarmlet import CONTRACT, Node, nodes, vectors
from tests.merge.test_exchange import BOUND, blamed
from tests.processes import until

FAR = Limits(stall=60, unreachable=60)
attempts = iter(range(1 << 30))


class Puppet:
    """The second member of an attempt of two; the test makes up its frames."""

    def __init__(self, pair: list[Node], law: Law) -> None:
        self.honest, self.node = pair
        self.key = Key(CONTRACT, 0, next(attempts))
        roster = [self.honest.member(), self.node.member()]
        self.node.members = {member.uid: member.fingerprint for member in roster}
        self.exchange = self.honest.begin(roster, self.key, FAR, law=law)
        self.plan = self.exchange.plan
        self.data = memoryview(self.node.vector).cast("B")
        self.channel, self.answer = self.open()

    def open(self) -> tuple[Channel, dict[str, Any]]:
        channel = self.node.dialler.dial(self.honest.member())
        hello = {"protocol": PROTOCOL, "want": "merge", "uid": "sl-1", **self.key._asdict()}
        channel.send_json(Kind.HELLO, hello)
        return channel, channel.expect_json(Kind.ANSWER)

    def leaves(self) -> None:
        self.channel.send(Kind.DIGESTS, b"".join(blocks.leaves(self.data, self.plan.block)))

    def contribute(self) -> None:
        self.leaves()
        for number in range(self.plan.chunk_count(0)):
            self.chunk(Kind.CONTRIB, 0, number)

    def chunk(self, kind: Kind, shard: int, number: int) -> None:
        chunk = self.plan.chunk(shard, number)
        self.channel.send_chunk(kind, number, self.data[chunk.start : chunk.stop])

    def bulk(self, kind: Kind, number: int, size: int) -> None:
        self.channel.send_chunk(kind, number, memoryview(bytes(size)))

    def state(self) -> None:
        agreement = self.exchange.attempt.agreement
        assert agreement is not None
        own = Agreement(agreement._subject, 1, ["sl-0", "sl-1"], 2)
        statement = own.state(np.zeros((2, 2)), self.node.identity.sign)
        self.channel.send(Kind.DISTANCES, statement.frame())

    def raw(self, kind: int, length: int, payload: bytes = b"") -> None:
        self.channel._sendall(struct.pack("!BBHI", kind, 0, 0, length) + payload)

    def close(self) -> None:
        self.channel.close()
        self.exchange.abort()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    made = nodes(tmp_path_factory.mktemp("pair"), vectors(2, 400_000))
    yield made
    for node in made:
        node.close()


@pytest.fixture
def puppet(pair: list[Node], law: str) -> Iterator[Puppet]:
    made = Puppet(pair, Law(law))
    yield made
    made.close()


HUGE = 10**400
Play = Callable[[Puppet], object]


def steps(*all_steps: Play) -> Play:
    def play(puppet: Puppet) -> None:
        for step in all_steps:
            step(puppet)

    return play


EVERY: dict[str, tuple[Play, str]] = {
    "digests of nothing": (lambda p: p.channel.send(Kind.DIGESTS), "expected"),
    "digests of another": (
        lambda p: p.channel.send(Kind.DIGESTS, bytes(32 * p.plan.blocks)),
        "root of its check-in",
    ),
    "chunks without digests": (lambda p: p.chunk(Kind.CONTRIB, 0, 0), "DIGESTS was expected"),
    "a later chunk": (
        steps(Puppet.leaves, lambda p: p.chunk(Kind.CONTRIB, 0, 1)),
        "contribution chunk 1 is not due",
    ),
    "a chunk twice": (
        steps(Puppet.contribute, lambda p: p.chunk(Kind.CONTRIB, 0, 0)),
        "contribution chunk 0 is not due",
    ),
    "a short chunk": (
        steps(Puppet.leaves, lambda p: p.bulk(Kind.CONTRIB, 0, 64)),
        "contribution chunk of 64 B",
    ),
    "other bytes": (
        steps(Puppet.leaves, lambda p: p.bulk(Kind.CONTRIB, 0, p.plan.chunk(0, 0).size)),
        "block 0 does not fit its digest",
    ),
    "a reduced chunk of nobody": (
        steps(Puppet.contribute, lambda p: p.bulk(Kind.REDUCED, 10**6, 64)),
        "reduced chunk 1000000 is not due",
    ),
    "a bulk frame without an index": (
        steps(Puppet.leaves, lambda p: p.channel.send(Kind.CONTRIB, b"\0")),
        "without an index",
    ),
    "waiting too early": (
        steps(Puppet.leaves, lambda p: p.channel.send_json(Kind.WAIT, {"for": {}})),
        "it waits before its contribution is out",
    ),
    "a malformed excuse": (
        steps(Puppet.contribute, lambda p: p.channel.send_json(Kind.WAIT, {"for": {"x": "y"}})),
        "malformed WAIT",
    ),
    "an excuse beyond all numbers": (
        steps(Puppet.contribute, lambda p: p.channel.send_json(Kind.WAIT, {"for": {"sl-1": HUGE}})),
        "malformed WAIT",
    ),
    "an excuse below zero": (
        steps(Puppet.contribute, lambda p: p.channel.send_json(Kind.WAIT, {"for": {"sl-1": -1}})),
        "malformed WAIT",
    ),
    "an end too early": (
        steps(Puppet.contribute, lambda p: p.channel.send(Kind.END)),
        "END before everything was sent",
    ),
    "a layout": (
        steps(Puppet.leaves, lambda p: p.channel.send(Kind.LAYOUT, b"x")),
        "unexpected LAYOUT frame",
    ),
    "a kind that is none": (
        steps(Puppet.leaves, lambda p: p.raw(99, 0)),
        "frame of unknown kind 99",
    ),
    "a frame too large": (
        steps(Puppet.leaves, lambda p: p.raw(Kind.CONTRIB, 0xFFFFFFFF)),
        "CONTRIB frame of 4294967295 B",
    ),
    "noise": (steps(Puppet.leaves, lambda p: p.channel._sendall(b"\xff" + os.urandom(63))), "255"),
}
PER_COORDINATE: dict[str, tuple[Play, str]] = {
    "distances": (
        steps(Puppet.contribute, lambda p: p.channel.send(Kind.DISTANCES, bytes(100))),
        "unexpected DISTANCES frame",
    ),
    "a long reduced chunk": (
        steps(Puppet.contribute, lambda p: p.bulk(Kind.REDUCED, 0, p.plan.chunk(1, 0).size + 64)),
        "reduced chunk of",
    ),
}
MIXING: dict[str, tuple[Play, str]] = {
    "distances too early": (steps(Puppet.leaves, Puppet.state), "distances are not due"),
    "distances twice": (
        steps(Puppet.contribute, Puppet.state, Puppet.state),
        "distances are not due",
    ),
    "distances without a signature": (
        steps(Puppet.contribute, lambda p: p.channel.send(Kind.DISTANCES, bytes(100))),
        "not signed with its key",
    ),
    "distances of more members": (
        steps(Puppet.contribute, lambda p: p.channel.send(Kind.DISTANCES, bytes(8 * 256**2))),
        "expected 32 B and a signature",
    ),
    "a witness first": (
        steps(Puppet.contribute, lambda p: p.channel.send_json(Kind.WITNESS, {"held": []})),
        "a witness is not due",
    ),
    "a witness to nothing": (
        steps(
            Puppet.contribute,
            Puppet.state,
            lambda p: p.channel.send_json(Kind.WITNESS, {"held": [[]]}),
        ),
        "WITNESS without a statement of each member",
    ),
    "no witness": (
        steps(Puppet.contribute, Puppet.state, lambda p: p.chunk(Kind.REDUCED, 1, 0)),
        "reduced chunks before its witness",
    ),
    "an end instead of a witness": (
        steps(Puppet.contribute, Puppet.state, lambda p: p.channel.send(Kind.END)),
        "END before everything was sent",
    ),
}
ALL = [
    pytest.param(law, *case, id=f"{law}: {name}")
    for law, cases in [
        ("mean", {**EVERY, **PER_COORDINATE}),
        ("geomedian", {**EVERY, **MIXING}),
    ]
    for name, case in cases.items()
]


@pytest.mark.parametrize(("law", "play", "why"), ALL)
def test_a_frame_that_is_wrong_is_blamed_at_once(puppet: Puppet, play: Play, why: str) -> None:
    play(puppet)
    assert why in blamed(puppet.exchange)["sl-1"]
    assert puppet.honest.done.empty()


@pytest.mark.parametrize("law", ["geomedian"])
def test_what_was_agreed_on_is_not_asked_for_again(puppet: Puppet) -> None:
    agreement = puppet.exchange.attempt.agreement
    assert agreement is not None
    asked = ("leaves", "distances", "witness")
    assert [puppet.answer[key] for key in asked] == [True, True, True]
    puppet.contribute()
    puppet.state()
    until(agreement.complete, BOUND, "both statements")
    puppet.channel.close()
    puppet.channel, answer = puppet.open()
    assert [answer[key] for key in asked] == [False, False, True]
    assert (answer["contrib"], answer["reduced"]) == (puppet.plan.chunk_count(0), 0)
