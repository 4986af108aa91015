"""Canonical CBOR: one value, one byte string.

Everything that is signed or hashed goes through here, so two rules hold:

- `encode` writes the core deterministic form of RFC 8949, 4.2.1: shortest lengths, definite sizes,
  map keys sorted by their encoded bytes.
- `decode` accepts that form and nothing else. It reads byte by byte and never calls a general CBOR
  decoder, because those build dates, decimals, regular expressions and cyclic values from tags; a
  stranger's bytes must not reach that code. What `decode` accepts, `encode` writes back
  identically, so a message cannot have two hashes.

Values are None, bool, int (64 bit signed), bytes, str, list and dict with str keys. No floats:
their text differs between machines, and no decision may depend on one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import cbor2

from swarm.errors import RemoteError

Value: TypeAlias = Any  # None | bool | int | bytes | str | list[Value] | dict[str, Value]

MAX_DEPTH = 12  # the deepest real value, a roster in a history in a record, is 6
INT_LIMIT = 1 << 63  # SQLite and other languages count in 64 bits


def encode(value: Value) -> bytes:
    """Return the canonical bytes of `value`.

    The caller gives values of our own making; a float or a foreign type is a programming error
    (TypeError, ValueError).
    """
    _check(value, MAX_DEPTH)
    return cbor2.dumps(value, canonical=True)


def _check(value: Value, depth: int) -> None:
    kind = type(value)
    if kind is int:
        if not -INT_LIMIT <= value < INT_LIMIT:
            raise ValueError(f"{value} does not fit 64 bits")
    elif kind in (list, tuple):
        if depth == 0:
            raise ValueError("nested too deeply")
        for item in value:
            _check(item, depth - 1)
    elif kind is dict:
        if depth == 0:
            raise ValueError("nested too deeply")
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"map key {key!r} is not text")
            _check(item, depth - 1)
    elif kind not in (bytes, str, bool, type(None)):
        raise TypeError(f"{kind.__name__} has no canonical form here")


def decode(data: bytes, *, limit: int, what: str, code: str = "SW3001") -> Value:
    """Return the value whose canonical form is `data`.

    `limit` is in bytes. Raises RemoteError(`code`) that names `what` for anything else: too long,
    truncated, trailing bytes, tags, floats, duplicate or unsorted keys, a longer form than needed.
    """
    if len(data) > limit:
        raise RemoteError(code, f"{what} has {len(data)} bytes, more than {limit}")
    try:
        value, end = _item(data, 0, MAX_DEPTH)
        if end != len(data):
            raise ValueError("bytes after the end")
    except (ValueError, IndexError) as error:
        # IndexError: a read beyond the end.
        raise RemoteError(code, f"{what} is not canonical CBOR: {error}") from None
    return value


def _head(data: bytes, at: int) -> tuple[int, int]:
    """Argument of an item's head that does not hold it itself, and the position after it.

    `at` is the position after the first byte (RFC 8949, 3).
    """
    info = data[at - 1] & 31
    if info > 27:
        raise ValueError("indefinite length")
    size = 1 << (info - 24)
    if at + size > len(data):
        raise ValueError("truncated")
    argument = int.from_bytes(data[at : at + size], "big")
    # Shortest form: 24..255 takes one byte, and a longer field must need its upper half.
    if argument < 24 if size == 1 else argument >> (4 * size) == 0:
        raise ValueError("a length is not in its shortest form")
    return argument, at + size


def _item(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    first = data[at]
    major, argument = first >> 5, first & 31
    at += 1
    if argument > 23:
        argument, at = _head(data, at)
    if major == 2 or major == 3:
        end = at + argument
        if end > len(data):
            raise ValueError("truncated")
        chunk = data[at:end]
        return (chunk if major == 2 else chunk.decode()), end  # UnicodeDecodeError is a ValueError
    if major < 2:
        if argument >= INT_LIMIT:
            raise ValueError("integer beyond 64 bits")
        return (argument if major == 0 else -1 - argument), at
    if major == 7:
        return _simple(data, at, argument), at
    if major == 6:
        raise ValueError("tag")
    if depth == 0:
        raise ValueError("nested too deeply")
    if argument > len(data) - at:  # each element takes at least one byte
        raise ValueError("truncated")
    return (_list if major == 4 else _map)(data, at, argument, depth - 1)


_SIMPLE = {20: False, 21: True, 22: None}


def _simple(data: bytes, at: int, argument: int) -> bool | None:
    # `data[at - 1]` is the head itself only when the argument took no further byte: this also
    # rejects half, single and double floats, whose head announces 2, 4 or 8 bytes.
    if data[at - 1] != 0xE0 | argument or argument not in _SIMPLE:
        raise ValueError("float or unknown simple value")
    return _SIMPLE[argument]


def _list(data: bytes, at: int, count: int, depth: int) -> tuple[list[Value], int]:
    items = []
    for _ in range(count):
        item, at = _item(data, at, depth)
        items.append(item)
    return items, at


def _map(data: bytes, at: int, count: int, depth: int) -> tuple[dict[str, Value], int]:
    result: dict[str, Value] = {}
    before = b""
    for _ in range(count):
        start = at
        key, at = _item(data, at, 0)
        if type(key) is not str:
            raise ValueError("map key is not text")
        raw = data[start:at]
        if raw <= before:
            raise ValueError("map keys are not in order")
        before = raw
        result[key], at = _item(data, at, depth)
    return result, at


def fields(
    value: Value, tag: str, kinds: Sequence[type], what: str, code: str = "SW3001"
) -> list[Value]:
    """Return the fields of a tagged list `[tag, …]` after checking their number and exact types.

    Raises RemoteError(`code`). `bool` is not taken for `int`.
    """
    if type(value) is not list or len(value) != len(kinds) + 1 or value[0] != tag:
        raise RemoteError(code, f"{what} is not a {tag} of {len(kinds)} fields")
    for place, (item, kind) in enumerate(zip(value[1:], kinds, strict=True)):
        if type(item) is not kind:
            raise RemoteError(
                code, f"{what}: field {place} is {type(item).__name__}, not {kind.__name__}"
            )
    return value[1:]


def list_of(value: Value, kind: type, what: str, *, most: int, code: str = "SW3001") -> list[Value]:
    """Return `value` if it is a list of at most `most` items of `kind`; else RemoteError."""
    if type(value) is not list or len(value) > most or any(type(v) is not kind for v in value):
        raise RemoteError(code, f"{what} is not a list of at most {most} {kind.__name__}")
    return value


def require(condition: bool, text: Callable[[], str] | str, code: str = "SW3001") -> None:
    """Raise RemoteError(`code`) unless `condition` holds."""
    if not condition:
        raise RemoteError(code, text if isinstance(text, str) else text())
