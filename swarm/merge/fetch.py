"""Fetching a decided vector from one that has it: late joiners, laggards, members that return.

    HELLO {want: fetch, digest}  ->
                                 <-  ANSWER {ok}
                                 <-  LAYOUT (opaque here: the header of the tensor file)
                                 <-  DIGESTS
    NEED (one bit for each block) ->
                                 <-  REDUCED (index of its first block, whole blocks)* · END

The digest comes from the ledger, the leaf digests are checked against it, and each block against
its leaf; so it does not matter whom one asks. Blocks that are already here, of an exchange that did
not finish, are not sent again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from swarm.errors import RemoteError
from swarm.merge.blocks import DIGEST, block_count, block_size, leaf, root, split
from swarm.merge.dial import HANDSHAKE, Dialler, Member
from swarm.merge.plan import CHUNK
from swarm.merge.progress import SLOWEST
from swarm.merge.wire import LIMITS, PROTOCOL, Channel, ConnectionGone, Kind, WireError

STALL = 10.0  # seconds without a byte after which another holder is asked
PATIENCE = 30.0  # seconds after which a holder that is slower than `SLOWEST` is left

Write = Callable[[int, memoryview], None]  # takes bytes of a vector from this one on


@dataclass(frozen=True)
class Decided:
    """A decided vector that is kept here. `read` fills a buffer from a byte offset on."""

    contract: str
    round: int
    digest: bytes
    layout: bytes
    size: int
    leaves: Sequence[bytes] = field(repr=False)
    read: Callable[[int, memoryview], None] = field(repr=False)


class Pace:
    """Watches that bytes come at more than `SLOWEST`: a byte now and then is no transfer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._bytes = 0

    def came(self, count: int) -> None:
        """Account for some bytes. Raises ConnectionGone when they are too few by now."""
        self._bytes += count
        took = self._clock() - self._since
        if took > PATIENCE and self._bytes < SLOWEST * took:
            raise ConnectionGone(f"only {self._bytes} B came in {took:.0f} s")


class NotHere(RemoteError):
    """This holder could not give the vector: SW6106."""

    def __init__(self, cause: str) -> None:
        super().__init__("SW6106", cause)


def serve_fetch(channel: Channel, decided: Decided, current: Callable[[], bool]) -> None:
    """The holder's half, after its door. Stops when `current` turns false: the vector is replaced.

    Raises ConnectionGone, WireError, NotHere.
    """
    channel.send_json(Kind.ANSWER, {"ok": True, "round": decided.round, "size": decided.size})
    channel.send(Kind.LAYOUT, decided.layout)
    channel.send(Kind.DIGESTS, b"".join(decided.leaves))
    blocks = len(decided.leaves)
    need = channel.expect_raw(Kind.NEED, -(-blocks // 8))
    buffer = memoryview(bytearray(_largest_run(decided.size)))
    for first, last in _runs(need, blocks, decided.size):
        start, stop = _span(first, last, decided.size)
        piece = buffer[: stop - start]
        channel.sock.settimeout(max(STALL, len(piece) / SLOWEST))
        decided.read(start, piece)
        if not current():  # asked after the reading: the file may have been written to since then
            raise NotHere("the model was replaced while it was read")
        channel.send_chunk(Kind.REDUCED, first, piece)
    channel.send(Kind.END)


def fetch(
    dialler: Dialler,
    holder: Member,
    hello: tuple[str, str, bytes],
    prepare: Callable[[bytes, int], tuple[Write, Sequence[bytes]]],
    watch: Callable[[Channel | None], None] = lambda channel: None,
) -> list[bytes]:
    """Fetch a vector from `holder`; `hello` is (contract, own uid, digest). Returns its leaves.

    `prepare(layout, size)` gives what takes the blocks, each with its offset, and the leaf digests
    of what is there already. What either raises goes through. `watch` gets the channel while it is
    in use, so that another thread may abort it. Raises RemoteError when the holder is gone,
    refuses, or sends what does not fit.
    """
    channel = dialler.dial(holder)
    watch(channel)
    try:
        channel.sock.settimeout(max(STALL, HANDSHAKE))
        channel.touched = Pace().came
        return _converse(channel, hello, prepare)
    finally:
        watch(None)
        channel.close()


def _converse(
    channel: Channel,
    hello: tuple[str, str, bytes],
    prepare: Callable[[bytes, int], tuple[Write, Sequence[bytes]]],
) -> list[bytes]:
    contract, uid, digest = hello
    channel.send_json(
        Kind.HELLO,
        {
            "protocol": PROTOCOL,
            "want": "fetch",
            "contract": contract,
            "uid": uid,
            "digest": digest.hex(),
        },
    )
    answer = channel.expect_json(Kind.ANSWER)
    if answer.get("ok") is not True:
        raise NotHere(str(answer.get("text"))[:400])
    size = answer.get("size")
    if not isinstance(size, int) or not 0 <= size <= LIMITS[Kind.DIGESTS] // DIGEST << 20:
        raise WireError("ANSWER without a size")
    layout = channel.expect_raw(Kind.LAYOUT)
    leaves = split(channel.expect_raw(Kind.DIGESTS, DIGEST * block_count(size)))
    if root(leaves) != digest:
        raise WireError("block digests do not fit the decided digest")
    write, have = prepare(layout, size)
    needed = _bitmap(leaves, have)
    channel.send(Kind.NEED, needed)
    buffer = memoryview(bytearray(_largest_run(size)))
    for first, last in _runs(needed, len(leaves), size):
        start, stop = _span(first, last, size)
        _take(channel, buffer[: stop - start], block_size(size), leaves, first, last)
        write(start, buffer[: stop - start])
    channel.expect_raw(Kind.END, 0)
    return leaves


def _take(
    channel: Channel,
    data: memoryview,
    block: int,
    leaves: Sequence[bytes],
    first: int,
    last: int,
) -> None:
    """Fill `data` with blocks `first` to `last` (exclusive), and check them."""
    kind, length = channel.receive_header()
    if kind is not Kind.REDUCED:
        raise WireError(f"unexpected {kind.name} frame")
    index, size = channel.chunk_index(length)
    if (index, size) != (first, len(data)):
        raise WireError(f"blocks from {index}, {size} B; expected from {first}, {len(data)} B")
    channel.receive_into(data)
    for number in range(first, last):
        at = (number - first) * block
        if leaf(data[at : at + block]) != leaves[number]:
            raise WireError(f"block {number} does not fit its digest")


def _bitmap(leaves: Sequence[bytes], have: Sequence[bytes]) -> bytes:
    """One bit for each block that is not here, least significant bit first."""
    bits = bytearray(-(-len(leaves) // 8))
    for number, digest in enumerate(leaves):
        if number >= len(have) or have[number] != digest:
            bits[number // 8] |= 1 << number % 8
    return bytes(bits)


def _span(first: int, last: int, size: int) -> tuple[int, int]:
    """First byte of a run of blocks, and the byte after its last."""
    return first * block_size(size), min(last * block_size(size), size)


def _largest_run(size: int) -> int:
    """Bytes that hold any run of `_runs`."""
    return min(size, max(CHUNK, block_size(size)))


def _runs(bits: bytes, blocks: int, size: int) -> Iterator[tuple[int, int]]:
    """Runs of wanted blocks (first, last exclusive), each small enough for one frame."""
    most = max(1, CHUNK // block_size(size))
    number = 0
    while number < blocks:
        if not bits[number // 8] >> number % 8 & 1:
            number += 1
            continue
        first = number
        while number < blocks and number - first < most and bits[number // 8] >> number % 8 & 1:
            number += 1
        yield first, number
