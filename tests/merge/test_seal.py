"""Records: what comes is what was sent, in this order and from this side, or nothing."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.identity import Role
from swarm.merge import seal
from swarm.merge.seal import LARGEST, TAG, Seal, SealError, agree
from tests import pki

HERE, THERE = b"h" * 32, b"t" * 32
BOUND = 30.0  # seconds

Pair = tuple[Seal, Seal, socket.socket, socket.socket]


def nobody(count: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, two = socket.socketpair()
    for sock in (one, two):
        sock.settimeout(BOUND)
    yield Seal(one, HERE, THERE), Seal(two, THERE, HERE), one, two
    one.close()
    two.close()


def read(side: Seal, count: int) -> bytes:
    data = bytearray(count)
    side.receive_into(memoryview(data), nobody)
    return bytes(data)


@given(
    sent=st.lists(st.binary(max_size=40), max_size=8),
    cuts=st.lists(st.integers(0, 50), max_size=12),
)
@settings(max_examples=100, deadline=None)
def test_bytes_come_as_a_stream_however_they_were_cut(sent: list[bytes], cuts: list[int]) -> None:
    one, two = socket.socketpair()
    with one, two:
        here, there = Seal(one, HERE, THERE), Seal(two, THERE, HERE)
        for data in sent:
            here.send(data[:3], data[3:])
        one.shutdown(socket.SHUT_WR)
        whole, at = b"".join(sent), 0
        for cut in cuts:
            part = min(cut, len(whole) - at)
            assert read(there, part) == whole[at : at + part]
            at += part
        assert read(there, len(whole) - at) == whole[at:]
        with pytest.raises(EOFError):
            read(there, 1)


def test_more_than_a_record_goes_in_several(pair: Pair) -> None:
    here, there, _, _ = pair
    data = bytes(range(256)) * (LARGEST // 256) + b"more"
    on_the_wire: list[int] = []
    thread = threading.Thread(target=lambda: on_the_wire.append(here.send(data)))
    thread.start()
    assert read(there, len(data)) == data
    thread.join(BOUND)
    assert on_the_wire == [len(data) + 2 * (4 + TAG)]


def test_both_directions_have_keys_of_their_own(pair: Pair) -> None:
    here, there, one, two = pair
    here.send(b"ping")
    assert read(there, 4) == b"ping"
    record = raw_record(here, one, two)
    one.sendall(record)  # what one side has sent does not open as sent by the other
    two.sendall(record)
    with pytest.raises(SealError, match="changed on the way"):
        read(here, 4)


def raw_record(side: Seal, own: socket.socket, other: socket.socket) -> bytes:
    """The bytes of one more record of `side`, taken off the wire."""
    length = side.send(b"data")
    return other.recv(length, socket.MSG_WAITALL)


@pytest.mark.parametrize("place", [0, 3, 4, 7, 8, 23])
def test_a_changed_bit_ends_it(pair: Pair, place: int) -> None:
    here, there, one, two = pair
    record = bytearray(raw_record(here, one, two))
    record[place] ^= 1
    one.sendall(record)
    one.shutdown(socket.SHUT_WR)
    with pytest.raises((SealError, EOFError)):
        read(there, 4)


def test_repeated_and_missing_records_do_not_open(pair: Pair) -> None:
    here, there, one, two = pair
    first = raw_record(here, one, two)
    second = raw_record(here, one, two)
    one.sendall(first + first)
    assert read(there, 4) == b"data"
    with pytest.raises(SealError):
        read(there, 4)
    one.sendall(second)  # in its right place, but the connection is broken for good
    assert read(there, 4) == b"data"
    third, fourth = raw_record(here, one, two), raw_record(here, one, two)
    one.sendall(fourth + third)
    with pytest.raises(SealError):
        read(there, 4)


@pytest.mark.parametrize("length", [0, LARGEST + 1, 0xFFFFFFFF])
def test_a_record_of_another_size_is_refused_by_its_length_alone(pair: Pair, length: int) -> None:
    _, there, one, _ = pair
    one.sendall(struct.pack("!I", length))
    with pytest.raises(SealError, match=f"record of {length} B"):
        read(there, 1)


def test_a_connection_is_not_used_for_ever(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there, _, _ = pair
    monkeypatch.setattr(seal, "MOST_BYTES", 8)
    here.send(b"1234567")
    read(there, 7)
    assert not here.worn and not there.worn
    here.send(b"8")
    read(there, 1)
    assert here.worn and there.worn


@pytest.fixture
def links(tmp_path: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TLS connection; plain data on them is what a peer of another version sends."""
    ca = pki.authority(tmp_path, 1)
    ends = [pki.identity(tmp_path / name, Role.SL, ca) for name in ("one", "two")]
    one, two = socket.socketpair()
    accepted: list[socket.socket] = []
    thread = threading.Thread(
        target=lambda: accepted.append(ends[1].server_context().wrap_socket(two, server_side=True))
    )
    thread.start()
    client = ends[0].client_context().wrap_socket(one)
    thread.join(BOUND)
    for sock in (client, accepted[0]):
        sock.settimeout(BOUND)
    yield client, accepted[0]
    client.close()
    accepted[0].close()


def test_two_sides_agree_through_tls(links: tuple[socket.socket, socket.socket]) -> None:
    client, server = links
    made: list[Seal] = []
    thread = threading.Thread(target=lambda: made.append(agree(server, dialled=False)))  # type: ignore[arg-type]
    thread.start()
    here = agree(client, dialled=True)  # type: ignore[arg-type]
    thread.join(BOUND)
    for sender, receiver in ((here, made[0]), (made[0], here)):
        sender.send(b"one", b"two")
        assert read(receiver, 6) == b"onetwo"


@pytest.mark.parametrize("greeting", [b"\x01" * 100, b"SWRMSEAL\0\0\0\2" + bytes(32)])
def test_another_version_is_told_apart(
    links: tuple[socket.socket, socket.socket], greeting: bytes
) -> None:
    client, server = links
    client.sendall(greeting)
    with pytest.raises(SealError, match="another version"):
        agree(server, dialled=False)  # type: ignore[arg-type]


def test_an_end_instead_of_a_key_is_told(links: tuple[socket.socket, socket.socket]) -> None:
    client, server = links
    client.close()
    with pytest.raises(OSError):
        agree(server, dialled=False)  # type: ignore[arg-type]


def test_small_records_come_with_one_read(pair: Pair) -> None:
    here, there, _, two = pair
    for number in range(20):
        here.send(b"%2d" % number, b"x" * 100)
    assert read(there, 2) == b" 0"
    two.setblocking(False)  # all of them are here already
    assert read(there, 100) == b"x" * 100
    for number in range(1, 20):
        assert read(there, 102) == b"%2d" % number + b"x" * 100
    with pytest.raises(BlockingIOError):
        read(there, 1)


@given(sizes=st.lists(st.sampled_from([1, 40, 16_000, 17_000, 70_000, LARGEST]), max_size=12))
@settings(max_examples=30, deadline=None)
def test_small_and_large_records_follow_each_other(sizes: list[int]) -> None:
    """What was read ahead is in front of what is read then."""
    one, two = socket.socketpair()
    with one, two:
        here, there = Seal(one, HERE, THERE), Seal(two, THERE, HERE)
        whole = b"".join(bytes([65 + i]) * size for i, size in enumerate(sizes))
        pieces = [whole[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]
        thread = threading.Thread(target=lambda: [here.send(piece) for piece in pieces])
        thread.start()
        assert b"".join(read(there, size) for size in sizes) == whole
        thread.join(BOUND)
