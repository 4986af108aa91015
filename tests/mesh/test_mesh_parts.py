"""The parts without a network: value codec, frames, outbox, address book, back-off."""

from __future__ import annotations

import math
import random
import stat
from pathlib import Path
from typing import Any

import cbor2
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import LocalError, RemoteError
from swarm.mesh import codec, faults, frames, keeper
from swarm.mesh.book import MAX_ADDRESSES, MAX_PEERS, AddressBook, clean

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(values)
def test_values_come_back(value: Any) -> None:
    assert codec.decode(codec.encode(value)) == value


@settings(max_examples=500)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    """And what is accepted is what the decoder reads as plain values."""
    try:
        value = codec.decode(data)
    except RemoteError as error:
        assert error.code == "SW2010"
        return
    assert _plain(value)


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str, bytes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x18",
        b"\x01\x01",
        b"\x1c",
        b"\x9f\xff",
        b"\x5f\x41x\xff",
        b"\x7f\xff",
        b"\xbf\xff",
        b"\xff",
        b"\xf7",
        b"\xe0",
        b"\xf8\xff",
        b"\xc0\x61x",
        b"\xc2\x41\x01",
        b"\xd8\x23\x63(a+)",
        b"\xd8\x1c\x80",
        b"\xa1\x01\x02",
        b"\xa1\x41x\x02",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xbb\x80\x00\x00\x00\x00\x00\x00\x00",
        b"\x61\xff",
        b"\x81" * 100_000 + b"\x00",
        b"\x81" * (codec.MAX_DEPTH + 2) + b"\x00",
    ],
)
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        codec.decode(data)


def test_depth_is_counted_alike_on_both_sides() -> None:
    value: Any = 0
    for _ in range(codec.MAX_DEPTH):
        value = [value]
    assert codec.decode(codec.encode(value)) == value
    with pytest.raises(LocalError):
        codec.encode([value])
    with pytest.raises(RemoteError):
        codec.decode(cbor2.dumps([value]))


@given(st.lists(st.binary(max_size=50), max_size=6), st.lists(st.integers(1, 40), max_size=20))
def test_frames_do_not_depend_on_how_bytes_arrive(bodies: list[bytes], cuts: list[int]) -> None:
    sent = [(frames.CAST, n, body) for n, body in enumerate(bodies)]
    stream = b"".join(frames.frame(*f) for f in sent)
    reader = frames.FrameReader()
    got = []
    for cut in [*cuts, len(stream)]:
        got += list(reader.feed(stream[:cut]))
        stream = stream[cut:]
    assert got == sent


def test_the_first_frame_is_limited_more_narrowly() -> None:
    reader = frames.FrameReader()
    with pytest.raises(RemoteError):
        list(reader.feed(frames.frame(frames.HELLO, 0, bytes(frames.MAX_FIRST + 1))))
    reader = frames.FrameReader()
    list(reader.feed(frames.frame(frames.HELLO, 0, b"\xf6")))
    big = frames.frame(frames.CAST, 0, bytes(frames.MAX_BODY))
    assert [len(body) for _, _, body in reader.feed(big)] == [frames.MAX_BODY]
    assert not reader._buffer


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 100_000), max_size=12), st.randoms(use_true_random=False))
def test_what_leaves_the_outbox_is_what_entered(sizes: list[int], rng: random.Random) -> None:
    async def main() -> None:
        box = frames.Outbox()
        entered, left = b"", b""
        for size in sizes:
            data = bytes([len(entered) % 256]) * size + b"!"
            if box.offer(data):
                entered += data
            if rng.random() < 0.5 and (len(box) or box._rest):
                left += await box.take()
            assert box.size == len(entered) - len(left)
            assert box.size <= frames.QUEUE_BYTES + 100_001
        while len(left) < len(entered):
            left += await box.take()
        assert left == entered
        assert box.size == len(box) == 0

    trio.run(main)


def test_a_beat_goes_first_but_never_into_a_frame() -> None:
    async def main() -> None:
        box = frames.Outbox()
        box.offer(b"a" * 100_000)
        box.offer(b"b")
        first = await box.take()
        box.beat(b"beat 1")
        box.beat(b"beat 2")
        rest = b""
        while not rest.endswith(b"b"):
            rest += await box.take()
        assert first + rest == b"a" * 100_000 + b"beat 2" + b"b"

    trio.run(main)


PEER = "QmYJ8U9PrCMT79FGTBorjyjMzRuUciqfu7Yjk1Rr327zPY"
ADDRESS = "/ip4/192.0.2.1/tcp/30303"


def peer(n: int) -> str:
    return f"{PEER[:-4]}{n:04d}".replace("0", "z")


