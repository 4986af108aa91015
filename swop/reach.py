"""Which addresses tasks may fetch from: the host's administrator says, not whoever wrote the task.

A task is written by a member of another organisation, and the operator fetches from inside this
one, where servers trust their neighbours. Without a policy a task could read this host's own
services, the cloud's metadata service, or any machine of the internal network. So:

- public addresses are allowed, on the ports 80 and 443, unless the administrator says no;
- everything else (loopback, link-local, private, shared, reserved, multicast) only where the
  administrator lists it: by name, by address, or as a network; then on any port.

A name is judged by the address that is connected to, never by how it reads: names can point
anywhere, and change between two looks.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.errors import LocalError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC_PORTS = (80, 443)
# What the IANA registries of special addresses have (so that it does not depend on the version of
# Python), and what clouds serve to their own guests: Azure's WireServer.
INTERNAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3", "168.63.129.16/32",
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    )
)  # fmt: skip
GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_NAME = re.compile(rf"^(?:\*\.)?{_LABEL}(?:\.{_LABEL})*$")


@dataclass(frozen=True)
class Reach:
    """Where fetching may go. `names` are lower case, `*.` in front takes in what is below."""

    public: bool = True
    names: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    def lists_name(self, host: str) -> bool:
        """Did the administrator list this name?"""
        host = host.lower().rstrip(".")
        return any(
            host == name or (name.startswith("*.") and host.endswith(name[1:]))
            for name in self.names
        )

    def refusal(self, host: str, address: str, port: int) -> str:
        """Why `host` may not be fetched from at this address; "" when it may."""
        if self.lists_name(host):
            return ""
        found = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
        if any(found in network for network in self.networks if network.version == found.version):
            return ""
        if not _is_public(found):
            return f"{found} is not a public address"
        if not self.public:
            return f"{found} is not listed, and public addresses are switched off"
        if port not in PUBLIC_PORTS:
            return f"port {port} is neither 80 nor 443"
        return ""

    def as_dict(self) -> dict[str, Any]:
        networks = [str(network) for network in self.networks]
        return {"public": self.public, "names": list(self.names), "networks": networks}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Reach:
        networks = tuple(ipaddress.ip_network(text) for text in value["networks"])
        return cls(bool(value["public"]), tuple(value["names"]), networks)


def read_reach(public: bool, listed: str, setting: str) -> Reach:
    """From the setting's text: names, addresses and networks with commas. LocalError SW7004."""
    names: list[str] = []
    networks: list[Network] = []
    for item in filter(None, (part.strip().lower() for part in listed.split(","))):
        try:
            networks.append(ipaddress.ip_network(item))
            continue
        except ValueError as error:
            looks_numeric = re.fullmatch(r"[0-9a-f.:/]*[./:][0-9a-f.:/]*", item) is not None
            if not _NAME.match(item) or (looks_numeric and not re.search("[g-z]", item)):
                cause = f"{setting}: expected a host name, an address or a network ({error})"
                raise LocalError("SW7004", cause) from error
        names.append(item)
    return Reach(public, tuple(names), tuple(networks))


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return inner
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_V6:
        return False
    return not any(address in network for network in INTERNAL if network.version == address.version)
