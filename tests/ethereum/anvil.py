"""`anvil`, a real Ethereum node with one miner, from the npm registry.

    with Anvil() as node:                    # a block for each transaction, at once
        node.url, node.accounts[0].key
    with Anvil(block_time=1) as node: …      # a block each second
    with Anvil(state=path) as node:          # its chain survives `stop` and `start`

`obtain` skips the calling test, with the reason, where anvil cannot be had.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests.ethereum import npm
from tests.processes import free_port

VERSION = "1.7.1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
CHAIN_ID = 31337
# Those of the development mnemonic "test test … junk", which everybody knows: worth nothing.
_KEYS = (
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
)
_ADDRESSES = (
    "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
    "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
)


class Account(NamedTuple):
    """A funded account: address and private key, hexadecimal."""

    address: str
    key: str


ACCOUNTS = tuple(Account(*pair) for pair in zip(_ADDRESSES, _KEYS, strict=True))


def binary() -> Path:
    """Path of the program. Raises npm.NotObtainable."""
    system = {"linux": "linux", "darwin": "darwin"}.get(sys.platform)
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower()
    )
    if system is None or machine is None:
        raise npm.NotObtainable(f"there is no anvil for {sys.platform} on {platform.machine()}")
    return npm.package(f"@foundry-rs/anvil-{system}-{machine}", VERSION) / "bin" / "anvil"


def obtain() -> Path:
    """`binary`, or skip the test, saying why."""
    import pytest

    try:
        return binary()
    except npm.NotObtainable as reason:
        pytest.skip(f"not run against a real Ethereum node: {reason}")


class Anvil:
    """One node process on a free port of loopback. Raises npm.NotObtainable on entry."""

    def __init__(
        self,
        *,
        block_time: float = 0,
        state: Path | None = None,
        chain_id: int = CHAIN_ID,
        options: tuple[str, ...] = (),
        port: int = 0,
    ) -> None:
        """`block_time`: seconds between blocks, 0 for a block at once for each transaction.

        `state`: a file in which the chain is kept from `stop` to `start`.
        """
        self.block_time = block_time
        self.state = state
        self.chain_id = chain_id
        self.accounts = ACCOUNTS
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Anvil:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [str(binary()), "--silent", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--chain-id", str(self.chain_id), "--slots-in-an-epoch", "1"]
        if self.block_time:
            command += ["--block-time", str(self.block_time)]
        if self.state is not None:
            command += ["--state", str(self.state), "--preserve-historical-states"]
        self._process = subprocess.Popen(
            [*command, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal is for those who use it
        )
        end = time.monotonic() + START_SECONDS
        pause = threading.Event()
        while True:
            try:
                self.rpc("eth_blockNumber")
                return
            except OSError:
                if self._process.poll() is not None:
                    assert self._process.stderr is not None
                    text = self._process.stderr.read().decode(errors="replace").strip()
                    raise RuntimeError(f"anvil ended: {text}") from None
                if time.monotonic() > end:
                    self.stop()
                    raise RuntimeError(f"anvil did not answer in {START_SECONDS:.0f} s") from None
                pause.wait(0.02)

    def stop(self, *, kill: bool = False) -> None:
        """End it; with SIGTERM it writes its `state` first. `kill`: with SIGKILL."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill() if kill else process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()

    def rpc(self, method: str, *params: Any) -> Any:
        """Call a JSON-RPC method. OSError when it does not answer, RuntimeError when it refuses."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        request = urllib.request.Request(
            self.url, body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=30
        ) as answer:
            value = json.load(answer)
        if "error" in value:
            raise RuntimeError(f"{method}: {value['error']}")
        return value["result"]

    def mine(self, blocks: int = 1) -> None:
        """Make blocks now."""
        self.rpc("anvil_mine", hex(blocks))

    def reorganise(self, depth: int) -> None:
        """Replace the last `depth` blocks by empty ones."""
        self.rpc("anvil_reorg", depth, [])
