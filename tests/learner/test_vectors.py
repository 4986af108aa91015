"""The learner's files: one is decided, one is being made, and they change places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.errors import RemoteError
from swarm.learner.vectors import NEXT, SPARE, Vectors
from swarm.merge import blocks
from swarm.merge.fetch import Decided
from swarmlearning import link, tensors
from swarmlearning.tensors import Layout

SIZE = 8 << 20  # bytes of the model
PIECE = 3 << 20


class Host:
    """A learner's files, with rounds whose result is one number everywhere."""

    def __init__(self, folder: Path, size: int = SIZE) -> None:
        self.folder = folder
        self.layout = Layout([("w", "float32", (size // 4,))])
        with tensors.create(folder / link.TRAINED, self.layout) as file:
            file.write({"w": np.zeros(size // 4, np.float32)})
        self.vectors = Vectors(folder)
        self.round = 0

    def begin(self, value: float) -> list[bytes]:
        """An exchange's result; the leaf digests of it."""
        self.vectors.prepare(False)
        buffers = self.vectors.buffers()
        result = memoryview(np.full(self.layout.size // 4, value, np.float32)).cast("B")
        for at in range(0, len(result), PIECE):
            buffers.write(at, result[at : at + PIECE])
        return blocks.leaves(result, blocks.block_size(self.layout.size))

    def decide(self, leaves: list[bytes]) -> Decided:
        decided = self.vectors.keep("c", self.round, blocks.root(leaves).hex(), leaves)
        self.round += 1
        return decided

    def merged(self) -> float:
        """What a program loads now."""
        with tensors.open(self.folder / link.MERGED) as file:
            return first(file.views()["w"])


def first(array: object) -> float:
    values = np.unique(np.asarray(array))
    assert len(values) == 1, "torn"
    return float(values[0])


def fetched(decided: Decided) -> float:
    data = memoryview(bytearray(decided.size))
    decided.read(0, data)
    return first(np.frombuffer(data, np.float32))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_merged_is_whole_while_the_next_one_is_made(host: Host) -> None:
    decided = host.decide(host.begin(1.0))
    for value in (2.0, 3.0, 4.0):
        leaves = host.begin(value)
        assert (host.merged(), fetched(decided)) == (value - 1, value - 1)
        replaced, decided = decided, host.decide(leaves)
        assert (host.merged(), fetched(decided)) == (value, value)
        with pytest.raises(RemoteError, match="SW6108"):
            replaced.read(0, memoryview(bytearray(4)))
    names = {path.name for path in host.folder.iterdir()}
    assert names == {link.TRAINED, link.MERGED, NEXT}
    host.vectors.close()


def test_a_slow_program_reads_what_it_has_opened_over_the_next_decision(host: Host) -> None:
    host.decide(host.begin(1.0))
    with tensors.open(host.folder / link.MERGED) as file:
        host.decide(host.begin(2.0))
        assert first(file.views()["w"]) == 1.0
    host.vectors.close()


def test_an_attempt_that_comes_to_nothing_leaves_the_decided_model(host: Host) -> None:
    host.decide(host.begin(1.0))
    host.begin(2.0)
    host.begin(3.0)
    assert host.merged() == 1.0
    host.vectors.prepare(True)
    buffers = host.vectors.buffers()
    assert first(np.frombuffer(buffers.contribution, np.float32)) == 1.0
    host.vectors.close()


@pytest.mark.parametrize("where", [link.MERGED, NEXT, SPARE])
def test_a_model_is_found_wherever_a_killed_learner_left_it(host: Host, where: str) -> None:
    """SPARE: it was killed between two steps of the change of names."""
    leaves = host.begin(5.0)
    host.decide(leaves)
    host.begin(6.0)
    host.vectors.close()
    (host.folder / NEXT).unlink()
    (host.folder / link.MERGED).rename(host.folder / where)
    after = Host(host.folder)
    assert after.vectors.left_behind("00" * 32) is None
    assert after.vectors.left_behind(blocks.root(leaves).hex()) == (where, leaves)
    decided = after.decide(leaves)
    assert (after.merged(), fetched(decided)) == (5.0, 5.0)
    after.decide(after.begin(7.0))
    assert after.merged() == 7.0
    assert not (after.folder / SPARE).exists()
    after.vectors.close()


def test_one_vector_counts_as_memory(tmp_path: Path) -> None:
    """The contribution; never what is being made, nor the decided model."""
    size = 64 << 20
    host = Host(tmp_path, size)
    before = resident()
    most = 0
    for value in (1.0, 2.0, 3.0, 4.0):
        leaves = host.begin(value)
        most = max(most, resident())
        host.decide(leaves)
        most = max(most, resident())
    assert most - before < 2.1 * size
    host.vectors.close()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
