"""JSON-RPC: end points that fail, and what must never be told."""

from __future__ import annotations

import logging
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import LocalError, RemoteError
from swarm.ledger.ethereum import client as module
from swarm.ledger.ethereum.account import Account
from swarm.ledger.ethereum.bounded import BoundedSession
from swarm.ledger.ethereum.client import Client, EndPoint, Refusal
from swarm.ledger.ethereum.sender import FUNDS, KNOWN, LOW, REFUSED, UNDERPRICED, Fee
from swarm.ledger.ethereum.urls import end_points
from tests.ethereum.anvil import ACCOUNTS, CHAIN_ID, Anvil
from tests.ethereum.proxy import Proxy

SECRET = "/v3/0123456789abcdef"
WORD = "0x" + "11" * 32
BLOCK = {
    "number": "0x7", "hash": WORD, "parentHash": WORD, "timestamp": "0x64", "baseFeePerGas": "0xa",
}  # fmt: skip


def scripted(answers: dict[str, Any]) -> Callable[[str, list[Any]], Any]:
    """An end point that answers by method; a chain id unless it is told otherwise."""
    known = {"eth_chainId": "0x1", "eth_getBlockByNumber": BLOCK, **answers}

    def answer(method: str, _params: list[Any]) -> Any:
        value = known.get(method)
        return value if isinstance(value, dict) and "error" in value else {"result": value}

    return answer


def newest(client: Client) -> Any:
    return client.run(EndPoint.newest)


