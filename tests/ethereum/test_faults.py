"""The Ethereum orderer when the network, its nodes or its users do what they should not."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from swarm.errors import LocalError
from swarm.ledger.ethereum import contract, deploy
from swarm.ledger.ethereum.account import Account
from swarm.ledger.ethereum.client import Client
from swarm.ledger.ethereum.sender import Fee
from tests.ethereum.anvil import ACCOUNTS, CHAIN_ID, Anvil, obtain
from tests.ethereum.net import EthereumSwarm, run
from tests.ethereum.proxy import Proxy


async def when(condition: Callable[[], object]) -> None:
    """Wait for something that nobody announces; the test as a whole is bounded."""
    while not condition():
        await trio.sleep(0.02)


def key(number: int) -> Account:
    return Account(bytes.fromhex(ACCOUNTS[number].key))


def test_nothing_is_applied_before_it_is_final(tmp_path: Path, own_node: Anvil) -> None:
    """Blocks are replaced twice before they are final; nothing is lost, nothing comes twice."""
    node = own_node

    async def test(swarm: EthereumSwarm) -> None:
        (site,) = await swarm.grow(1)
        node.mine(4)
        for depth in (1, 2):
            tx = swarm.new_task(f"t{depth}")
            answers: list[Any] = []

            async def submit(tx: bytes = tx, answers: list[Any] = answers) -> None:
                answers.append(await site.replica.submit(tx))

            async with trio.open_nursery() as nursery:
                height = site.replica.state.height
                nursery.start_soon(submit)
                await when(lambda: any(f.hashes for f in site.replica._sender.flights.values()))
                if depth == 2:
                    node.mine()
                node.reorganise(depth)
                assert site.replica.state.height == height
                while not answers:
                    # The network goes on; what was thrown out of it comes again by itself.
                    await trio.to_thread.run_sync(node.mine)
                    await trio.sleep(0.05)
            assert answers[0][1].ok
            found = site.replica.block(answers[0][0])
            assert found.block.transactions == (tx,)
        assert site.replica.state.height == 2

    run(tmp_path, node, test, confirmations=3)


def test_a_final_block_that_changes_stops_the_node(tmp_path: Path, own_node: Anvil) -> None:
    async def test(swarm: EthereumSwarm) -> None:
        (site,) = await swarm.grow(1)
        await site.task()
        own_node.mine(1)
        await when(lambda: site.replica._follower.position.number >= 3)
        own_node.reorganise(2)
        await site.ended.wait()
        assert isinstance(site.error, LocalError)
        assert site.error.code == "SW3108"
        assert "was final" in site.replica.waiting()
        await site.kill()
        await site.start()  # and stays so: the position is durable with the block
        await site.ended.wait()
        assert isinstance(site.error, LocalError)
        assert site.error.code == "SW3108"

    run(tmp_path, own_node, test)


def test_a_network_node_restarts(tmp_path: Path) -> None:
    obtain()
    with Anvil(state=tmp_path / "chain.json") as node:

        async def test(swarm: EthereumSwarm) -> None:
            (site,) = await swarm.grow(1)
            await site.task()
            await trio.to_thread.run_sync(node.stop)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.task)
                await when(lambda: "RPC end point" in site.replica.waiting())
                assert "cannot be connected to" in site.replica.waiting()
                await trio.to_thread.run_sync(node.start)
            assert site.replica.state.height == 2
            assert site.replica.waiting() == ""

        run(tmp_path, node, test)


@pytest.mark.parametrize("mode", ["hang", "cut", "error", "junk"])
def test_another_end_point_takes_over(tmp_path: Path, node: Anvil, mode: str) -> None:
    with Proxy(node.port) as first, Proxy(node.port) as second:

        async def test(swarm: EthereumSwarm) -> None:
            (site,) = await swarm.grow(1)
            await site.task()
            first.mode = mode
            await site.task()
            assert (
                second.asked["eth_sendRawTransaction"] + first.asked["eth_sendRawTransaction"] >= 2
            )
            second.mode = mode
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.task)
                await when(lambda: "none of 2 RPC end points works" in site.replica.waiting())
                first.released.set()
                first.mode = "pass"
            assert site.replica.state.height == 3

        run(tmp_path, node, test, urls=[first.url, second.url], seconds=2.0)


def test_a_nonce_that_somebody_else_leaves_open(tmp_path: Path, own_node: Anvil) -> None:
    """Another process sent with a nonce ahead of ours: what we send afterwards must not hang."""
    node = own_node

    async def test(swarm: EthereumSwarm) -> None:
        (site,) = await swarm.grow(1)
        await site.task()
        client = site.client
        nonce = client.standing(site.account.address).pending
        fields = deploy.transaction(
            CHAIN_ID, nonce + 1, site.account.address, b"", 21_000, Fee(3 * 10**9, 10**9)
        )
        raw, _ = site.account.sign(fields)
        client.run(lambda point: point.send(raw))
        for _ in range(3):
            await site.task()
        assert site.replica.state.height == 4

    run(tmp_path, node, test)


def test_a_nonce_that_somebody_else_uses(tmp_path: Path, node: Anvil) -> None:
    async def test(swarm: EthereumSwarm) -> None:
        (site,) = await swarm.grow(1)
        for _ in range(2):
            await site.task()
            data = contract.append_call(b"not ours")
            await trio.to_thread.run_sync(
                deploy.execute, site.client, site.account, swarm.genesis.order.contract, data
            )
            await site.task()
        assert site.replica.state.height == 4

    run(tmp_path, node, test)


def test_foreign_and_malformed_entries_change_nothing(tmp_path: Path, node: Anvil) -> None:
    async def test(swarm: EthereumSwarm) -> None:
        a, b = await swarm.grow(2)
        for data in (b"", b"\xff" * 100, b"\x82\x6dswarm-entry-1\x81\x41x", bytes(90_000)):
            await trio.to_thread.run_sync(
                deploy.execute,
                b.client,
                key(1),
                swarm.genesis.order.contract,
                contract.append_call(data),
            )
        height = await a.task()
        await swarm.at(height)
        assert height == 2
        assert a.replica.state.digest() == b.replica.state.digest()

    run(tmp_path, node, test)


def test_many_pages(tmp_path: Path, own_node: Anvil) -> None:
    """A newcomer reads a long chain piece by piece, from an end point that gives little at once."""
    node = own_node

    def stingy(method: str, params: list[Any]) -> Any:
        if method == "eth_getLogs":
            span = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16)
            if span > 30:
                return {"error": {"code": -32005, "message": "query exceeds max block range 30"}}
        return None

    with Proxy(node.port, answer=stingy) as proxy:

        async def test(swarm: EthereumSwarm) -> None:
            (first,) = await swarm.grow(1)
            for _ in range(3):
                await first.task()
                await trio.to_thread.run_sync(node.mine, 150)
            swarm.urls = [proxy.url]
            late = swarm.site()
            await late.start()
            await late.replica.synced.wait()
            assert late.replica.state.digest() == first.replica.state.digest()
            assert proxy.asked["eth_getLogs"] > 15

        run(tmp_path, node, test)


def test_an_end_point_that_leaves_an_entry_out_is_found_out(tmp_path: Path, node: Anvil) -> None:
    def forgetful(method: str, params: list[Any]) -> Any:
        return {"result": []} if method == "eth_getLogs" and proxy.mode == "pass" else None

    with Proxy(node.port, answer=forgetful) as proxy:

        async def test(swarm: EthereumSwarm) -> None:
            (first,) = await swarm.grow(1)
            await first.task()
            swarm.urls = [proxy.url]
            late = swarm.site()
            await late.start()
            await when(lambda: late.replica._follower.position.number >= 0)
            await late.replica.synced.wait()  # nothing contradicts it yet
            proxy.answer = None
            await first.task()
            await when(lambda: "comes next" in late.replica.waiting())
            assert late.replica.state.height == 0

        run(tmp_path, node, test)


def test_wrong_network_contract_account(tmp_path: Path, own_node: Anvil) -> None:
    node = own_node
    good = Client([node.url], None)
    made = deploy.deploy(good, key(0), b"\7" * 32)
    nobody = Account.create(tmp_path / "key")

    def fails(code: str, *args: Any, client: Client = good) -> str:
        with pytest.raises(LocalError) as caught:
            deploy.survey(client, *args)
        assert caught.value.code == code
        assert node.url not in str(caught.value)
        return caught.value.cause

    assert "is no writer" in fails("SW3106", key(1), made.address, 1)
    assert "no contract at" in fails("SW3104", key(0), nobody.address, 1)
    other = good.run(lambda point: point.newest()).hash  # any code that is not ours
    node.rpc("anvil_setCode", nobody.address, "0x" + other.hex())
    assert "another contract" in fails("SW3104", key(0), nobody.address, 1)
    assert "not 7" in fails("SW3102", key(0), made.address, 1, client=Client([node.url], 7))
    deploy.execute(
        good,
        key(0),
        made.address,
        contract.call(
            "register(address,bytes32)", contract.address_word(nobody.address), b"\5" * 32
        ),
    )
    assert "has nothing" in fails("SW3107", nobody, made.address, 1)
    with pytest.raises(LocalError) as caught:
        deploy.execute(good, nobody, made.address, contract.append_call(b"x"))
    assert caught.value.code == "SW3107"
    assert deploy.survey(good, key(0), made.address, 0).confirmations == deploy.DEEP
    assert deploy.survey(good, key(0), made.address, 1).start == made.block
    good.close()


def test_a_wrong_network_stops_a_node_at_its_start(tmp_path: Path, node: Anvil) -> None:
    async def test(swarm: EthereumSwarm) -> None:
        (site,) = await swarm.grow(1)
        await site.kill()
        with Anvil(chain_id=4711) as other:
            swarm.urls = [other.url]
            await site.start()
            await site.ended.wait()
        assert isinstance(site.error, LocalError)
        assert site.error.code == "SW3102"
        assert "4711" in site.error.cause

    run(tmp_path, node, test)


def test_an_account_without_funds_waits_and_says_so(tmp_path: Path, own_node: Anvil) -> None:
    node = own_node

    async def test(swarm: EthereumSwarm) -> None:
        (site,) = await swarm.grow(1)
        node.rpc("anvil_setBalance", ACCOUNTS[0].address, "0x0")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.task)
            await when(lambda: "SW3107" in site.replica.waiting())
            node.rpc("anvil_setBalance", ACCOUNTS[0].address, hex(10**20))
        assert site.replica.state.height == 1
        assert site.replica.waiting() == ""

    run(tmp_path, node, test)


def test_a_network_where_gas_is_free_needs_no_funds(tmp_path: Path) -> None:
    obtain()
    free = ("--block-base-fee-per-gas", "0", "--gas-price", "0", "--disable-min-priority-fee")
    with Anvil(options=free) as node:
        node.rpc("anvil_setBalance", ACCOUNTS[0].address, "0x0")

        async def test(swarm: EthereumSwarm) -> None:
            (site,) = await swarm.grow(1)
            await site.task()

        run(tmp_path, node, test)


def test_an_account_that_was_removed_waits_until_it_is_registered(
    tmp_path: Path, node: Anvil
) -> None:
    async def test(swarm: EthereumSwarm) -> None:
        a, b = await swarm.grow(2)
        order = swarm.genesis.order
        word = contract.address_word(ACCOUNTS[1].address)
        # The administrator removes it, and reserves registration to itself.
        for data in (
            contract.call("remove(address)", word),
            contract.call("reserve(bool)", contract.word(1)),
        ):
            await trio.to_thread.run_sync(deploy.execute, a.client, key(0), order.contract, data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.task)
            await when(lambda: "SW3106" in b.replica.waiting())
            data = contract.call(
                "register(address,bytes32)", word, bytes.fromhex(b.identity.fingerprint)
            )
            await trio.to_thread.run_sync(deploy.execute, a.client, key(0), order.contract, data)
        assert b.replica.waiting() == ""

    run(tmp_path, node, test)


def test_dead_end_points_from_the_start(tmp_path: Path, node: Anvil) -> None:
    """A node whose network is silent serves what it has on disk, and says what it waits for."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{reserved.getsockname()[1]}/secret-key"

        async def test(swarm: EthereumSwarm) -> None:
            (site,) = await swarm.grow(1)
            await site.task()
            await site.kill()
            swarm.urls = [dead]
            await site.start()
            await when(lambda: "fails" in site.replica.waiting())
            assert site.replica.state.height == 1
            assert "secret-key" not in site.replica.waiting()

        run(tmp_path, node, test)
