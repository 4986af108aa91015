"""The same scenes for the fake mesh, the real one in memory, and the real one on loopback.

@scene
async def test_something(stage: Stage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
"""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio
from trio.testing import MockClock

from swarm.identity import Identity, Role
from swarm.mesh.mesh import Mesh
from swarm.mesh.port import MeshPort
from tests import pki
from tests.mesh import fake
from tests.mesh.memory import MemoryTransport, Wires
from tests.mesh.watch import Peers

CHAIN = b"c" * 32


class Stage(Protocol):
    """A network that nodes can join and leave."""

    async def join(self, name: str) -> MeshPort:
        """A node that is connected to all others when this returns."""

    async def leave(self, name: str) -> None:
        """The node stops in order; `join` brings it back under the same identity."""


@functools.lru_cache(maxsize=1)
def _authority() -> tuple[Path, pki.Authority]:
    directory = Path(tempfile.mkdtemp(prefix="mesh-pki-"))
    return directory, pki.authority(directory)


@functools.lru_cache(maxsize=64)
def identity(name: str) -> Identity:
    """The certificate of the network node `name`, always the same one."""
    directory, ca = _authority()
    return pki.identity(directory, Role.SN, ca, name=name)


@dataclass
class FakeStage:
    net: fake.FakeNet

    async def join(self, name: str) -> MeshPort:
        mesh = self.net.join(name)
        await self.net.connected()
        return mesh

    async def leave(self, name: str) -> None:
        self.net.crash(name)


class RealStage:
    """Real meshes in one process, over TCP on loopback or over `Wires`."""

    def __init__(
        self, nursery: trio.Nursery, directory: Path, wires: Wires | None = None, seed: int = 1
    ) -> None:
        self._nursery = nursery
        self._directory = directory
        self.wires = wires
        self.meshes: dict[str, Mesh] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._done: dict[str, trio.Event] = {}
        self._hosts: dict[str, str] = {}
        self._ports: dict[str, int] = {}
        self._rng = random.Random(seed)

    def host(self, name: str) -> str:
        """The address of that node."""
        if self.wires is None:
            return "127.0.0.1"
        return self._hosts.setdefault(name, f"10.0.0.{len(self._hosts) + 1}")

    def make(self, name: str, **changes: Any) -> Mesh:
        """A mesh that does not run yet."""
        host = self.host(name)
        options: dict[str, Any] = {
            "listen": (host, self._ports.get(name, 0)),
            "announce": [],
            "book": self._directory / f"{name}.json",
            "version": "1.0",
            "chain": CHAIN,
            "transport": None if self.wires is None else MemoryTransport(self.wires, host),
            "rng": random.Random(self._rng.random()),
        }
        return Mesh(identity(name), **(options | changes))

    async def start(self, name: str, **changes: Any) -> Mesh:
        """A mesh that listens, and knows nobody but whom its address book names."""
        mesh = self.make(name, **changes)
        scope, done = trio.CancelScope(), trio.Event()

        async def run(task_status: Any) -> None:
            with scope:
                await mesh.run(task_status=task_status)
            done.set()

        await self._nursery.start(run)
        self.meshes[name], self._scopes[name], self._done[name] = mesh, scope, done
        self._ports[name] = int(mesh.addresses[0].rpartition("/")[2])
        return mesh

    async def join(self, name: str) -> Mesh:
        others = dict(self.meshes)
        mesh = await self.start(name)
        watches = [(Peers(mesh), other.peer_id) for other in others.values()]
        watches += [(Peers(other), mesh.peer_id) for other in others.values()]
        for other in others.values():
            mesh.add(other.peer_id, other.addresses)
        for watch, peer_id in watches:
            await watch.up(peer_id)
        return mesh

    async def leave(self, name: str) -> None:
        self._scopes.pop(name).cancel()
        del self.meshes[name]
        await self._done.pop(name).wait()


def run_memory(
    main: Callable[[RealStage], Awaitable[None]], directory: Path, *, seed: int = 1
) -> None:
    """Run a scene with real meshes in virtual time."""

    async def outer() -> None:
        async with trio.open_nursery() as nursery:
            await main(RealStage(nursery, directory, Wires(), seed))
            nursery.cancel_scope.cancel()

    trio.run(outer, clock=MockClock(autojump_threshold=0))


def run_tcp(main: Callable[[RealStage], Awaitable[None]], directory: Path) -> None:
    """Run a scene with real meshes on loopback."""

    async def outer() -> None:
        async with trio.open_nursery() as nursery:
            await main(RealStage(nursery, directory))
            nursery.cancel_scope.cancel()

    trio.run(outer)


def run_fake(main: Callable[[FakeStage], Awaitable[None]], _directory: Path) -> None:
    """Run a scene with the double, in virtual time."""

    async def outer() -> None:
        async with fake.network(seed=1) as net:
            await main(FakeStage(net))

    trio.run(outer, clock=MockClock(autojump_threshold=0))


def scene(function: Callable[[Any], Awaitable[None]]) -> Any:
    """Make a test of a scene, once for each kind of mesh."""

    @pytest.mark.parametrize("run", [run_fake, run_memory, run_tcp])
    def test(run: Any, tmp_path: Path) -> None:
        run(function, tmp_path)

    test.__name__ = test.__qualname__ = function.__name__
    test.__doc__ = function.__doc__
    return test
