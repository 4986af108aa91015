"""The contract SwarmLog: what it is called with, and what it tells. Pure.

The few fixed shapes are encoded here by hand, after the ABI's rules: words of 32 bytes, and for
`bytes` an offset, a length and padding. web3 is needed for none of it, and what an RPC end point
sends is checked byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from swarm.errors import LocalError, RemoteError

MAX_ENTRY = 96 * 1024  # bytes; the contract refuses more
WORD = 32
NOBODY = "0x" + 40 * "0"
MALFORMED = "SW3109"

# keccak256 of "Appended(uint256,address,bytes32,bytes)"
APPENDED = bytes.fromhex("68ae7d9d94551f2c9500128bf6a03cc620bf7d23acd40fe77b153e62773dc70c")

Keccak = Callable[[bytes], bytes]


class Artefact(NamedTuple):
    """What `scripts/build-contract` made of the source."""

    code: bytes  # to deploy; the constructor's argument follows it
    runtime: bytes  # what then lies at the contract's address
    methods: dict[str, str]  # signature: selector, hexadecimal


@cache
def artefact() -> Artefact:
    """The compiled contract that is shipped."""
    text = resources.files(__package__).joinpath("SwarmLog.json").read_text()
    value: dict[str, Any] = json.loads(text)
    code, runtime = bytes.fromhex(value["bytecode"]), bytes.fromhex(value["runtime"])
    return Artefact(code, runtime, value["methods"])


class Entry(NamedTuple):
    """One `Appended` event."""

    number: int  # its place in the contract's log, from 0
    author: str  # address of the account, 0x and lower case
    head: bytes  # hash chain over all entries up to this one
    data: bytes


def call(signature: str, *arguments: bytes) -> bytes:
    """Call data of a method whose arguments are single words (`word`, `address_word`)."""
    return bytes.fromhex(artefact().methods[signature]) + b"".join(arguments)


def append_call(data: bytes) -> bytes:
    """Call data of `append`."""
    if len(data) > MAX_ENTRY:
        raise ValueError(f"an entry of {len(data)} bytes")
    padding = bytes(-len(data) % WORD)
    return call("append(bytes)", word(WORD), word(len(data)), data + padding)


def word(number: int) -> bytes:
    """A number as the ABI writes it."""
    return number.to_bytes(WORD, "big")


def address_word(address: str) -> bytes:
    """An address as the ABI writes it. ValueError when it is none."""
    return bytes(12) + address_bytes(address)


def address_bytes(address: str) -> bytes:
    """The 20 bytes of an address written as 0x and 40 digits; ValueError."""
    if len(address) != 42 or address[:2] != "0x":
        raise ValueError(f"{address[:60]!r} is not an address: 0x and 40 hexadecimal digits")
    return bytes.fromhex(address[2:])


def checked_address(text: str, option: str) -> str:
    """An address in lower case. LocalError SW5101."""
    try:
        address_bytes(text)
    except ValueError as error:
        raise LocalError("SW5101", f"{option}: {error}") from None
    return text.lower()


def address_of(answer: bytes) -> str:
    """The address in a word."""
    return "0x" + answer[12:WORD].hex()


def gas_limit(size: int) -> int:
    """An upper bound of what `append` of `size` bytes takes; what is not used is not paid.

    A byte costs at most 40 as call data (EIP-7623) or 16 + 8 as call data and log, and copying;
    the rest is at most two fresh storage words. `register` takes less than the constant, too.
    """
    return 220_000 + 56 * size


def parse_appended(topics: Sequence[bytes], data: bytes) -> Entry:
    """Read an `Appended` event of the contract. Raises RemoteError SW3109."""
    if len(topics) != 3 or topics[0] != APPENDED or any(len(topic) != WORD for topic in topics):
        raise RemoteError(MALFORMED, "an event of the contract has other topics than it may have")
    if len(data) < 3 * WORD or _number(data, 1) != 2 * WORD:
        raise RemoteError(MALFORMED, "an event of the contract is malformed")
    size = _number(data, 2)
    if size > MAX_ENTRY or len(data) < 3 * WORD + size:
        raise RemoteError(MALFORMED, "an event of the contract is cut off")
    content = data[3 * WORD : 3 * WORD + size]
    return Entry(int.from_bytes(topics[1], "big"), address_of(topics[2]), data[:WORD], content)


def _number(data: bytes, place: int) -> int:
    return int.from_bytes(data[place * WORD : (place + 1) * WORD], "big")


def head_after(head: bytes, entry: Entry, keccak: Keccak) -> bytes:
    """The contract's hash chain after an entry."""
    return keccak(head + address_word(entry.author) + keccak(entry.data))
