"""Facts about this host itself: identity files, paths, disks, its address and its ports."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import selectors
import shutil
import socket
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from swarm.errors import LocalError
from swarm.host.doctor.facts import AddressFact, DiskFact, GpuFact, IdentityFact, PathFact, PortFact
from swarm.host.doctor.subject import Keys, WantedPath
from swarm.identity import Identity, Role
from swarm.identity.roles import common_name_of
from swarm.launch import nodes


def identity(keys: Keys) -> tuple[IdentityFact, Identity | None]:
    """One component's identity, and what is wrong with it."""
    fact = IdentityFact(keys.who, str(keys.cert), str(keys.key), None, key_mode=_mode(keys.key))
    try:
        loaded = Identity.load(
            keys.cert,
            keys.key,
            capath=keys.capath,
            cacert=keys.cacert,
            role=Role(keys.role) if keys.role else None,
        )
    except LocalError as error:
        problem = (error.code, error.cause)
        return IdentityFact(**{**vars(fact), "problem": problem}), None
    trusted = tuple((common_name_of(ca), ca.not_valid_after_utc) for ca in loaded.trust.cas)
    return (
        IdentityFact(**{**vars(fact), "not_after": loaded.not_after, "trusted": trusted}),
        loaded,
    )


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def path(wanted: WantedPath) -> PathFact:
    """A path of this host; volumes are the engine's business."""
    place = Path(wanted.path)
    kind = "directory" if place.is_dir() else "file" if place.exists() else ""
    search = os.X_OK if kind == "directory" else 0
    return PathFact(
        wanted.what,
        wanted.path,
        kind,
        wanted.expected,
        readable=_may(place, os.R_OK | search),
        writable=_may(place, os.W_OK | search),
        must_write=wanted.must_write,
    )


def _may(place: Path, how: int) -> bool:
    return os.access(place, how, effective_ids=os.access in os.supports_effective_ids)


def disk(what: str, place: Path) -> DiskFact:
    """Space at a path, or at what is there of it already."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return DiskFact(what, str(place), shutil.disk_usage(place).free)


def address(text: str) -> AddressFact:
    """What the announced address stands for."""
    try:
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except OSError:
        return AddressFact(text, (), own=False, loopback=False)
    resolved = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    mine = {
        entry.address.partition("%")[0]
        for entries in psutil.net_if_addrs().values()
        for entry in entries
    }
    loopback = all(ipaddress.ip_address(one).is_loopback for one in resolved)
    return AddressFact(
        text, resolved, own=bool(mine & set(resolved)) or loopback, loopback=loopback
    )


class Listener:
    """Holds ports of this host open, and says a token to each who comes.

    What cannot be opened is in `problems`. Whoever connects gets the token and nothing else: it is
    worth nothing to anybody but the network node that was told what to expect.
    """

    def __init__(self, ports: Sequence[int], token: bytes, address: AddressFact | None) -> None:
        self.problems: dict[int, OSError] = {}
        self._token = token
        self._sockets: dict[int, socket.socket] = {}
        for port in dict.fromkeys(ports):
            try:
                self._sockets[port] = _listen(port, address)
            except OSError as error:
                self.problems[port] = error

    @property
    def open(self) -> tuple[int, ...]:
        """The ports that answer."""
        return tuple(self._sockets)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Answer while the block runs; closed afterwards."""
        end, wake = socket.socketpair()
        thread = threading.Thread(target=self._serve, args=(end,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            wake.close()
            thread.join(5)
            end.close()
            for listener in self._sockets.values():
                listener.close()

    def _serve(self, end: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            for listener in (end, *self._sockets.values()):
                selector.register(listener, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is end:
                        return
                    assert isinstance(key.fileobj, socket.socket), "sockets were registered"
                    with contextlib.suppress(OSError):  # whoever came has gone again
                        stream, _ = key.fileobj.accept()
                        with stream:
                            stream.settimeout(1)
                            stream.sendall(self._token)


def _listen(port: int, address: AddressFact | None) -> socket.socket:
    """As a node would: on all addresses, or on loopback where it is announced there."""
    first = address.resolved[0] if address and address.resolved else ""
    family = socket.AF_INET6 if ":" in first else socket.AF_INET
    where = first if address and address.loopback else ""
    return socket.create_server((where, port), family=family)


def port(number: int, what: str, problem: OSError | None) -> PortFact:
    """A port that could be opened, or who has it."""
    if problem is None:
        return PortFact(number, what)
    user, ours = _user_of(number)
    return PortFact(number, what, problem.strerror or str(problem), user, ours)


def _user_of(number: int) -> tuple[str, bool]:
    """Who listens on a port, as far as this user may know, and whether it is a node of ours."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return "", False
    pids = {
        found.pid
        for found in connections
        if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr[1] == number
    }
    for node in nodes.known():
        if node.pid in pids and node.process() is not None:
            return node.name, True
    for pid in sorted(pid for pid in pids if pid is not None):
        with contextlib.suppress(psutil.Error):
            return f"{psutil.Process(pid).name()} (process {pid})", False
    return "", False


def gpu(
    requests: tuple[tuple[str, str], ...],
    devices: Sequence[tuple[str, str]],
    in_engine: bool | None,
    root: Path = Path("/dev"),
) -> GpuFact | None:
    """What of the requested devices is there; None when nothing is requested."""
    if not requests and not devices:
        return None
    nvidia = [one for one in root.glob("nvidia*") if one.name.removeprefix("nvidia").isdecimal()]
    missing = tuple((who, device) for who, device in devices if not Path(device).exists())
    return GpuFact(requests, len(nvidia), in_engine, missing)
