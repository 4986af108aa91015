"""Real network nodes above a real Ethereum node, and the commands around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import LocalError
from swarm.launch import look
from swarm.launch.arguments import UsageError
from swarm.ledger.ethereum import anchors, contract, deploy
from swarm.ledger.ethereum.account import Account
from swarm.ledger.ethereum.client import Client
from tests import pki
from tests.ethereum.anvil import ACCOUNTS, Anvil
from tests.processes import Processes, until

BOUND = 90.0


def key_file(directory: Path, number: int) -> Path:
    path = directory / f"account-{number}.key"
    path.touch(mode=0o600)
    path.write_text(ACCOUNTS[number].key)
    return path


def command(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run `swarm ledger …`; return what it prints."""
    capsys.readouterr()
    assert look.main(["ledger", *map(str, words)]) == 0
    return capsys.readouterr().out


def create(name: str) -> tuple[str, dict[str, object]]:
    return "task.create", {
        "name": name, "type": "RUN_SWARM", "author": "A", "prereq": "ROOTTASK", "outcome": "o",
    }  # fmt: skip


@pytest.mark.slow
def test_network_nodes_on_an_ethereum_network(
    tmp_path: Path, node: Anvil, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found, join with nothing but end point and account, commit, crash, return, and verify."""
    with Processes(tmp_path) as run:
        ca = pki.authority(tmp_path)
        env = pki.environment(tmp_path / "cert" / "sn1", "SN", ca, name="sn1")
        network = ["--rpc", node.url, "--account-key", key_file(tmp_path, 0)]
        address, *_ = command(
            capsys, "deploy-contract", *network, "--cert", env["SWARM_ID_CERT"]
        ).split()
        shared = {"SWARM_ETH_RPC": node.url}
        first = run.sn(
            "sn1",
            ca,
            wait=BOUND,
            env={
                **env, **shared, "SWARM_ORDERER": "ethereum", "SWARM_ETH_CONTRACT": address,
                "SWARM_ETH_KEY": str(key_file(tmp_path, 0)), "SWARM_ETH_CONFIRMATIONS": "1",
            },
        )  # fmt: skip
        key = {"SWARM_ETH_KEY": str(key_file(tmp_path, 1))}
        second = run.sn("sn2", ca, sentinel=first, wait=BOUND, env={**shared, **key})
        assert "registering account" in first.log
        client = run.client(ca, first, second)
        for number in range(3):
            client.submit(*create(f"t{number}"))
        second.kill()
        client.submit(*create("while-it-is-down"))
        height = client.status()["height"]
        run.restart(second, BOUND)
        direct = run.direct(ca, second)
        until(lambda: direct.status()["height"] >= height, BOUND, "the second caught up")
        assert direct.status()["digest"] == run.direct(ca, first).status()["digest"]
        for log in (first.log, second.log):
            assert node.url not in log
            assert ACCOUNTS[0].key not in log
        assert first.terminate(BOUND) == 0
        told = command(capsys, "verify", tmp_path / "data" / "sn1", "--capath", ca.capath)
        assert "recomputed" in told
        assert address in told  # whose order it is, and that no votes prove it


@pytest.mark.slow
def test_anchors_of_an_embedded_ledger(
    tmp_path: Path, node: Anvil, capsys: pytest.CaptureFixture[str]
) -> None:
    with Processes(tmp_path) as run:
        ca = pki.authority(tmp_path)
        sn = run.sn("sn1", ca, wait=BOUND)
        client = run.client(ca, sn)
        for number in range(3):
            client.submit(*create(f"t{number}"))
        files = pki.environment(tmp_path / "anchoring", "SN", ca, name="anchoring")
        network = ["--rpc", node.url, "--account-key", key_file(tmp_path, 0)]
        cert = ["--cert", files["SWARM_ID_CERT"]]
        address, *_ = command(capsys, "deploy-contract", *network, *cert).split()
        identity = [*cert, "--key", files["SWARM_ID_KEY"], "--capath", ca.capath]
        where = ["--sn", f"{sn.host}:{sn.port}", "--contract", address]
        command(capsys, "anchor", *network, *where, *identity, "--once")
        command(capsys, "anchor", *network, *where, *identity, "--once")  # nothing is due
        status = client.status()
        assert sn.terminate(BOUND) == 0
    node.mine(deploy.DEEP)
    data = tmp_path / "data" / "sn1"
    verify = ["verify", data, "--capath", ca.capath]
    chain = ["--anchor-rpc", node.url, "--anchor-contract", address]
    assert "anchors      1 " in command(capsys, *verify, *chain)
    # Somebody anchors another history: either the ledger or that writer lies.
    network_ = Client([node.url], None)
    other = Account(bytes.fromhex(ACCOUNTS[1].key))
    command(capsys, "writer", "add", other.address, *network, "--contract", address, *cert)
    lie = anchors.Anchor(bytes.fromhex(status["chain"]), 1, b"\1" * 32)
    deploy.execute(network_, other, address, contract.append_call(lie.encode()))
    node.mine(deploy.DEEP)
    with pytest.raises(LocalError, match="height 1: the block is not the one"):
        command(capsys, *verify, *chain)
    trusted = ["--anchor-account", ACCOUNTS[0].address]
    assert "anchors      1 " in command(capsys, *verify, *chain, *trusted)
    command(capsys, "writer", "remove", other.address, *network, "--contract", address)
    assert not deploy.is_writer(network_, address, other.address)
    network_.close()


def test_contradicting_anchors(node: Anvil) -> None:
    client = Client([node.url], None)
    account = Account(bytes.fromhex(ACCOUNTS[0].key))
    address = deploy.deploy(client, account, b"\1" * 32).address
    chain = b"\2" * 32
    for height, name in ((5, 1), (9, 2), (5, 1)):
        anchor = anchors.Anchor(chain, height, bytes([name]) * 32)
        deploy.execute(client, account, address, contract.append_call(anchor.encode()))
    deploy.execute(client, account, address, contract.append_call(b"no anchor"))
    node.mine(deploy.DEEP)
    found = anchors.read(client, address, chain)
    assert [(a.height, a.block_id[0], a.author) for a in found] == [
        (5, 1, account.address),
        (9, 2, account.address),
    ]
    assert anchors.read(client, address, b"\3" * 32) == []
    second = anchors.Anchor(chain, 9, b"\7" * 32)
    deploy.execute(client, account, address, contract.append_call(second.encode()))
    node.mine(deploy.DEEP)
    with pytest.raises(Exception, match="height 9 was anchored as 0202") as caught:
        anchors.read(client, address, chain)
    assert getattr(caught.value, "code", "") == "SW3111"
    client.close()


def test_commands_complain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new.key"
    assert command(capsys, "new-account", path).startswith("0x")
    network = ["--rpc", "http://127.0.0.1:1", "--account-key", str(path)]
    files = pki.environment(tmp_path, "SN", pki.authority(tmp_path))
    for words, code in (
        (["deploy-contract", *network, "--cert", files["SWARM_ID_CERT"]], "SW3103"),
        (["writer", "remove", "0x12", *network, "--contract", "0x" + "1" * 40], "SW5101"),
        (["writer", "remove", "0x" + "1" * 40, *network, "--contract", "0x1"], "SW5101"),
        (["new-account", path], "SW3105"),
        (["deploy-contract", "--account-key", path, "--cert", files["SWARM_ID_CERT"]], "SW5101"),
    ):
        with pytest.raises((LocalError, UsageError)) as caught:
            command(capsys, *words)
        assert getattr(caught.value, "code", "") == code
