"""Values on the wire: CBOR (RFC 8949), restricted and checked before anything is built from it.

A general CBOR decoder does more than a peer may ask for: tags compile regular expressions and build
big numbers or shared references, and nesting recurses. So `check` first walks the heads of the
encoded items, without recursion and without allocating, and accepts only: integers of 64 bits,
byte and text strings, arrays, maps with text keys, false, true, null and floats, all of definite
length. What passes is given to the fast decoder. The encoder's output is checked in the same way,
so that a value which cannot travel is reported where it was made.
"""

from __future__ import annotations

from typing import Any

import cbor2

from swarm.errors import LocalError, RemoteError
from swarm.mesh.port import MAX_MESSAGE

MAX_DEPTH = 24
MAX_ITEMS = 1 << 16  # in one value: a megabyte of empty lists would take seconds to look at

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_PLAIN_SIMPLE = (20, 21, 22)  # false, true, null
_FLOAT_SIZES = {25: 2, 26: 4, 27: 8}


class Malformed(ValueError):
    """The bytes are not exactly one value of the accepted kind."""


def _count(data: bytes, at: int, info: int) -> tuple[int, int]:
    """The argument of the head whose first byte precedes `at`, and where it ends."""
    if info < 24:
        return info, at
    if info > 27:
        raise Malformed(f"indefinite or reserved length at byte {at - 1}")
    end = at + (1 << (info - 24))
    if end > len(data):
        raise Malformed("ends inside a length")
    return int.from_bytes(data[at:end], "big"), end


def check(data: bytes, *, depth: int = MAX_DEPTH) -> None:
    """Raise `Malformed` unless `data` is exactly one acceptable value."""
    at, end, left = 0, len(data), MAX_ITEMS
    # Per open container: items still to come, and whether it is a map. A map of n pairs holds 2n
    # items; an even number left means that a key comes next.
    stack: list[list[Any]] = [[1, False]]
    while stack:
        top = stack[-1]
        if top[0] == 0:
            stack.pop()
            continue
        if at >= end:
            raise Malformed("ends early")
        major, info = data[at] >> 5, data[at] & 31
        if top[1] and top[0] % 2 == 0 and major != _TEXT:
            raise Malformed(f"map key at byte {at} is not text")
        top[0] -= 1
        at += 1
        if major == _SIMPLE:
            if info not in _PLAIN_SIMPLE:
                if info not in _FLOAT_SIZES:
                    raise Malformed(f"simple value {info} at byte {at - 1}")
                at += _FLOAT_SIZES[info]
            continue
        if major == _TAG:
            raise Malformed(f"tag at byte {at - 1}")
        count, at = _count(data, at, info)
        if major in (_BYTES, _TEXT):
            at += count
        elif major in (_ARRAY, _MAP):
            items = 2 * count if major == _MAP else count
            if items > end - at:  # each item takes a byte at least
                raise Malformed(f"container of {count} items in {end - at} bytes")
            left -= items
            if left < 0:
                raise Malformed(f"more than {MAX_ITEMS} items")
            if len(stack) > depth:
                raise Malformed(f"nested deeper than {depth}")
            stack.append([items, major == _MAP])
    if at != end:
        raise Malformed("ends early" if at > end else f"{end - at} bytes behind the value")


def encode(value: Any, limit: int = MAX_MESSAGE) -> bytes:
    """Encode a plain value.

    Raises `LocalError` SW2014 if it holds something else, or takes more than `limit` bytes.
    """
    try:
        data: bytes = cbor2.dumps(value)
        check(data)
    except (cbor2.CBOREncodeError, Malformed, RecursionError, OverflowError, TypeError) as error:
        raise LocalError("SW2014", f"a value that cannot travel: {error}") from error
    if len(data) > limit:
        raise LocalError("SW2014", f"{len(data)} bytes, the limit is {limit}")
    return data


def decode(data: bytes) -> Any:
    """Decode what a peer sent; raises `RemoteError` SW2010 when it is not acceptable."""
    try:
        check(data)
        return cbor2.loads(data)
    except (Malformed, cbor2.CBORDecodeError, ValueError, RecursionError, MemoryError) as error:
        raise RemoteError("SW2010", f"unreadable value: {error}") from error