@pytest.mark.parametrize("mode", ["hang", "cut", "error", "junk"])
def test_urls_are_told_to_nobody(
    mode: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with Proxy(answer=scripted({}), path=SECRET) as proxy:
        client = Client([proxy.url], None, seconds=0.5)
        newest(client)
        proxy.mode = mode
        with pytest.raises(RemoteError) as caught:
            newest(client)
        assert caught.value.code == "SW3103"
        assert caught.value.__cause__ is None
        told = f"{caught.value!r} {caplog.text} {capsys.readouterr()} {client!r}"
        for part in (SECRET, "127.0.0.1", str(proxy.url)):
            assert part not in told
        client.close()


def test_an_end_point_that_drips_is_given_up() -> None:
    """requests would wait for ever: each byte resets its clock."""
    session = BoundedSession("http://127.0.0.1", 1000, 0.2)
    with Proxy(answer=scripted({})) as proxy:
        answer = session.post(proxy.url, data=b'{"method": "eth_chainId", "params": []}')
        assert answer.json()["result"] == "0x1"
        small = BoundedSession("http://127.0.0.1", 10, 5.0)
        with pytest.raises(Exception, match="too large"):
            small.post(proxy.url, data=b'{"method": "eth_chainId", "params": []}')
        late = BoundedSession("http://127.0.0.1", 1000, -1.0)
        with pytest.raises(Exception, match="timed out"):
            late.post(proxy.url, data=b'{"method": "eth_chainId", "params": []}', timeout=5)


def test_redirections_are_not_followed() -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Not into the tests' output."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        client = Client([f"http://127.0.0.1:{server.server_address[1]}"], None, seconds=2.0)
        with pytest.raises(RemoteError, match="unusable answer"):
            newest(client)
        server.shutdown()
        thread.join()


def test_the_next_end_point_is_used_and_kept() -> None:
    with Proxy(answer=scripted({})) as first, Proxy(answer=scripted({})) as second:
        client = Client([first.url, second.url], 1, seconds=2.0)
        assert newest(client).number == 7
        assert client.current == 1
        first.mode = "error"
        newest(client)
        assert client.current == 2
        first.mode = "pass"
        newest(client)
        assert client.current == 2


def test_an_end_point_of_another_network_is_not_used() -> None:
    wrong = scripted({"eth_chainId": "0x5"})
    with Proxy(answer=wrong) as first, Proxy(answer=scripted({})) as second:
        client = Client([first.url, second.url], 1, seconds=2.0)
        assert client.chain_id() == 1
        assert client.current == 2
        alone = Client([first.url], 1, seconds=2.0)
        with pytest.raises(LocalError) as caught:
            alone.chain_id()
        assert caught.value.code == "SW3102"
        assert "network 5, not 1" in caught.value.cause


@pytest.mark.parametrize(
    "change",
    [
        {"number": 7}, {"number": "7"}, {"number": "0xzz"}, {"hash": "11"}, {"hash": None},
        {"timestamp": "0x" + "f" * 99}, {"parentHash": "0x1"},
    ],
)  # fmt: skip
def test_malformed_blocks_are_refused(change: dict[str, Any]) -> None:
    block = {**BLOCK, **change}
    with Proxy(answer=scripted({"eth_getBlockByNumber": block})) as proxy:
        with pytest.raises(RemoteError, match="malformed answer") as caught:
            newest(Client([proxy.url], 1, seconds=2.0))
        assert caught.value.code == "SW3103"


@pytest.mark.parametrize(
    "logs", ["x", ["x"], [{}], [{"topics": 7}], [{"topics": [], "removed": True}],
             [{"topics": [WORD], "blockNumber": "0x7", "blockTimestamp": "0x1", "data": "0x"}]],
)  # fmt: skip
def test_malformed_events_are_refused(logs: Any) -> None:
    with Proxy(answer=scripted({"eth_getLogs": logs})) as proxy:
        client = Client([proxy.url], 1, seconds=2.0)
        with pytest.raises(RemoteError) as caught:
            client.run(lambda point: point.page("0x" + "11" * 20, 7, 7, -1, None))
        assert caught.value.code in ("SW3103", "SW3109")


def test_blocks_of_proof_of_authority_networks_can_be_read() -> None:
    """Their `extraData` is longer than 32 bytes, which web3's typed calls refuse."""
    block = {**BLOCK, "extraData": "0x" + "d8" * 97}
    with Proxy(answer=scripted({"eth_getBlockByNumber": block})) as proxy:
        assert newest(Client([proxy.url], 1, seconds=2.0)).number == 7


def test_networks_without_base_fee_or_price() -> None:
    legacy = {key: value for key, value in BLOCK.items() if key != "baseFeePerGas"}
    with Proxy(answer=scripted({"eth_getBlockByNumber": legacy, "eth_gasPrice": "0x0"})) as proxy:
        client = Client([proxy.url], 1, seconds=2.0)
        quote = client.run(lambda point: client.quote(point, point.newest()))
        assert quote == Fee(0, None)
    unknown = {"error": {"code": -32601, "message": "the method does not exist"}}
    with Proxy(answer=scripted({"eth_maxPriorityFeePerGas": unknown})) as proxy:
        client = Client([proxy.url], 1, seconds=2.0)
        quote = client.run(lambda point: client.quote(point, point.newest()))
        assert quote == Fee(21, 1)
    free = {**BLOCK, "baseFeePerGas": "0x0"}
    answers = {
        "eth_getBlockByNumber": free,
        "eth_gasPrice": "0x0",
        "eth_maxPriorityFeePerGas": "0x9",
    }
    with Proxy(answer=scripted(answers)) as proxy:
        client = Client([proxy.url], 1, seconds=2.0)
        assert client.run(lambda point: client.quote(point, point.newest())) == Fee(0, 0)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("nonce too low: next nonce 5, tx nonce 3", LOW),  # geth, reth, anvil
        ("Nonce too low", LOW),  # Besu
        ("OldNonce, Current nonce: 5", LOW),  # Nethermind
        ("already known", KNOWN),
        ("Known transaction", KNOWN),
        ("replacement transaction underpriced", UNDERPRICED),
        ("transaction underpriced: tip needed 1", UNDERPRICED),
        ("max fee per gas less than block base fee", UNDERPRICED),
        ("Gas price below configured minimum gas price", UNDERPRICED),
        ("FeeTooLow, MaxFeePerGas too low", UNDERPRICED),
        ("insufficient funds for gas * price + value", FUNDS),
        ("Upfront cost exceeds account balance", FUNDS),
        ("exceeds block gas limit", REFUSED),
        ("see https://rpc.example/KEY for more", REFUSED),
    ],
)
def test_how_nodes_word_refusals(message: str, kind: str) -> None:
    refusal = Refusal(-32000, message)
    assert refusal.kind == kind
    assert "KEY" not in str(refusal)


