"""The learner's vectors: one is decided, one is being made, and neither disturbs the other."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from swarm.errors import LocalError, RemoteError
from swarm.learner.vectors import NEXT, SPARE, Vectors
from swarm.merge import blocks
from swarm.merge.fetch import Decided
from swarmlearning import link, tensors
from swarmlearning.tensors import Layout

SIZE = 8 << 20  # bytes of the model


class Host:
    """A learner's vectors and its program's memory; a model is one number everywhere."""

    def __init__(self, folder: Path, size: int = SIZE, *, name: str = "w") -> None:
        self.folder = folder
        self.layout = Layout([(name, "float32", (size // 4,))])
        self.memory = tensors.allocate(self.layout)
        self.vectors = Vectors(folder)
        self.round = 0

    def hand_in(self, value: float) -> None:
        """The program writes its weights, and the learner reads them."""
        np.frombuffer(self.memory.data, np.float32)[:] = value
        self.vectors.share(os.dup(self.memory.descriptor))
        self.vectors.prepare(False)

    def make(self, value: float, *, in_place: bool = True) -> list[bytes]:
        """An exchange's result; the leaf digests of it."""
        output = self.vectors.buffers(in_place).output
        np.frombuffer(output, np.float32)[:] = value
        return self.leaves(output)

    def leaves(self, data: memoryview) -> list[bytes]:
        return blocks.leaves(data, blocks.block_size(self.layout.size))

    def decide(self, leaves: list[bytes]) -> Decided:
        decided = self.vectors.keep("c", self.round, blocks.root(leaves).hex(), leaves)
        self.round += 1
        return decided

    def shared(self) -> float:
        """What the program's memory holds now."""
        return first(np.frombuffer(self.memory.data, np.float32))

    def merged(self) -> float:
        """What merged.bin holds now."""
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


def test_a_result_takes_the_contribution_s_place(host: Host) -> None:
    for value in (1.0, 2.0, 3.0):
        host.hand_in(-value)
        decided = host.decide(host.make(value))
        host.vectors.hand_over()
        assert (host.shared(), fetched(decided)) == (value, value)
        assert host.vectors.unsaved
        host.vectors.save()
        assert not host.vectors.unsaved
        np.frombuffer(host.memory.data, np.float32)[:] = 7.0  # it is the program's again
        assert (host.merged(), fetched(decided)) == (value, value)
    assert {path.name for path in host.folder.iterdir()} == {link.MERGED, NEXT}
    host.vectors.close()


def test_an_attempt_that_comes_to_nothing_has_spent_the_contribution(host: Host) -> None:
    host.hand_in(1.0)
    assert not host.vectors.spent
    host.make(2.0)
    assert host.vectors.spent
    np.frombuffer(host.memory.data, np.float32)[:] = 1.0
    host.vectors.prepare_again()
    assert not host.vectors.spent
    host.make(3.0)
    with pytest.raises(LocalError, match=r"SW6003.*changed while"):
        host.vectors.prepare_again()
    host.vectors.close()


def test_final_weights_are_kept_and_the_result_lies_elsewhere(host: Host) -> None:
    host.hand_in(1.0)
    for value in (2.0, 3.0):
        leaves = host.make(value, in_place=False)
        host.vectors.write()
        host.decide(leaves)
        host.vectors.save()
        assert (host.shared(), host.merged()) == (1.0, value)
        assert not host.vectors.spent
    host.vectors.prepare(True)
    assert host.shared() == 3.0, "the decided model is contributed from now on"
    host.vectors.close()


def test_a_decided_model_is_saved_before_its_memory_is_written_to(host: Host) -> None:
    host.hand_in(1.0)
    decided = host.decide(host.make(2.0, in_place=False))
    host.make(3.0, in_place=False)
    assert (host.merged(), fetched(decided)) == (2.0, 2.0)
    host.vectors.close()


def test_a_program_that_comes_next_brings_memory_of_its_own(host: Host) -> None:
    host.hand_in(1.0)
    decided = host.decide(host.make(2.0))
    host.memory.close()
    host.memory = tensors.allocate(host.layout)
    host.hand_in(5.0)
    assert (host.shared(), host.merged(), fetched(decided)) == (5.0, 2.0, 2.0)
    host.vectors.hand_over()
    assert host.shared() == 2.0
    host.vectors.close()


