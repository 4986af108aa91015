"""How a node is told which network orders, and what does not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel.ordering import check
from sentinel.settings import EthereumSettings, Settings
from swarm.errors import LocalError, RemoteError
from swarm.identity import Role
from swarm.launch import arguments, components
from swarm.launch.arguments import UsageError
from swarm.ledger import codec
from swarm.ledger.genesis import EthereumOrder, Genesis
from tests import pki
from tests.ledger.net import genesis_for

CONTRACT = "0x" + "ab" * 20
ALL = {
    "SWARM_ORDERER": "ethereum",
    "SWARM_ETH_RPC": "https://a.example/KEY, http://b.example:8545",
    "SWARM_ETH_KEY": "/k",
    "SWARM_ETH_CONTRACT": CONTRACT.upper().replace("0X", "0x"),
    "SWARM_ETH_CONFIRMATIONS": "3",
}
ORDER = EthereumOrder(1337, CONTRACT, 7, 3)


def test_settings_are_read() -> None:
    made = EthereumSettings.from_env(ALL)
    assert made is not None
    assert made == EthereumSettings(
        True, ("https://a.example/KEY", "http://b.example:8545"), Path("/k"), CONTRACT, 3
    )
    assert "KEY" not in repr(made)
    joiner = EthereumSettings.from_env({k: ALL[k] for k in ("SWARM_ETH_RPC", "SWARM_ETH_KEY")})
    assert joiner is not None
    assert (joiner.chosen, joiner.contract, joiner.confirmations) == (False, "", 0)
    assert EthereumSettings.from_env({}) is None
    assert EthereumSettings.from_env({"SWARM_ORDERER": "embedded"}) is None
    assert Settings.from_env({"THIS_NODE_IP": "h", **ALL}).ethereum == made


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"SWARM_ORDERER": "raft"}, "raft"),
        ({"SWARM_ETH_RPC": ""}, "--rpc"),
        ({"SWARM_ETH_RPC": "b.example"}, "URL 1"),
        ({"SWARM_ETH_KEY": ""}, "--account-key"),
        ({"SWARM_ETH_CONTRACT": "0x12"}, "--contract"),
        ({"SWARM_ETH_CONFIRMATIONS": "0"}, "--confirmations"),
        ({"SWARM_ETH_CONFIRMATIONS": "many"}, "--confirmations"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, str], named: str) -> None:
    with pytest.raises(LocalError, match=named) as caught:
        EthereumSettings.from_env({**ALL, **change})
    assert caught.value.code == "SW5101"
    assert "KEY" not in str(caught.value)


def test_settings_and_genesis_must_fit() -> None:
    given = EthereumSettings.from_env(ALL)
    here = Path("/data")
    check(given, ORDER, here)
    check(None, None, here)
    for settings, order in (
        (given, None),
        (None, ORDER),
        (given, EthereumOrder(1337, "0x" + "cd" * 20, 7, 3)),
        (given, EthereumOrder(1337, CONTRACT, 7, 4)),
    ):
        with pytest.raises(LocalError) as caught:
            check(settings, order, here)
        assert caught.value.code == "SW5101"


def test_a_genesis_with_an_ordering_network(tmp_path: Path) -> None:
    founder = pki.identity(tmp_path, Role.SN, pki.authority(tmp_path))
    plain = genesis_for(founder)
    assert Genesis.decode(plain.encode()) == plain
    fields = {name: getattr(plain, name) for name in Genesis.__dataclass_fields__}
    made = Genesis(**{**fields, "order": ORDER})
    assert Genesis.decode(made.encode()) == made
    assert made.chain_id != plain.chain_id
    value = codec.decode(made.encode(), limit=1 << 20, what="genesis")
    for order in (
        [0, b"x" * 20, 7, 3], [1, b"x" * 19, 7, 3], [1, b"x" * 20, -1, 3], [1, b"x" * 20, 7, 0],
        [1, b"x" * 20, 7, 10**6], [1, b"x" * 20, 7], ["1", b"x" * 20, 7, 3],
    ):  # fmt: skip
        with pytest.raises(RemoteError) as caught:
            Genesis.decode(codec.encode([*value[:-1], order]))
        assert caught.value.code == "SW3003"
    with pytest.raises(RemoteError):
        Genesis.decode(codec.encode(["swarm-genesis-2", *value[1:-1]]))


def launch(*flags: str) -> dict[str, str]:
    options = (*components.SN_OPTIONS, *components.COMMON)
    parsed = arguments.parse(["--host-ip=127.0.0.1", *flags], options, {})
    made = components.sn(parsed)
    assert all(mount.read_only for mount in made.mounts)
    return dict(made.env)


def test_flags(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    flags = ["--rpc=http://h", f"--account-key={key}"]
    env = launch("--sentinel", "--orderer=ethereum", f"--contract={CONTRACT}", *flags,
                 "--confirmations=3")  # fmt: skip
    assert {k: v for k, v in env.items() if k.startswith("SWARM_")} == {
        "SWARM_ORDERER": "ethereum",
        "SWARM_ETH_RPC": "http://h",
        "SWARM_ETH_CONTRACT": CONTRACT,
        "SWARM_ETH_CONFIRMATIONS": "3",
        "SWARM_ETH_KEY": str(key),
    }
    assert "SWARM_ORDERER" not in launch("--sentinel-ip=h", *flags)
    for wrong in (
        ["--sentinel", "--orderer=raft"],
        ["--sentinel-ip=h", "--orderer=ethereum"],
        ["--sentinel", "--account-key=/no/such/file"],
    ):
        with pytest.raises(UsageError):
            launch(*wrong)
