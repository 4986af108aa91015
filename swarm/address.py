"""Addresses as users write them, and the name that a TLS client asks for.

Behind a reverse proxy a node has a *service*: `name[:port]`, a name that the proxy tells apart by
what the client asks for in its handshake (RFC 6066 section 3). The proxy passes TLS through.
"""

from __future__ import annotations

import ipaddress
import re

SERVICE_PORT = 443
_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?")


def service_address(text: str, default_port: int = SERVICE_PORT) -> tuple[str, int]:
    """Host and port of `name[:port]`. Raises ValueError, saying what is wrong."""
    host, colon, port = text.partition(":")
    if not _HOST.fullmatch(host):
        raise ValueError(f"{text!r} is not of the form name[:port]")
    if not colon:
        return host, default_port
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError(f"{port!r} is no port number")
    return host, int(port)


def asked_name(host: str) -> str | None:
    """What a TLS client puts into its server name indication: nothing for an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return None
