"""Which addresses tasks may fetch from."""

from __future__ import annotations

import pytest

from swarm.errors import LocalError
from swop.reach import Reach, read_reach

LISTED = read_reach(True, "10.1.0.0/16, fd00:1::/64, 127.0.0.5, data.lan, *.hospital.org", "X")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "::1", "::", "10.0.0.1", "172.17.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.100.100.200", "224.0.0.1", "255.255.255.255",
        "192.0.0.192", "168.63.129.16", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
        "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
        "2002:7f00:1::", "2001:db8::1", "::7f00:1", "240.0.0.1", "198.18.0.1", "203.0.113.1",
    ],
)  # fmt: skip
def test_no_address_inside_is_public(address: str) -> None:
    assert Reach().refusal("innocent.example", address, 80)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"]
)
def test_public_addresses_on_the_ports_of_the_web(address: str) -> None:
    assert not Reach().refusal("x.example", address, 80)
    assert not Reach().refusal("x.example", address, 443)
    assert "neither 80 nor 443" in Reach().refusal("x.example", address, 22)
    assert "switched off" in Reach(public=False).refusal("x.example", address, 443)


def test_what_is_listed_may_be_anywhere_on_any_port() -> None:
    assert not LISTED.refusal("x", "10.1.2.3", 8080)
    assert LISTED.refusal("x", "10.2.0.1", 80)
    assert not LISTED.refusal("x", "127.0.0.5", 1)
    assert LISTED.refusal("x", "127.0.0.6", 80)
    assert not LISTED.refusal("x", "fd00:1::7", 80)
    assert not LISTED.refusal("DATA.lan.", "192.168.0.1", 9000)
    assert not LISTED.refusal("a.b.hospital.org", "192.168.0.1", 80)
    assert LISTED.refusal("hospital.org", "192.168.0.1", 80)
    assert LISTED.refusal("evilhospital.org", "192.168.0.1", 80)
    assert not LISTED.refusal("x", "::ffff:10.1.2.3", 80)


def test_it_travels_as_json() -> None:
    assert Reach.from_dict(LISTED.as_dict()) == LISTED


@pytest.mark.parametrize(
    "text", ["10.1.0.0/33", "10.1.0.1/16", "a b", "1.2.3", "http://x", "-x", "*"]
)
def test_mistakes_name_the_setting(text: str) -> None:
    with pytest.raises(LocalError, match="SW7004: SWOP_CONTENT_HOSTS: expected"):
        read_reach(True, text, "SWOP_CONTENT_HOSTS")
