"""Single transactions, one after the other, for commands: deployment, registration, anchors.

Everything here blocks. `swarm.ledger.ethereum.orderer` does its own sending, many at a time.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from swarm.errors import LocalError, RemoteError
from swarm.ledger.ethereum import contract
from swarm.ledger.ethereum.account import Account
from swarm.ledger.ethereum.client import Client, EndPoint, Receipt, Refusal
from swarm.ledger.ethereum.sender import FUNDS, Fee
from swarm.ledger.genesis import EthereumOrder

RECEIPT_SECONDS = 300.0
POLL_SECONDS = 0.1
DEPLOY_GAS = 1_500_000
DEEP = 12  # confirmations on a network whose newest blocks may be replaced
# Besu, GoQuorum and their kin mark blocks of their byzantine fault tolerant consensus with this:
# such a block is final at once. (EIP-650; "ctical byzantine fault tolerance" in ASCII.)
ISTANBUL = "0x63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365"


class Deployed(NamedTuple):
    """A new contract."""

    address: str
    block: int
    gas: int


def deploy(client: Client, account: Account, fingerprint: bytes) -> Deployed:
    """Make a contract; `account` administers it and is its first writer, for that member's key.

    Raises LocalError SW3107, SW3110, RemoteError SW3103.
    """
    code = contract.artefact().code + fingerprint
    receipt = _execute(client, account, None, code, DEPLOY_GAS)
    return Deployed(receipt.contract, born(client, receipt.contract), receipt.gas)


def execute(client: Client, account: Account, address: str, data: bytes) -> int:
    """Call a method of a contract, and wait until a block has it; returns the gas that it took.

    Raises LocalError SW3107, SW3110 (refused by the node or by the contract), RemoteError SW3103.
    """
    return _execute(client, account, address, data, contract.gas_limit(len(data))).gas


def _execute(client: Client, account: Account, to: str | None, data: bytes, gas: int) -> Receipt:
    chain_id = client.chain_id()
    quote = client.run(lambda point: client.quote(point, point.newest()))
    nonce = client.standing(account.address).pending
    raw, tx_hash = account.sign(transaction(chain_id, nonce, to, data, gas, quote))
    try:
        client.run(lambda point: point.send(raw))
    except Refusal as refusal:
        if refusal.kind == FUNDS:
            raise LocalError("SW3107", f"account {account.address}: {refusal}") from None
        raise LocalError("SW3110", str(refusal)) from None
    receipt = _wait(client, tx_hash)
    if not receipt.ok:
        raise LocalError("SW3110", f"the contract refused it in block {receipt.block}")
    return receipt


def transaction(
    chain_id: int, nonce: int, to: str | None, data: bytes, gas: int, fee: Fee
) -> dict[str, object]:
    """The fields to sign. `to` is None for a new contract."""
    fields: dict[str, object] = {
        "chainId": chain_id,
        "nonce": nonce,
        "value": 0,
        "gas": gas,
        "data": data,
    }
    if to is not None:
        fields["to"] = contract.address_bytes(to)
    if fee.tip is None:
        fields["gasPrice"] = fee.most
    else:
        fields["maxFeePerGas"] = fee.most
        fields["maxPriorityFeePerGas"] = fee.tip
    return fields


def _wait(client: Client, tx_hash: str) -> Receipt:
    end = time.monotonic() + RECEIPT_SECONDS
    pause = threading.Event()
    while time.monotonic() < end:
        receipt = client.run(lambda point: point.receipt(tx_hash))
        if receipt is not None:
            return receipt
        pause.wait(POLL_SECONDS)
    raise RemoteError("SW3103", f"no block took transaction {tx_hash} in {RECEIPT_SECONDS:.0f} s")


def check_contract(client: Client, address: str) -> None:
    """LocalError SW3104 unless our contract is there; RemoteError SW3103 when nobody answers."""
    code = client.run(lambda point: point.code(address))
    if code == contract.artefact().runtime:
        return
    what = "another contract" if code else "no contract"
    raise LocalError("SW3104", f"there is {what} at {address}")


def is_writer(client: Client, address: str, account: str) -> bool:
    """Whether an account may append."""
    return any(_ask(client, address, "member(address)", contract.address_word(account)))


def account_of(client: Client, address: str, fingerprint: bytes) -> str:
    """The account that is registered for a member's key, or NOBODY."""
    return contract.address_of(_ask(client, address, "account(bytes32)", fingerprint))


def born(client: Client, address: str) -> int:
    """The block of the contract's deployment."""
    return int.from_bytes(_ask(client, address, "born()"), "big")


def _ask(client: Client, address: str, method: str, *arguments: bytes) -> bytes:
    """The one word that a method answers."""
    data = contract.call(method, *arguments)
    answer = client.run(lambda point: point.call(address, data))
    if len(answer) != contract.WORD:
        raise RemoteError(contract.MALFORMED, f"{method} of the contract gives no word")
    return answer


def survey(client: Client, account: Account, address: str, confirmations: int) -> EthereumOrder:
    """What a founder writes into the genesis, after a look at network, contract and account.

    `confirmations` 0: 1 on a network that says of its blocks that they are final, else 12. Raises
    LocalError SW3102, SW3104, SW3106, SW3107, RemoteError SW3103.
    """
    chain_id = client.chain_id()
    check_contract(client, address)
    if not is_writer(client, address, account.address):
        raise LocalError("SW3106", f"account {account.address} is no writer of {address}")
    price = client.run(lambda point: client.quote(point, point.newest()))
    if price.most and not client.run(lambda point: point.balance(account.address)):
        raise LocalError("SW3107", f"account {account.address} has nothing, and gas costs here")
    if not confirmations:
        confirmations = 1 if client.run(is_instant) else DEEP
    return EthereumOrder(chain_id, address, born(client, address), confirmations)


def is_instant(point: EndPoint) -> bool:
    """Whether the newest block says of itself that it is final."""
    block = point.read("eth_getBlockByNumber", "latest", False)
    return isinstance(block, dict) and block.get("mixHash") == ISTANBUL
