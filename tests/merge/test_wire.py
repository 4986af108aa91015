"""Frames: what is refused before a byte of it is kept."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.merge.wire import LIMITS, TOGETHER, Channel, ConnectionGone, Kind, WireError

Pair = tuple[Channel, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    here.settimeout(5)
    yield Channel(here), there
    here.close()
    there.close()


def test_frames_come_back_as_they_were_sent(pair: Pair) -> None:
    channel, there = pair
    other = Channel(there)
    other.send_json(Kind.HELLO, {"want": "fetch"})
    assert channel.expect_json(Kind.HELLO) == {"want": "fetch"}
    other.send_chunk(Kind.REDUCED, 7, memoryview(b"abc"))
    kind, length = channel.receive_header()
    assert (kind, channel.chunk_index(length)) == (Kind.REDUCED, (7, 3))
    data = bytearray(3)
    channel.receive_into(memoryview(data))
    assert data == b"abc"
    assert channel.received == other.sent


def test_frames_that_are_sent_together_are_the_same_frames(pair: Pair) -> None:
    channel, there = pair
    other = Channel(there)
    channel.sock.settimeout(0)
    with other.together():
        other.send_chunk(Kind.CONTRIB, 1, memoryview(b"abc"))
        with pytest.raises(ConnectionGone):
            channel.receive_header()  # nothing is sent yet
        other.send_json(Kind.WAIT, {})
        other.flush()
        assert channel.receive_header() == (Kind.CONTRIB, 7)
        assert channel.receive_raw(7) == b"\0\0\0\1abc"
        other.send(Kind.END)
    assert channel.expect_json(Kind.WAIT) == {}
    assert channel.expect_raw(Kind.END, 0) == b""
    other.send(Kind.END)
    assert channel.expect_raw(Kind.END, 0) == b""


def test_what_has_become_much_is_not_held_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    _, there = pair
    other = Channel(there)
    sent: list[int] = []
    monkeypatch.setattr(other, "_transmit", lambda pieces: sent.append(sum(map(len, pieces))))
    chunk = memoryview(bytes(TOGETHER // 4))
    with other.together():
        for number in range(5):
            other.send_chunk(Kind.CONTRIB, number, chunk)
        assert sent == [4 * (len(chunk) + 12)]
    assert sent[1:] == [len(chunk) + 12]


def test_frames_of_a_conversation_that_failed_are_not_sent(pair: Pair) -> None:
    channel, there = pair
    other = Channel(there)
    with pytest.raises(WireError), other.together():
        other.send(Kind.END)
        raise WireError("it broke the rules")
    other.send(Kind.HELLO)
    assert channel.receive_header() == (Kind.HELLO, 0)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_frame_over_its_limit_is_refused_by_its_header_alone(pair: Pair, kind: Kind) -> None:
    channel, there = pair
    there.sendall(struct.pack("!BBHI", kind, 0, 0, LIMITS[kind] + 1))
    with pytest.raises(WireError, match="at most"):
        channel.receive_header()


@pytest.mark.parametrize(
    "header", [(0, 0, 0, 0), (99, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0)], ids=str
)
def test_unknown_kinds_and_reserved_bits_are_refused(
    pair: Pair, header: tuple[int, int, int, int]
) -> None:
    channel, there = pair
    there.sendall(struct.pack("!BBHI", *header))
    with pytest.raises(WireError):
        channel.receive_header()


@pytest.mark.parametrize("text", [b"[1]", b"nope", b"\xff\xfe", b"[" * 4000])
def test_json_that_is_none_is_refused(pair: Pair, text: bytes) -> None:
    channel, there = pair
    Channel(there).send(Kind.HELLO, text)
    with pytest.raises(WireError):
        channel.expect_json(Kind.HELLO)


def test_an_end_in_the_middle_is_told(pair: Pair) -> None:
    channel, there = pair
    there.sendall(struct.pack("!BBHI", Kind.HELLO, 0, 0, 10) + b"abc")
    there.close()
    with pytest.raises(ConnectionGone):
        channel.expect_json(Kind.HELLO)


@given(data=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_a_frame_or_one_of_two_errors(data: bytes) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(data)
        there.shutdown(socket.SHUT_WR)
        channel = Channel(here)
        with pytest.raises((WireError, ConnectionGone)):
            while True:
                channel.expect_json(Kind.HELLO)
