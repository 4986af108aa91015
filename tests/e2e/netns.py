"""Hosts on one machine: network namespaces joined by a cable or a switch.

Root only (`unavailable()` says why it cannot be had). Link conditions use what ordinary kernels
carry: iptables' `statistic` match for loss and a token bucket (`tbf`) for bandwidth.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.machine import install

NEEDED = {"ip": "iproute2", "tc": "iproute2", "iptables": "iptables", "nsenter": "util-linux"}


@functools.cache
def unavailable() -> str:
    """Why this machine cannot have two hosts, or an empty string when it can."""
    if os.geteuid() != 0:
        return "two network namespaces need root"
    if reason := install(NEEDED):
        return f"two network namespaces: {reason}"
    probe = f"swprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        return "this kernel or container does not allow network namespaces"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return ""


@dataclass(frozen=True)
class Namespace:
    """One host: its name in the kernel and its address on the line."""

    name: str
    address: str
    managed: str = ""  # how this process reaches it, if it does
    gateway: str = ""  # how it reaches this process, if it does
    plug: tuple[str, str] = ("", "")  # where its line ends: namespace of the switch, device there

    @property
    def prefix(self) -> list[str]:
        """What to put before a command so that it runs on this host."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def run(self, *command: str) -> None:
        subprocess.run([*self.prefix, *command], check=True, capture_output=True)

    def impair(self, *, loss: float, kbit: int) -> None:
        """Drop arriving packets with probability `loss`; send at most `kbit` kilobits a second."""
        self.run(
            *"iptables -A INPUT -i eth0 -m statistic --mode random --probability".split(),
            str(loss),
            *"-j DROP".split(),
        )
        self.run(
            *"tc qdisc add dev eth0 root tbf rate".split(),
            f"{kbit}kbit",
            *"burst 32kbit latency 400ms".split(),
        )

    def throttle(self, kbit: int) -> None:
        """Carry at most so many kilobits a second, in each direction; 0 for no limit.

        Another limit in place of one keeps what waits for its turn; no limit drops it.
        """
        limit = f"tbf rate {kbit}kbit burst {max(128, kbit // 100)}kbit latency 400ms"
        switch, port = self.plug
        for name, device in ((self.name, "eth0"), (switch, port)):
            change = f"replace dev {device} root {limit}" if kbit else f"del dev {device} root"
            Namespace(name, "").run("tc", "qdisc", *change.split())

    def sent(self) -> int:
        """Bytes that have left it on its line so far."""
        command = [*self.prefix, "cat", "/proc/net/dev"]
        table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        line = next(line for line in table.split("\n") if line.strip().startswith("eth0:"))
        return int(line.split(":")[1].split()[8])

    def cut(self, *others: Namespace) -> None:
        """Hear nothing of some other hosts any more."""
        for other in others:
            self.run("iptables", "-A", "INPUT", "-s", other.address, "-j", "DROP")

    def heal(self) -> None:
        """Undo `cut` and the loss of `impair`."""
        self.run("iptables", "-F", "INPUT")


def _require() -> None:
    if reason := unavailable():
        pytest.skip(reason)


@contextmanager
def two_hosts() -> Iterator[tuple[Namespace, Namespace]]:
    """Hosts 198.18.1.1 and 198.18.2.2, joined directly; gone afterwards."""
    _require()
    hosts = tuple(Namespace(f"swh{i}p{os.getpid()}", f"198.18.{i}.{i}") for i in (1, 2))
    first, second = hosts
    made: list[str] = []
    try:
        for host in hosts:
            subprocess.run(["ip", "netns", "add", host.name], check=True)
            made.append(host.name)
        subprocess.run(
            [
                *["ip", "link", "add", "eth0", "netns", first.name, "type", "veth"],
                *["peer", "name", "eth0", "netns", second.name],
            ],
            check=True,
        )
        for host in hosts:
            for command in (
                "link set lo up",
                f"addr add {host.address}/16 dev eth0",
                "link set eth0 up",
            ):
                subprocess.run(["ip", "-n", host.name, *command.split()], check=True)
        yield first, second
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=True)


@contextmanager
def several_hosts(count: int) -> Iterator[list[Namespace]]:
    """Hosts 198.18.0.1, .2, … on one switch; gone afterwards.

    This process reaches each of them at 198.19.0.4k+2 (`Namespace.managed`), cut off or not.
    """
    _require()
    mark = os.getpid()
    hosts = [
        Namespace(
            f"swh{k}p{mark}",
            f"198.18.0.{k}",
            f"198.19.0.{4 * k + 2}",
            f"198.19.0.{4 * k + 1}",
            (f"swsp{mark}", f"port{k}"),
        )
        for k in range(1, count + 1)
    ]
    switch = f"swsp{mark}"
    made: list[str] = []
    lines: list[str] = []
    try:
        for name in (switch, *(host.name for host in hosts)):
            subprocess.run(["ip", "netns", "add", name], check=True)
            made.append(name)
        _ip(switch, "link add br0 type bridge")
        _ip(switch, "link set br0 up")
        for k, host in enumerate(hosts, 1):
            _ip(switch, f"link add port{k} type veth peer name eth0 netns {host.name}")
            _ip(switch, f"link set port{k} master br0 up")
            _ip(host.name, f"link add eth1 type veth peer name swm{k}p{mark} netns 1")
            lines.append(f"swm{k}p{mark}")
            for name, address in (("eth0", f"{host.address}/24"), ("eth1", f"{host.managed}/30")):
                _ip(host.name, f"addr add {address} dev {name}")
                _ip(host.name, f"link set {name} up")
            _ip(host.name, "link set lo up")
            _ip("", f"addr add {host.gateway}/30 dev swm{k}p{mark}")
            _ip("", f"link set swm{k}p{mark} up")
        yield hosts
    finally:
        # A namespace takes its devices along only some time after it was deleted, and the next
        # ones have the same names and addresses.
        for name in lines:
            _ip("", f"link del {name}")
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=True)


def _ip(namespace: str, command: str) -> None:
    where = ["-n", namespace] if namespace else []
    subprocess.run(["ip", *where, *command.split()], check=True)
