"""What a message between network nodes costs, beside a bare TLS 1.3 socket in the same run.

Both ends run in this process under trio, on loopback; so the processor time is that of both ends.
One JSON line for each measurement: `mesh-call` (a question of 1 KiB and its answer) and `mesh-cast`
(300 bytes, the size of a vote, one at a time and in bursts, to one and to several peers).
`ratio_to_limit` compares times with those of the socket.

    python benchmarks/bench_mesh.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import ssl
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from certs.authority import issue_ca, issue_leaf
from swarm.identity import Identity
from swarm.mesh.mesh import Mesh
from swarm.mesh.port import PeerInfo

CALL_SIZE = 1024
CAST_SIZE = 300
BURSTS = (1, 32)  # casts that are sent before their arrival is waited for


def make_identities(directory: Path, count: int) -> list[Identity]:
    """Certificates of one organisation's network nodes."""
    ca = issue_ca("CA-1")
    capath = directory / "ca"
    capath.mkdir()
    (capath / "ca.pem").write_bytes(ca.certificate_pem)
    identities = []
    for n in range(count):
        leaf = issue_leaf(ca, f"SN-{n}")
        cert, key = directory / f"{n}-cert.pem", directory / f"{n}-key.pem"
        cert.write_bytes(leaf.certificate_pem)
        key.write_bytes(leaf.key_pem)
        identities.append(Identity.load(cert, key, capath=capath))
    return identities


async def start(nursery: trio.Nursery, directory: Path, identities: list[Identity]) -> list[Mesh]:
    """Meshes that are all connected to the first one."""
    meshes = []
    for n, identity in enumerate(identities):
        mesh = Mesh(
            identity, listen=("127.0.0.1", 0), announce=[], book=directory / f"{n}.json",
            version="bench", chain=bytes(32),
        )  # fmt: skip
        await nursery.start(lambda task_status, m=mesh: m.run(task_status=task_status))
        meshes.append(mesh)
    everybody = trio.Event()

    def check(_peer: PeerInfo, _up: bool, _why: str) -> None:
        if all(len(mesh.peers()) == len(meshes) - 1 for mesh in meshes):
            everybody.set()

    for mesh in meshes:
        mesh.on_peer(check)
        mesh.add(meshes[0].peer_id, meshes[0].addresses)
    with trio.fail_after(60):
        await everybody.wait()
    return meshes


async def timed(count: int, once: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    """Latency and processor time of one operation after the other."""
    for _ in range(count // 10):
        await once()
    walls = []
    cpu = time.process_time()
    for _ in range(count):
        before = time.perf_counter()
        await once()
        walls.append(time.perf_counter() - before)
    cpu = time.process_time() - cpu
    cuts = statistics.quantiles(walls, n=100)
    return {
        "p50_ms": round(cuts[49] * 1e3, 3),
        "p99_ms": round(cuts[98] * 1e3, 3),
        "cpu_ms": round(cpu / count * 1e3, 3),
    }


async def streamed(count: int, burst: Callable[[], int], arrived: Any) -> dict[str, float]:
    """Deliveries per second, and processor time of each, in bursts that are waited for."""
    done = 0
    cpu, wall = time.process_time(), time.perf_counter()
    while done < count:
        done += burst()
        await arrived(done)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "per_second": round(done / wall),
        "cpu_ms": round(cpu / done * 1e3, 4),
    }


class Counter:
    """Arrivals, to be waited for."""

    def __init__(self) -> None:
        self.seen = 0
        self._target = 0
        self._reached = trio.Event()

    def add(self, n: int = 1) -> None:
        self.seen += n
        if self.seen >= self._target:
            self._reached.set()

    async def wait(self, target: int) -> None:
        self._target = target
        if self.seen < target:
            self._reached = trio.Event()
            with trio.fail_after(60):
                await self._reached.wait()


async def raw_pair(
    nursery: trio.Nursery, a: Identity, b: Identity, serve: Callable[[Any], Awaitable[None]]
) -> trio.SSLStream[Any]:
    """A bare TLS 1.3 connection with certificates on both sides."""

    async def accept(stream: Any) -> None:
        secure = trio.SSLStream(stream, b.server_context(), server_side=True)
        try:
            await serve(secure)
        except (trio.BrokenResourceError, ssl.SSLError):
            return  # the measurement is over

    listeners = await nursery.start(trio.serve_tcp, accept, 0)
    port = listeners[0].socket.getsockname()[1]
    return trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), a.client_context())