def test_a_real_node_words_them_so(own_node: Anvil) -> None:
    client = Client([own_node.url], CHAIN_ID)
    account = Account(bytes.fromhex(ACCOUNTS[0].key))
    poor = Account(b"\x01" * 32)

    def kind(nonce: int, fee: Fee, who: Account = account, gas: int = 21_000) -> str:
        from swarm.ledger.ethereum.deploy import transaction

        raw, _ = who.sign(transaction(CHAIN_ID, nonce, who.address, b"", gas, fee))
        try:
            client.run(lambda point: point.send(raw))
        except Refusal as refusal:
            return refusal.kind
        return ""

    good = Fee(3 * 10**9, 10**9)
    own_node.rpc("evm_setAutomine", False)  # it mines a little after its answer
    assert kind(0, good) == ""
    own_node.rpc("evm_mine")
    assert kind(0, good) == LOW
    assert kind(0, good, poor) == FUNDS
    assert kind(1, Fee(1, 1)) == UNDERPRICED
    assert kind(1, good) == ""
    assert kind(1, good) == KNOWN
    assert kind(2, good, gas=10**9) == REFUSED
    client.close()


@pytest.mark.parametrize("text", ["", ",", "ftp://x", "node:8545", "http://", "http://h:99999",
                                  ",".join(["http://h"] * 9)])  # fmt: skip
def test_urls_that_are_none(text: str) -> None:
    with pytest.raises(LocalError) as caught:
        end_points(text)
    assert caught.value.code == "SW5101"
    assert "99999" not in str(caught.value)


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = Account.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Account.load(path).address == made.address
    assert path.read_text().strip() not in repr(made)
    bad = {"short": "12", "no hex": "z" * 64, "zero": "0" * 64, "beyond the curve": "f" * 64}
    for text in bad.values():
        path.write_text(text)
        with pytest.raises(LocalError) as caught:
            Account.load(path)
        assert caught.value.code == "SW3105"
        assert text not in str(caught.value)
    for call in (lambda: Account.create(path), lambda: Account.load(tmp_path / "none")):
        with pytest.raises(LocalError) as caught:
            call()
        assert caught.value.code == "SW3105"
    path.chmod(0o644)
    with pytest.raises(LocalError, match="others may read it"):
        Account.load(path)


def test_known_accounts_of_the_test_network() -> None:
    for address, key in ACCOUNTS:
        assert Account(bytes.fromhex(key)).address == address.lower()


def test_missing_libraries_are_named() -> None:
    script = (
        "import sys; sys.modules['eth_account'] = None\n"
        "from swarm.errors import LocalError\n"
        "from swarm.ledger.ethereum.account import Account\n"
        "try: Account(bytes(31) + b'1')\n"
        "except LocalError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("SW3101")
    assert "[node,ethereum]" in done.stdout


def test_the_libraries_are_imported_only_when_they_are_used() -> None:
    """They take seconds and 60 MB. And they lift the limit of recursion, which is put back."""
    script = (
        "import sys\n"
        "import sentinel.ordering, swarm.audit.network\n"
        "assert not {'web3', 'eth_account', 'requests.sessions'} & set(sys.modules)\n"
        "before = sys.getrecursionlimit()\n"
        "from swarm.ledger.ethereum.account import require_web3\n"
        "require_web3()\n"
        "assert 'web3' in sys.modules and sys.getrecursionlimit() == before"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_quiet_loggers() -> None:
    module.quiet()
    for name in ("web3", "urllib3", "requests"):
        assert not logging.getLogger(name).isEnabledFor(logging.DEBUG)
