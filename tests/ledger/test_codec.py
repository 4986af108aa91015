"""Canonical CBOR: what is accepted has exactly one form."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import RemoteError
from swarm.ledger import codec

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=300)
    | st.text(max_size=40)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=30), inner),
    max_leaves=40,
)


def decode(data: bytes) -> Any:
    return codec.decode(data, limit=1 << 20, what="value")


@given(values)
def test_what_is_encoded_is_read_back(value: Any) -> None:
    assert decode(codec.encode(value)) == value


@given(st.binary(max_size=200))
def test_hostile_bytes_are_refused_or_canonical(data: bytes) -> None:
    """Against the general decoder: whatever we accept, it reads alike, and we write it back."""
    try:
        value = decode(data)
    except RemoteError as error:
        assert error.code == "SW3001"
        return
    assert codec.encode(value) == data
    assert cbor2.loads(data) == value


@given(values, st.data())
def test_no_altered_byte_yields_the_same_value(value: Any, data: st.DataObject) -> None:
    good = codec.encode(value)
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[place] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(bytes(bad))
    except RemoteError:
        return
    assert codec.encode(other) != good


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x18\x17",  # 23 in two bytes
        b"\x19\x00\xff",  # 255 in three bytes
        b"\x1b\x80\x00\x00\x00\x00\x00\x00\x00",  # 2**63
        b"\x9f\xff",  # indefinite list
        b"\xc0\x61a",  # tag
        b"\xf9\x3c\x00",  # half float 1.0
        b"\xfb" + bytes(8),  # double 0.0
        b"\xf7",  # undefined
        b"\xf8\xff",  # simple(255)
        b"\xa2\x61b\x00\x61a\x00",  # keys out of order
        b"\xa2\x61a\x00\x61a\x00",  # key twice
        b"\xa1\x00\x00",  # integer key
        b"\x61\xff",  # not UTF-8
        b"\x9b" + b"\xff" * 8,  # a list of 2**64 - 1
        b"\x81" * 100_000 + b"\x00",  # a tower of lists
        b"\x00\x00",  # two values
        b"\x5a\x00\x01\x00\x00",  # bytes that are not there
    ],
)
def test_other_forms_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        decode(data)


TOWER: Any = 0
for _ in range(codec.MAX_DEPTH + 1):
    TOWER = [TOWER]


@pytest.mark.parametrize("value", [1.0, {1: 2}, 2**63, {"a": {1, 2}}, TOWER])
def test_our_own_mistakes_are_not_encoded(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        codec.encode(value)


def test_size_is_bounded_before_reading() -> None:
    with pytest.raises(RemoteError, match="more than 8"):
        codec.decode(b"\x49" + bytes(9), limit=8, what="value")


def test_fields_are_counted_and_typed_exactly() -> None:
    assert codec.fields(["t", 1, b""], "t", (int, bytes), "x") == [1, b""]
    for wrong in (["t", 1], ["u", 1, b""], ["t", True, b""], ["t", 1, ""], None):
        with pytest.raises(RemoteError):
            codec.fields(wrong, "t", (int, bytes), "x")