def test_memory_of_another_model_is_not_written_to(host: Host, tmp_path: Path) -> None:
    host.hand_in(1.0)
    host.decide(host.make(2.0))
    host.memory.close()
    host.memory = tensors.allocate(Layout([("v", "float32", (SIZE // 4,))]))
    host.vectors.share(os.dup(host.memory.descriptor))
    with pytest.raises(LocalError, match=r"SW6003.*here v float32 .* there w float32"):
        host.vectors.hand_over()
    assert host.shared() == 0.0
    host.vectors.close()


def test_what_is_no_memory_of_a_program_is_refused(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(host.layout.header() + bytes(host.layout.size))
    host.vectors.share(os.open(path, os.O_RDWR))
    with pytest.raises(LocalError, match=r"SW6003.*not memory whose size can be sealed"):
        host.vectors.prepare(False)
    host.vectors.close()


def test_a_fetch_goes_on_where_an_attempt_stopped(host: Host) -> None:
    """What that has brought is there, and who it came from does not matter."""
    host.hand_in(1.0)
    leaves = host.make(2.0)
    half = [*leaves[: len(leaves) // 2], *[b""] * (len(leaves) - len(leaves) // 2)]
    header = host.layout.header()

    def have(in_place: bool) -> list[bytes]:
        _, there = host.vectors.for_fetch(header, host.layout.size, "", in_place)
        return list(there)

    host.vectors.stopped(half)
    assert have(True) == half
    assert have(True) == [], "what came may not have fitted"
    host.vectors.stopped(half)
    assert have(False) == [], "it lies elsewhere"
    host.hand_in(1.0)
    host.make(2.0)
    host.vectors.stopped(half)
    host.hand_in(1.0)
    assert have(True) == [], "the program has written over it"
    host.vectors.close()


def test_a_fetched_model_reaches_the_program(host: Host) -> None:
    host.hand_in(1.0)
    value = memoryview(np.full(SIZE // 4, 4.0, np.float32)).cast("B")
    for in_place in (False, True):
        write, _ = host.vectors.for_fetch(host.layout.header(), SIZE, "", in_place)
        for at in range(0, SIZE, 3 << 20):
            write(at, value[at : at + (3 << 20)])
        decided = host.decide(host.leaves(value))
        host.vectors.hand_over()
        assert (host.shared(), fetched(decided)) == (4.0, 4.0)
        host.vectors.save()
        np.frombuffer(host.memory.data, np.float32)[:] = 1.0
    with pytest.raises(RemoteError, match="SW6107"):
        host.vectors.for_fetch(host.layout.header(), SIZE - 64, "", True)
    with pytest.raises(RemoteError, match="SW6107"):
        host.vectors.for_fetch(b"x" * 4096, SIZE, "", True)
    host.vectors.close()


def test_a_slow_program_reads_what_it_has_opened_over_the_next_decision(host: Host) -> None:
    host.hand_in(1.0)
    for value in (1.0, 2.0):
        host.decide(host.make(value, in_place=False))
        host.vectors.save()
    with tensors.open(host.folder / link.MERGED) as file:
        host.decide(host.make(3.0, in_place=False))
        host.vectors.save()
        assert first(file.views()["w"]) == 2.0
    host.vectors.close()


@pytest.mark.parametrize("where", [link.MERGED, NEXT, SPARE])
def test_a_model_is_found_wherever_a_killed_learner_left_it(host: Host, where: str) -> None:
    """It was killed before, or while, files changed their names."""
    host.hand_in(1.0)
    leaves = host.make(5.0)
    host.decide(leaves)
    host.vectors.save()
    host.vectors.close()
    (host.folder / link.MERGED).rename(host.folder / where)
    after = Host(host.folder)
    after.hand_in(6.0)
    assert after.vectors.left_behind("00" * 32) is None
    assert after.vectors.left_behind(blocks.root(leaves).hex()) == (where, leaves)
    decided = after.decide(leaves)
    assert (after.merged(), fetched(decided)) == (5.0, 5.0)
    assert after.shared() == 6.0, "which may be contributed yet"
    after.vectors.hand_over()
    assert after.shared() == 5.0
    after.decide(after.make(7.0))
    after.vectors.save()
    assert after.merged() == 7.0
    assert not (after.folder / SPARE).exists()
    after.vectors.close()


def test_a_model_that_is_replaced_is_not_read_any_more(host: Host) -> None:
    host.hand_in(1.0)
    replaced = host.decide(host.make(2.0))
    host.vectors.save()
    host.hand_in(3.0)
    host.decide(host.make(4.0))
    with pytest.raises(RemoteError, match="SW6108"):
        replaced.read(0, memoryview(bytearray(4)))
    host.vectors.close()


def test_a_disk_that_takes_no_more_is_named(host: Host) -> None:
    host.hand_in(1.0)
    decided = host.decide(host.make(2.0))
    (host.folder / NEXT).mkdir()
    with pytest.raises(LocalError, match=f"SW6003.*{NEXT}"):
        host.vectors.save()
    assert host.vectors.unsaved
    assert fetched(decided) == 2.0
    (host.folder / NEXT).rmdir()
    host.vectors.save()
    assert host.merged() == 2.0
    host.vectors.close()


def test_one_vector_counts_as_memory(tmp_path: Path) -> None:
    """The program's, in which all happens: never a second one, nor the file."""
    size = 64 << 20
    host = Host(tmp_path, size)
    before = resident()
    most = 0
    for value in (1.0, 2.0, 3.0):
        host.hand_in(-value)
        leaves = host.make(value)
        most = max(most, resident())
        host.decide(leaves)
        host.vectors.hand_over()
        host.vectors.save()
        most = max(most, resident())
    # This process maps it twice, as program and as learner.
    assert most - before < 2.2 * size
    host.vectors.close()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
