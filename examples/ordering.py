"""The network that orders the demonstration's ledger with `ORDERER=ethereum`: anvil, from npm.

It is what a consortium would have already: an Ethereum-compatible network with one account for each
host. Here it is one process on loopback with a block for each transaction; the contract is deployed
with the product's own command.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from two_hosts import REPOSITORY, Host, StepFailed

sys.path.insert(0, str(REPOSITORY))

from tests.ethereum import npm
from tests.ethereum.anvil import Anvil


class EthereumOrdering:
    """Starts the network, hands each host an account, and deploys the contract."""

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._say = say
        self._contract = ""
        self._stack = ExitStack()

    def __enter__(self) -> EthereumOrdering:
        self._say("starting anvil, an Ethereum node, for the order of the ledger")
        try:
            self._node = self._stack.enter_context(Anvil())
        except npm.NotObtainable as reason:
            raise StepFailed(f"ORDERER=ethereum: {reason}") from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def flags(self, host: Host) -> list[str]:
        """Flags of a host's network node; the first host is the founder."""
        key = host.directory / "account.key"
        key.touch(mode=0o600)
        key.write_text(self._node.accounts[host.index - 1].key + "\n")
        common = [f"--rpc={self._node.url}", f"--account-key={key}"]
        if self._contract:
            return common
        self._contract = self._deploy(host, common)
        self._say(f"deployed the contract {self._contract}")
        return [
            *common, "--orderer=ethereum", f"--contract={self._contract}", "--confirmations=1",
        ]  # fmt: skip

    def _deploy(self, host: Host, common: list[str]) -> str:
        certificate = host.workspace / "cert" / f"sn-{host.index}-cert.pem"
        swarm = str(Path(sys.executable).parent / "swarm")
        command = [swarm, "ledger", "deploy-contract", *common, f"--cert={certificate}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StepFailed(f"swarm ledger deploy-contract\n{done.stdout}{done.stderr}")
        return done.stdout.split()[0]
