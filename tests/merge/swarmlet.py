"""Members of one attempt in one process, over real TLS on loopback."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swarm.identity import Identity, Role
from swarm.merge import blocks
from swarm.merge.dial import Dialler, Member
from swarm.merge.exchange import Buffers, Exchange, Key, Law, Result
from swarm.merge.fetch import Write
from swarm.merge.mean import Segment
from swarm.merge.progress import Limits
from swarm.merge.server import Server
from tests import pki

CONTRACT = "mnist"


class Node:
    """One learner's merge half: listener, dialler, vectors.

    With those whose number is even, the result takes the contribution's place.
    """

    def __init__(self, identity: Identity, name: str, vector: NDArray[np.float32]) -> None:
        self.identity = identity
        self.name = name
        self.vector = vector
        self.ca: pki.Authority | None = None
        self.members: dict[str, str] = {}
        self.server = Server(identity, lambda contract, uid: self.members.get(uid))
        self.dialler = Dialler(identity)
        self.port = self.server.start("127.0.0.1", 0)
        self.output = bytearray(vector.nbytes)
        self.in_place = int(name.rpartition("-")[2]) % 2 == 0
        self.done: queue.Queue[Result] = queue.Queue()
        self.exchange: Exchange | None = None

    def member(self, weight: int = 1, root: bytes | None = None) -> Member:
        data = memoryview(self.vector).cast("B")
        own = blocks.root(blocks.leaves(data, blocks.block_size(len(data))))
        return Member(
            self.name,
            self.name,
            "127.0.0.1",
            self.port,
            self.identity.fingerprint,
            weight,
            root or own,
        )

    def begin(
        self,
        members: Sequence[Member],
        key: Key,
        limits: Limits | None = None,
        *,
        law: Law | None = None,
        clock: Callable[[], float] = time.monotonic,
        spoil: bool = False,
    ) -> Exchange:
        self.members = {member.uid: member.fingerprint for member in members}
        data = memoryview(self.vector).cast("B")
        leaves = blocks.leaves(data, blocks.block_size(len(data)))
        if spoil:
            self.vector[:] = 7  # not what was checked in
        output = memoryview(self.output)
        if self.in_place:
            self.output[:] = data
            data = output
        self.exchange = Exchange(
            key,
            self.name,
            members,
            Buffers(
                data,
                leaves,
                output,
                [Segment(0, len(data), "float32")],
            ),
            self.dialler,
            self.done.put,
            law=law,
            limits=limits,
            clock=clock,
        )
        self.server.offer(self.exchange)
        self.exchange.start()
        return self.exchange

    def result(self) -> NDArray[np.float32]:
        return np.frombuffer(self.output, np.float32)

    def close(self) -> None:
        if self.exchange:
            self.exchange.abort()
        self.server.close()
        self.dialler.close()


def into(memory: bytearray) -> Write:
    """What writes a vector into `memory`."""

    def write(at: int, data: memoryview) -> None:
        assert at + len(data) <= len(memory)
        memory[at : at + len(data)] = data

    return write


def nodes(tmp: Path, vectors: Sequence[NDArray[np.float32]]) -> list[Node]:
    ca = pki.authority(tmp, 1)
    made = [
        Node(pki.identity(tmp / f"{i}", Role.SL, ca), f"sl-{i}", vector)
        for i, vector in enumerate(vectors)
    ]
    for node in made:
        node.ca = ca
    return made


def vectors(count: int, length: int, seed: int = 0) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=length).astype(np.float32) for _ in range(count)]
