"""Look back: whether this node can reach ports of the very caller, for `swarm doctor`.

A firewall between two hosts often blocks one direction only, and the host that it protects cannot
see that by itself. So a member may ask a network node to connect to it. What keeps this from being
a scanner of other people's hosts:

- only the address from which the request came is ever tried, whatever the caller says;
- a port counts as reached only when a secret of this request comes out of it, so whoever stands
  behind the same address (a proxy, a shared gateway) is not told about;
- the answer takes the same time whether a port is closed, filtered or somebody else's;
- each member may ask rarely, and only so many are answered at the same time.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import trio

from sentinel.services import Refusal
from swarm.bucket import Bucket

CROWDED = "SW5009"
RATE, BURST = 1 / 10, 10.0  # requests of a member a second, and at once
AT_ONCE = 4  # requests under way, of all members
LIMIT = 3.0  # seconds for all ports of a request, which are tried at the same time
MAX_PORTS = 16
TOKEN_BYTES = 16
MOST_MEMBERS = 1024


class LookBacks:
    """All requests of this kind. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._under_way = 0

    async def look(
        self, member: str, address: str, ports: Sequence[int], token: bytes
    ) -> list[int]:
        """Those of the ports at `address` that answer with the token. Raises Refusal 429."""
        self._pay(member)
        if self._under_way >= AT_ONCE:
            raise Refusal(429, CROWDED, "this node looks back at others already", 2)
        self._under_way += 1
        try:
            return await _reached(address, ports, token)
        finally:
            self._under_way -= 1

    def _pay(self, member: str) -> None:
        now = self._clock()
        bucket = self._buckets.get(member)
        if bucket is None:
            bucket = self._buckets[member] = Bucket(RATE, BURST, now)
            while len(self._buckets) > MOST_MEMBERS:
                self._buckets.popitem(last=False)
        if not bucket.take(1, now):
            seconds = int(bucket.missing(1, now)) + 1
            why = f"this certificate asked to be looked back at {BURST:g} times just now"
            raise Refusal(429, CROWDED, why, seconds)


async def _reached(address: str, ports: Sequence[int], token: bytes) -> list[int]:
    reached: list[int] = []

    async def attempt(port: int) -> None:
        try:
            async with await trio.open_tcp_stream(address, port) as stream:
                if await _answers(stream, token):
                    reached.append(port)
        except (OSError, trio.BrokenResourceError):
            return  # the caller learns that it was not reached, and not why

    with trio.move_on_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for port in dict.fromkeys(ports):
                nursery.start_soon(attempt, port)
        if len(reached) < len(set(ports)):
            await trio.sleep_forever()  # until the limit
    return sorted(reached)


async def _answers(stream: trio.SocketStream, token: bytes) -> bool:
    """Whether the token comes, and nothing else before it."""
    heard = b""
    while len(heard) < len(token):
        data = await stream.receive_some(len(token) - len(heard))
        if not data:
            return False
        heard += data
    return hmac.compare_digest(heard, token)


def plain(address: str) -> str:
    """An address of a socket, IPv4 where it is one in the form of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)


def now_ms() -> int:
    """This node's clock, for the caller to compare."""
    return time.time_ns() // 1_000_000
