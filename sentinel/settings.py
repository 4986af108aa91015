"""The settings of a network node, from its environment.

`run-sn` sets these variables from its flags; the names are the ones that users of the existing
product know.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swarm.address import SERVICE_PORT, service_address
from swarm.errors import LocalError
from swarm.ledger.ethereum.contract import checked_address
from swarm.ledger.ethereum.urls import end_points
from swarm.ledger.genesis import BYZANTINE, FAULT_MODELS

API_PORT = 30304
P2P_PORT = 30303
DATA_DIR = "/platform/swarm/SMLNODE"
ORDERERS = ("embedded", "ethereum")
_YES = ("1", "true", "yes", "on")
_NO = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class EthereumSettings:
    """How this node reaches the Ethereum-compatible network that gives the ledger its order."""

    chosen: bool  # --orderer ethereum: a founder must say so, others learn it from the genesis
    rpc: tuple[str, ...] = field(repr=False)  # URLs, which may hold access keys
    key: Path  # file with the private key of this node's account
    contract: str  # address; "": the genesis says it
    confirmations: int  # 0: the genesis says it, or a founder finds out

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> EthereumSettings | None:
        """Read the variables; None when there are none. Raises LocalError SW5101."""
        orderer = env.get("SWARM_ORDERER") or ""
        if orderer not in ("", *ORDERERS):
            raise LocalError("SW5101", f"SWARM_ORDERER={orderer}: not one of {ORDERERS}")
        rpc, key = env.get("SWARM_ETH_RPC") or "", env.get("SWARM_ETH_KEY") or ""
        contract = env.get("SWARM_ETH_CONTRACT") or ""
        confirmations = env.get("SWARM_ETH_CONFIRMATIONS") or ""
        chosen = orderer == "ethereum"
        if orderer == "embedded" or not (chosen or rpc or key or contract or confirmations):
            return None
        for option, value in (("--rpc", rpc), ("--account-key", key)):
            if not value:
                raise LocalError(
                    "SW5101", f"{option} is missing: an Ethereum-compatible network orders"
                )
        if confirmations and not (confirmations.isdecimal() and 0 < int(confirmations) <= 10_000):
            raise LocalError("SW5101", f"--confirmations: {confirmations}: not 1 to 10000")
        return cls(
            chosen,
            end_points(rpc),
            Path(key),
            checked_address(contract, "--contract") if contract else "",
            int(confirmations or 0),
        )


@dataclass(frozen=True)
class Settings:
    """How this node is reached, what it starts from and where it keeps its ledger."""

    name: str
    host: str  # address or name that clients use
    listen: str  # address to bind
    api_port: int  # to bind
    api_announced: int  # as clients reach it
    p2p_host: str  # address or name that other nodes use
    p2p_port: int  # to bind
    p2p_announced: int  # as others reach it
    is_sentinel: bool
    sentinel_host: str  # any running SN; "" when none was given
    sentinel_port: int
    data_dir: Path
    fault_model: str  # counts only when this node founds the network
    ethereum: EthereumSettings | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read and check the variables. Raises LocalError SW5101, naming variable and value."""
        own = env.get("THIS_NODE_IP", "")
        api_port = _port(env, "SN_API_SERVER_PORT", API_PORT)
        p2p = _port(env, "SN_P2P_PORT", P2P_PORT)
        host, announced = _service(env, "SN_API_SERVICE") or (own, api_port)
        p2p_host, p2p_announced = _service(env, "SN_ETH_P2P_SERVICE", P2P_PORT) or (
            own,
            _port(env, "SN_ETH_PORT_EXT", p2p),
        )
        if not host or not p2p_host:
            raise LocalError(
                "SW5101",
                "THIS_NODE_IP (--host-ip) is not set, nor both of SN_API_SERVICE "
                "(--sn-api-service) and SN_ETH_P2P_SERVICE (--sn-p2p-service)",
            )
        is_sentinel = _flag(env, "SN_I_AM_SENTINEL")
        sentinel, sentinel_port = _service(env, "SENTINEL_API_SERVICE") or (
            env.get("SENTINEL_NODE_IP", ""),
            _port(env, "SENTINEL_API_SERVER_PORT", API_PORT),
        )
        if is_sentinel and sentinel:
            raise LocalError(
                "SW5101", f"a node is the sentinel, or joins one ({sentinel}): not both"
            )
        model = env.get("SWARM_FAULT_MODEL") or BYZANTINE
        if model not in FAULT_MODELS:
            raise LocalError("SW5101", f"SWARM_FAULT_MODEL={model}: not one of {FAULT_MODELS}")
        return cls(
            name=env.get("SWARM_NODE_NAME") or host,
            host=host,
            listen=env.get("SWARM_LISTEN") or "0.0.0.0",  # noqa: S104 - reachable by default
            api_port=api_port,
            api_announced=announced,
            p2p_host=p2p_host,
            p2p_port=p2p,
            p2p_announced=p2p_announced,
            is_sentinel=is_sentinel,
            sentinel_host=sentinel,
            sentinel_port=sentinel_port,
            data_dir=Path(env.get("SWARM_DATA_DIR") or DATA_DIR),
            fault_model=model,
            ethereum=EthereumSettings.from_env(env),
        )

    @property
    def announced(self) -> str:
        """The multiaddress under which other network nodes dial this one."""
        try:
            version = ipaddress.ip_address(self.p2p_host).version
            kind = "ip4" if version == 4 else "ip6"
        except ValueError:
            kind = "dns"
        return f"/{kind}/{self.p2p_host}/tcp/{self.p2p_announced}"


def _service(env: Mapping[str, str], name: str, port: int = SERVICE_PORT) -> tuple[str, int] | None:
    """Host and port of a service behind a reverse proxy; None where none is named."""
    text = env.get(name, "")
    if not text:
        return None
    try:
        return service_address(text, port)
    except ValueError as error:
        raise LocalError("SW5101", f"{name}: {error}") from None


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name, "").lower()
    if value in _YES:
        return True
    if value in _NO:
        return False
    raise LocalError("SW5101", f"{name}={value}: neither yes nor no")


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise LocalError("SW5101", f"{name}={text}: not a port number")
    return int(text)