def test_the_book_remembers(tmp_path: Path) -> None:
    path = tmp_path / "book.json"
    book = AddressBook(path)
    assert book.learn(PEER, [ADDRESS], hearsay=True)
    assert not book.learn(PEER, [ADDRESS], hearsay=True)
    book.mark_seen(PEER)
    book.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    again = AddressBook(path)
    assert again[PEER].addresses == (ADDRESS,)
    assert again[PEER].seen > 0
    assert not again[PEER].wanted
    inode = path.stat().st_ino
    again.save()
    assert path.stat().st_ino == inode, "nothing changed, nothing is written"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe", b"[]", b"null", b"{}", b'{"peers": []}', b'{"peers": {"x": 1}}',
        b'{"peers": {"x": {"addresses": 5, "seen": "y"}}}', b"[" * 100_000, b" " * (2 << 20),
    ],
)  # fmt: skip
def test_a_damaged_book_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "book.json"
    path.write_bytes(content)
    book = AddressBook(path)
    assert len(book) == 0
    book.learn(PEER, [ADDRESS], hearsay=False)
    book.save()
    assert AddressBook(path)[PEER].addresses == (ADDRESS,)


def test_a_book_that_cannot_be_written(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "missing" / "book.json")
    book.learn(PEER, [ADDRESS], hearsay=False)
    with pytest.raises(LocalError) as caught:
        book.save()
    assert caught.value.code == "SW2022"


def test_only_addresses_that_can_be_dialled() -> None:
    bad: list[Any] = [
        None, 5, "", "127.0.0.1:1", "/ip4/1.2.3.4/udp/5/quic-v1", "/ip4/1.2.3.4/tcp/0",
        "/ip4/1.2.3.4/tcp/70000", "/ip4/1.2.3.4/tcp/1/ws", "/ip4/1.2.3.4/tcp/1/p2p-circuit",
        "/unix/etc", "/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1",
        "/dns4/" + "x" * 300 + "/tcp/1", "/ip4/1 2/tcp/1", f"{ADDRESS}\n",
    ]  # fmt: skip
    good = ["/dns4/sn1/tcp/30303", "/ip6/2001:db8::1/tcp/1", ADDRESS]
    assert clean([*bad, *good, *good]) == tuple(good)
    assert len(clean(f"/ip4/1.2.3.{n}/tcp/1" for n in range(99))) == MAX_ADDRESSES


def test_hearsay_displaces_nothing(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "book")
    own = [f"/ip4/192.0.2.{n}/tcp/1" for n in range(MAX_ADDRESSES)]
    lies = [f"/ip4/198.51.100.{n}/tcp/1" for n in range(99)]
    book.learn(PEER, own, hearsay=False)
    assert not book.learn(PEER, lies, hearsay=True)
    assert book[PEER].addresses == tuple(own)
    assert book.learn(PEER, ["/dns/new/tcp/1"], hearsay=False)
    assert book[PEER].addresses[0] == "/dns/new/tcp/1"
    for n in range(2 * MAX_PEERS):
        book.learn(peer(n), [ADDRESS], hearsay=True)
    assert len(book) == MAX_PEERS
    assert book.learn(peer(9999), [ADDRESS], hearsay=False, wanted=True)
    assert not book.learn("no id", [ADDRESS], hearsay=False)


def test_what_is_told_fits_into_a_hello(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "book")
    for n in range(MAX_PEERS):
        book.learn(peer(n), [f"/dns/{'x' * 250}{k}/tcp/1" for k in range(4)], hearsay=False)
        book.mark_seen(peer(n))
    assert 10 < len(book.known(32_000)) < MAX_PEERS
    assert len(codec.encode(book.known(32_000))) < 40_000


def test_pauses_grow_to_their_limit_with_jitter() -> None:
    backoff = keeper.Backoff(random.Random(1))
    pauses = [backoff.next() for _ in range(20)]
    for n, pause in enumerate(pauses):
        middle = min(keeper.FIRST_PAUSE * 2**n, keeper.MAX_PAUSE)
        assert math.isclose(pause, middle, rel_tol=keeper.JITTER + 1e-9)
    assert len(set(pauses)) == len(pauses)
    backoff.reset()
    assert backoff.next() < 1


def test_errors_on_the_wire() -> None:
    assert faults.from_wire(["SW2011", "a\nb"]).cause == "a?b"
    for odd in (None, [], ["SW2011"], [1, 2], ["SW2011", "x", "y"], {"a": 1}):
        assert faults.from_wire(odd).code == "SW2005"
    assert faults.from_wire(["SW0000", "x"]).code == "SW2005"
    assert len(faults.from_wire(["SW2011", "x" * 10_000]).cause) == faults.MAX_TEXT
    assert faults.to_wire("m", LocalError("SW2014", "too large")) == ["SW2014", "too large"]
    assert faults.to_wire("m", ValueError("insides")) == ["SW2005", "m: ValueError"]
