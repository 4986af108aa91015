"""The contract: what it is built from, how it is called, who may do what."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import LocalError, RemoteError
from swarm.ledger.ethereum import contract, deploy
from swarm.ledger.ethereum.account import Account, keccak, require_web3
from swarm.ledger.ethereum.client import Client
from tests.ethereum import npm
from tests.ethereum.anvil import ACCOUNTS, Anvil

REPOSITORY = Path(__file__).resolve().parents[2]
ONE, TWO = b"\1" * 32, b"\2" * 32


def artefact() -> dict[str, Any]:
    text = resources.files("swarm.ledger.ethereum").joinpath("SwarmLog.json").read_text()
    value: dict[str, Any] = json.loads(text)
    return value


def test_the_shipped_byte_code_is_what_the_source_compiles_to() -> None:
    build = REPOSITORY / "scripts" / "build-contract"
    done = subprocess.run(
        [sys.executable, str(build), "--check"], capture_output=True, text=True, check=False
    )
    if done.returncode == 2:
        pytest.skip(f"the contract was not compiled again: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


def test_the_shipped_file_is_consistent() -> None:
    value = artefact()
    source = resources.files("swarm.ledger.ethereum").joinpath("SwarmLog.sol").read_bytes()
    assert hashlib.sha256(source).hexdigest() == value["source_sha256"]
    for name in ("bytecode", "runtime"):
        code = bytes.fromhex(value[name])
        assert hashlib.sha256(code).hexdigest() == value[f"{name}_sha256"]
    for signature, selector in value["methods"].items():
        assert keccak(signature.encode())[:4].hex() == selector
    assert keccak(b"Appended(uint256,address,bytes32,bytes)") == contract.APPENDED
    assert "5f" not in {value["runtime"][:2]}  # PUSH0 came after `paris`


@given(st.binary(max_size=300))
def test_calls_are_encoded_as_web3_does(data: bytes) -> None:
    require_web3()
    from web3 import Web3

    made = Web3().eth.contract(abi=artefact()["abi"])
    assert "0x" + contract.append_call(data).hex() == made.encode_abi("append", [data])
    who = "0x" + "ab" * 20
    ours = contract.call("register(address,bytes32)", contract.address_word(who), ONE)
    assert "0x" + ours.hex() == made.encode_abi("register", [Web3.to_checksum_address(who), ONE])


@given(st.lists(st.binary(max_size=40), max_size=4), st.binary(max_size=200))
def test_hostile_events_are_refused(topics: list[bytes], data: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        contract.parse_appended(topics, data)
    assert caught.value.code == "SW3109"


@pytest.mark.parametrize("text", ["", "0x", "0x12", "0x" + "g" * 40, "1" * 42, "0X" + "1" * 40])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(LocalError) as caught:
        contract.checked_address(text, "--contract")
    assert caught.value.code == "SW5101"


class Chain:
    """A contract of the first account's."""

    def __init__(self, node: Anvil) -> None:
        self.client = Client([node.url], None)
        self.accounts = [Account(bytes.fromhex(one.key)) for one in ACCOUNTS]
        self.address = deploy.deploy(self.client, self.accounts[0], ONE).address

    def do(self, number: int, signature: str, *words: bytes) -> int:
        data = contract.call(signature, *words)
        return deploy.execute(self.client, self.accounts[number], self.address, data)

    def append(self, number: int, data: bytes) -> int:
        call = contract.append_call(data)
        return deploy.execute(self.client, self.accounts[number], self.address, call)

    def word(self, number: int) -> bytes:
        return contract.address_word(self.accounts[number].address)

    def entries(self) -> list[contract.Entry]:
        def work(point: Any) -> Any:
            newest = point.newest().number
            return point.page(self.address, 0, newest, -1, None).events

        return [event.entry for event in self.client.run(work)]

    def refused(self, call: Callable[..., int], *arguments: Any) -> None:
        with pytest.raises(LocalError) as caught:
            call(*arguments)
        assert caught.value.code == "SW3110"


@pytest.fixture
def chain(node: Anvil) -> Chain:
    return Chain(node)


def test_entries_are_numbered_and_chained(chain: Chain) -> None:
    for data in (b"", b"x", b"y" * 33, bytes(contract.MAX_ENTRY)):
        chain.append(0, data)
    head = bytes(32)
    for number, entry in enumerate(chain.entries()):
        assert entry.number == number
        assert entry.author == chain.accounts[0].address
        head = contract.head_after(head, entry, keccak)
        assert entry.head == head
    assert [len(entry.data) for entry in chain.entries()] == [0, 1, 33, contract.MAX_ENTRY]


def test_who_may_do_what(chain: Chain) -> None:
    register = "register(address,bytes32)"
    chain.refused(chain.append, 1, b"a stranger")
    chain.refused(chain.do, 1, register, chain.word(1), TWO)
    chain.do(0, register, chain.word(1), TWO)
    chain.append(1, b"a writer")
    # A writer registers others, one account each; it replaces and removes nobody.
    chain.do(1, register, chain.word(2), b"\3" * 32)
    chain.refused(chain.do, 1, register, chain.word(3), b"\3" * 32)
    chain.refused(chain.do, 1, register, chain.word(2), b"\4" * 32)
    chain.refused(chain.do, 1, register, chain.word(3), bytes(32))
    chain.refused(chain.do, 1, "remove(address)", chain.word(2))
    chain.refused(chain.do, 1, "reserve(bool)", contract.word(1))
    chain.refused(chain.do, 1, "handOver(address)", chain.word(1))
    # The administrator replaces a member's account, and may keep registration to itself.
    chain.do(0, register, chain.word(3), b"\3" * 32)
    chain.refused(chain.append, 2, b"replaced")
    chain.append(3, b"its successor")
    chain.do(0, "reserve(bool)", contract.word(1))
    chain.refused(chain.do, 1, register, chain.word(4), b"\5" * 32)
    # One gives up one's own place, the administrator its office.
    chain.do(1, "remove(address)", chain.word(1))
    chain.refused(chain.append, 1, b"gone")
    chain.do(0, "handOver(address)", chain.word(4))
    chain.refused(chain.do, 0, "reserve(bool)", contract.word(0))
    chain.do(4, "remove(address)", chain.word(3))
    assert [e.data for e in chain.entries()] == [b"a writer", b"its successor"]


def test_gas(chain: Chain, record_property: Any) -> None:
    """What an entry costs, and that the limit that is offered holds."""
    chain.append(0, b"first")  # sets the first words of storage
    for size in (300, 3_000, 60_000, contract.MAX_ENTRY):
        used = chain.append(0, b"\xff" * size)
        record_property(f"gas_{size}", used)
        assert used < 46_000 + 41 * size
        assert used < contract.gas_limit(size)


def test_npm_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(npm, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(npm.NotObtainable, match=r"install Node\.js"):
        npm.package("solc", "0.8.37")
