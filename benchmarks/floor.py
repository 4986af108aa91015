"""The least that a merge costs which can say whose fault a wrong byte is.

The plain algorithm (`limit`), and what is demanded of ours beyond it, and nothing else: weights go
through shared memory into the merge and back, each contribution is hashed by its sender and by who
reduces it, everybody hashes the result, and numbers that are not finite are found. The bytes travel
in the same sealed records. There is no ledger, no membership, no failure handling, and program and
learner are one process, so that nothing is said between them.

What lies between the limit and this is the price of the demands, on this machine; what lies between
this and a whole round is ours to make faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.limit import PIECE, Limit
from swarm.identity import Identity
from swarm.learner import reading
from swarm.merge import blocks
from swarm.merge.mean import Segment
from swarm.merge.plan import Chunk, Plan
from swarm.merge.seal import Seal, agree
from swarmlearning import tensors
from swarmlearning.tensors import Layout


class Floor(Limit):
    """One process of it; the model is `vector`."""

    def __init__(self, identity: Identity, index: int, vector: np.ndarray[Any, Any]) -> None:
        super().__init__(identity, index, vector)
        layout = Layout([("weights", "float32", vector.shape)])
        self.trained = tensors.allocate(layout)
        self.merged = tensors.allocate(layout)
        self.runs = [Segment(0, layout.size, "float32")]

    def connect(self, ports: list[int]) -> None:
        super().connect(ports)
        self.plan = Plan(self.trained.layout.size, len(ports))
        mine = self._chunks(self.index)
        self.room = {i: bytearray(mine[-1].stop - mine[0].start) for i in self.incoming}
        self.sources: dict[int, Seal] = {}
        self.targets: dict[int, Seal] = {}

        def seal(seals: dict[int, Seal], i: int, sock: Any, dialled: bool) -> None:
            seals[i] = agree(sock, dialled=dialled)

        self.everywhere(
            [lambda i=i, s=s: seal(self.sources, i, s, False) for i, s in self.incoming.items()]
            + [lambda j=j, s=s: seal(self.targets, j, s, True) for j, s in self.outgoing.items()]
        )

    def round(self) -> None:
        self.trained.write({"weights": self.vector})
        self.leaves, finite = reading.read(self.trained.data, self.runs)
        assert finite
        self.result: list[bytes] = [b""] * self.plan.blocks
        self.everywhere(
            [lambda i=i: self._take(i) for i in self.sources]
            + [lambda j=j: self._give(j) for j in self.targets]
        )
        self._reduce()
        self.everywhere(
            [lambda i=i: self._take_result(i) for i in self.sources]
            + [lambda j=j: self._give_result(j) for j in self.targets]
        )
        blocks.root(self.result)
        np.copyto(self.vector, self.merged.views()["weights"])

    def _chunks(self, owner: int) -> list[Chunk]:
        return [self.plan.chunk(owner, n) for n in range(self.plan.chunk_count(owner))]

    def _give(self, j: int) -> None:
        self.targets[j].send(b"".join(self.leaves))
        for chunk in self._chunks(j):
            self.targets[j].send(self.trained.data[chunk.start : chunk.stop])

    def _take(self, i: int) -> None:
        raw = bytearray(blocks.DIGEST * self.plan.blocks)
        self.sources[i].receive_into(memoryview(raw), _untouched)
        promised = blocks.split(bytes(raw))
        start = self._chunks(self.index)[0].start
        for chunk in self._chunks(self.index):
            place = memoryview(self.room[i])[chunk.start - start : chunk.stop - start]
            self.sources[i].receive_into(place, _untouched)
            assert blocks.leaves(place, self.plan.block) == promised[chunk.first : chunk.last]

    def _reduce(self) -> None:
        count, start = self.plan.members, self._chunks(self.index)[0].start
        others = [np.frombuffer(data, np.float32) for data in self.room.values()]
        own, out = self.trained.views()["weights"], self.merged.views()["weights"]
        for chunk in self._chunks(self.index):
            for at in range(chunk.start // 4, chunk.stop // 4, PIECE):
                stop = min(at + PIECE, chunk.stop // 4)
                piece, skip = out[at:stop], at - start // 4
                np.copyto(piece, own[at:stop])
                for other in others:
                    np.add(piece, other[skip : skip + len(piece)], out=piece)
                np.multiply(piece, np.float32(1 / count), out=piece)
            self._note(chunk)

    def _give_result(self, j: int) -> None:
        for chunk in self._chunks(self.index):
            self.targets[j].send(self.merged.data[chunk.start : chunk.stop])

    def _take_result(self, i: int) -> None:
        for chunk in self._chunks(i):
            self.sources[i].receive_into(self.merged.data[chunk.start : chunk.stop], _untouched)
            self._note(chunk)

    def _note(self, chunk: Chunk) -> None:
        data = self.merged.data[chunk.start : chunk.stop]
        self.result[chunk.first : chunk.last] = blocks.leaves(data, self.plan.block)


def _untouched(count: int) -> None:
    """Nobody watches the progress."""
