"""Addresses of services, and the settings that name them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.settings import Settings as NetworkNode
from swarm.address import asked_name, service_address
from swarm.errors import LocalError
from swarm.learner.settings import Settings as Learner
from swop.settings import read_settings


def test_a_service_has_port_443_or_its_own() -> None:
    assert service_address("api.sn-1.swarm") == ("api.sn-1.swarm", 443)
    assert service_address("api.sn-1.swarm:8443") == ("api.sn-1.swarm", 8443)
    assert service_address("sn1", 30303) == ("sn1", 30303)


@pytest.mark.parametrize(
    "text",
    ["", ":443", "a:", "a:0", "a:65536", "a:٣", "a:1:2", "a b", "a/b", "-a", ".a", "a..b", "a\n",
     "a" * 64 + ".b", "https://a", "x" * 300],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not of the form|is no port number"):
        service_address(text)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        host, port = service_address(text)
    except ValueError:
        return
    assert host
    assert 0 < port < 65536


def test_a_client_asks_for_names_and_not_for_addresses() -> None:
    assert asked_name("fs.sl-1.swarm") == "fs.sl-1.swarm"
    assert asked_name("172.1.1.1") is None
    assert asked_name("::1") is None


def test_a_network_node_with_services_needs_no_address() -> None:
    env = {
        "SN_API_SERVICE": "api.sn",
        "SN_ETH_P2P_SERVICE": "p2p.sn",
        "SENTINEL_API_SERVICE": "api.first:444",
    }
    node = NetworkNode.from_env(env)
    assert (node.host, node.api_announced, node.api_port) == ("api.sn", 443, 30304)
    assert node.announced == "/dns/p2p.sn/tcp/30303"
    assert (node.sentinel_host, node.sentinel_port) == ("api.first", 444)
    for missing in ("SN_API_SERVICE", "SN_ETH_P2P_SERVICE"):
        with pytest.raises(LocalError, match="SW5101: THIS_NODE_IP"):
            NetworkNode.from_env({k: v for k, v in env.items() if k != missing})
    with pytest.raises(LocalError, match="SENTINEL_API_SERVICE: 'x' is no port number"):
        NetworkNode.from_env({**env, "SENTINEL_API_SERVICE": "api.first:x"})


def test_a_service_comes_before_an_address() -> None:
    env = {
        "THIS_NODE_IP": "10.0.0.1",
        "SN_NODE_IP": "10.0.0.2",
        "SN_API_SERVICE": "api.sn:444",
        "SL_FS_SERVICE": "fs.sl",
    }
    learner = Learner.from_env(env)
    assert (learner.sn_host, learner.sn_port) == ("api.sn", 444)
    assert (learner.host, learner.port, learner.listen_port) == ("fs.sl", 443, 30305)
    operator = read_settings({**env, "SWOP_PROFILE": "p.yaml"})
    assert (operator.sn_host, operator.sn_port, operator.sn_service) == ("api.sn", 444, True)
    node = NetworkNode.from_env(env)
    assert (node.host, node.p2p_host, node.p2p_announced) == ("api.sn", "10.0.0.1", 30303)


def test_a_service_that_is_none_is_named() -> None:
    for variable in ("SN_API_SERVICE", "SL_FS_SERVICE"):
        env = {"THIS_NODE_IP": "10.0.0.1", "SN_NODE_IP": "10.0.0.2", variable: "a b"}
        with pytest.raises(LocalError, match=f"SW6010: {variable}: 'a b'"):
            Learner.from_env(env)
    with pytest.raises(LocalError, match="SW7004: SN_API_SERVICE"):
        read_settings({"SWOP_PROFILE": "p.yaml", "SN_API_SERVICE": "a b"})
    with pytest.raises(LocalError, match="SW6010: SN_NODE_IP is not set, nor is SN_API_SERVICE"):
        Learner.from_env({})