async def exactly(stream: Any, size: int) -> None:
    left = size
    while left:
        data = await stream.receive_some(left)
        if not data:
            raise trio.BrokenResourceError
        left -= len(data)


def report(what: str, got: dict[str, float], limit: dict[str, float], **more: Any) -> None:
    """One JSON line; the ratio is in time, so that 1 is the limit and more is worse."""
    if "p50_ms" in got:
        ratio = got["p50_ms"] / limit["p50_ms"]
    else:
        ratio = limit["per_second"] / got["per_second"]
    line = {"what": what, **more, **got, **{f"limit_{k}": v for k, v in limit.items()}}
    print(json.dumps({**line, "ratio_to_limit": round(ratio, 2)}), flush=True)


async def bench_calls(nursery: trio.Nursery, meshes: list[Mesh], ids: list[Any], n: int) -> None:
    async def echo(_peer: PeerInfo, arg: Any) -> Any:
        return arg

    async def serve(stream: Any) -> None:
        while True:
            await exactly(stream, CALL_SIZE)
            await stream.send_all(question)

    question = bytes(CALL_SIZE)
    meshes[0].handle("echo", echo)
    got = await timed(n, lambda: meshes[1].call(meshes[0].peer_id, "echo", question))
    raw = await raw_pair(nursery, ids[1], ids[0], serve)

    async def once() -> None:
        await raw.send_all(question)
        await exactly(raw, CALL_SIZE)

    report("mesh-call", got, await timed(n, once), bytes=CALL_SIZE)


async def bench_casts(nursery: trio.Nursery, meshes: list[Mesh], ids: list[Any], n: int) -> None:
    vote = bytes(CAST_SIZE)
    arrived = Counter()

    async def serve(stream: Any) -> None:
        while True:
            await exactly(stream, CAST_SIZE)
            arrived.add()

    raw = await raw_pair(nursery, ids[1], ids[0], serve)
    await raw.do_handshake()

    async def send_all(size: int) -> None:
        for _ in range(size):
            await raw.send_all(vote)

    def raw_burst(size: int) -> int:
        nursery.start_soon(send_all, size)
        return size

    def burst(size: int, peers: int) -> int:
        for _ in range(size):
            meshes[0].cast("vote", vote, to=meshes[1].peer_id if peers == 1 else None)
        return size * peers

    for mesh in meshes[1:]:
        mesh.on_cast("vote", lambda _peer, _value: arrived.add())
    for size in BURSTS:
        arrived.seen = 0
        limit = await streamed(n, partial(raw_burst, size), arrived.wait)
        for peers in (1, len(meshes) - 1):
            arrived.seen = 0
            got = await streamed(n, partial(burst, size, peers), arrived.wait)
            report("mesh-cast", got, limit, bytes=CAST_SIZE, peers=peers, burst=size)
    assert not meshes[0].counters["casts_dropped"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    n = 200 if parser.parse_args().quick else 2000

    async def run() -> None:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            ids = make_identities(directory, 4)
            async with trio.open_nursery() as nursery:
                meshes = await start(nursery, directory, ids)
                await bench_calls(nursery, meshes, ids, n)
                await bench_casts(nursery, meshes, ids, 5 * n)
                nursery.cancel_scope.cancel()

    trio.run(run)


if __name__ == "__main__":
    main()
