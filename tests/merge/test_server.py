"""The listener against strangers and hostile members, and what it gives to those who fetch."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from swarm.identity import Role
from swarm.merge import blocks
from swarm.merge.exchange import Key
from swarm.merge.fetch import Decided, NotHere, Pace, Write, fetch
from swarm.merge.progress import SLOWEST
from swarm.merge.seal import agree
from swarm.merge.wire import PROTOCOL, Channel, ConnectionGone, Kind, WireError
from tests import pki
from tests.merge.swarmlet import CONTRACT, Node, into, nodes, vectors

SIZE = 3_000_000 // 64 * 64


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Node]]:
    made = nodes(tmp_path, vectors(2, 4096))
    for node in made:
        node.members = {other.name: other.identity.fingerprint for other in made}
    yield made
    for node in made:
        node.close()


def decided(data: bytes) -> Decided:
    leaves = blocks.leaves(memoryview(data), blocks.block_size(len(data)))

    def read(start: int, buffer: memoryview) -> None:
        buffer[:] = data[start : start + len(buffer)]

    return Decided(CONTRACT, 3, blocks.root(leaves), b"layout", len(data), leaves, read)


def get(
    asker: Node, holder: Node, digest: bytes, target: bytearray, have: Sequence[bytes] = ()
) -> list[bytes]:
    def prepare(layout: bytes, size: int) -> tuple[Write, Sequence[bytes]]:
        assert (layout, size) == (b"layout", len(target))
        return into(target), have

    return fetch(asker.dialler, holder.member(), (CONTRACT, asker.name, digest), prepare)


def test_fetch_brings_the_decided_bytes(pair: list[Node]) -> None:
    data = os.urandom(SIZE)
    model = decided(data)
    pair[0].server.keep(model)
    target = bytearray(SIZE)
    assert get(pair[1], pair[0], model.digest, target) == list(model.leaves)
    assert target == data


def test_fetch_asks_only_for_blocks_that_are_not_here(pair: list[Node]) -> None:
    data = os.urandom(SIZE)
    model = decided(data)
    read: list[int] = []

    def count(start: int, buffer: memoryview) -> None:
        read.append(len(buffer))
        model.read(start, buffer)

    pair[0].server.keep(Decided(CONTRACT, 3, model.digest, b"layout", SIZE, model.leaves, count))
    target = bytearray(data)
    block = blocks.block_size(SIZE)
    target[5 * block] ^= 1
    target[-1] ^= 1
    have = blocks.leaves(memoryview(target), block)
    get(pair[1], pair[0], model.digest, target, have)
    assert target == data
    assert sum(read) <= 2 * block


def test_nothing_is_sent_of_a_model_that_was_replaced_while_it_was_read(pair: list[Node]) -> None:
    """Its file may be written to from then on; nobody is to be blamed for what is torn."""
    model, following = decided(os.urandom(SIZE)), decided(bytes(SIZE))
    server = pair[0].server

    def torn(start: int, buffer: memoryview) -> None:
        model.read(start, buffer)
        if start > SIZE // 2:
            server.keep(following)
            buffer[:] = bytes(len(buffer))

    server.keep(Decided(CONTRACT, 3, model.digest, b"layout", SIZE, model.leaves, torn))
    with pytest.raises(ConnectionGone):
        get(pair[1], pair[0], model.digest, bytearray(SIZE))
    target = bytearray(b"x" * SIZE)
    get(pair[1], pair[0], following.digest, target)
    assert target == bytes(SIZE)


def test_a_holder_that_sends_a_byte_now_and_then_is_left() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    for second in range(31):
        now[0] = second
        pace.came(10)
    now[0] = 31.0
    with pytest.raises(ConnectionGone, match="only 320 B came in 31 s"):
        pace.came(10)
    slow = Pace(lambda: now[0])
    for _ in range(1000):
        now[0] += 1.0
        slow.came(SLOWEST)


def test_fetch_of_something_else_is_refused(pair: list[Node]) -> None:
    with pytest.raises(NotHere):
        get(pair[1], pair[0], bytes(32), bytearray(SIZE))
    pair[0].server.keep(decided(bytes(SIZE)))
    with pytest.raises(NotHere):
        get(pair[1], pair[0], bytes(32), bytearray(SIZE))


def test_a_holder_that_sends_other_bytes_is_caught_by_the_block(pair: list[Node]) -> None:
    model = decided(os.urandom(SIZE))
    liar = decided(bytes(SIZE))
    pair[0].server.keep(
        Decided(CONTRACT, 3, model.digest, b"layout", SIZE, model.leaves, liar.read)
    )
    with pytest.raises(WireError, match="block 0 does not fit"):
        get(pair[1], pair[0], model.digest, bytearray(SIZE))


def test_only_members_with_their_own_certificate_may_fetch(pair: list[Node]) -> None:
    model = decided(bytes(SIZE))
    pair[0].server.keep(model)
    del pair[0].members[pair[1].name]
    with pytest.raises(NotHere, match="no member"):
        get(pair[1], pair[0], model.digest, bytearray(SIZE))


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0" * 8, os.urandom(64), b"\x01\0\0\0\0\0\0\x02{}", b"\x04\0\0\0\xff\xff\xff\xff"],
    ids=["nothing", "zeros", "noise", "empty hello", "huge frame"],
)
def test_garbage_of_a_certified_peer_costs_it_its_connection_only(
    pair: list[Node], garbage: bytes
) -> None:
    channel = pair[1].dialler.dial(pair[0].member())
    channel._sendall(garbage)
    channel.close()
    model = decided(os.urandom(SIZE))
    pair[0].server.keep(model)
    assert get(pair[1], pair[0], model.digest, bytearray(SIZE))


@pytest.mark.parametrize("role", [Role.SN, Role.SWOP, Role.SWCI])
def test_other_roles_are_turned_away(pair: list[Node], tmp_path: Path, role: Role) -> None:
    assert pair[0].ca is not None
    other = pki.identity(tmp_path / "other", role, pair[0].ca)
    plain = socket.create_connection(("127.0.0.1", pair[0].port), timeout=10)
    secure = other.client_context().wrap_socket(plain)
    channel = Channel(secure, agree(secure, dialled=True))
    channel.send_json(Kind.HELLO, {"protocol": PROTOCOL, "want": "fetch"})
    answer = channel.expect_json(Kind.ANSWER)
    assert answer["ok"] is False and f"has the role {role}" in str(answer["text"])
    with pytest.raises(ConnectionGone):
        channel.expect_json(Kind.ANSWER)
    channel.close()


def test_plain_text_and_no_certificate_are_turned_away(pair: list[Node]) -> None:
    with socket.create_connection(("127.0.0.1", pair[0].port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            while plain.recv(1000):  # a TLS alert at most, then the end
                pass
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", pair[0].port), timeout=10) as plain,
        pytest.raises(OSError),
    ):
        agree(context.wrap_socket(plain), dialled=True)


def test_an_early_member_is_told_to_come_again(pair: list[Node]) -> None:
    hello = {"protocol": PROTOCOL, "want": "merge", "uid": pair[1].name}
    channel = pair[1].dialler.dial(pair[0].member())
    channel.send_json(Kind.HELLO, {**hello, **Key(CONTRACT, 5, 0)._asdict()})
    answer = channel.expect_json(Kind.ANSWER)
    assert (answer["ok"], answer["reason"]) == (False, "not-yet")
    channel.close()
