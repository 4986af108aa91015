"""The learner's vectors: what the program hands in, what is being made, and what is decided.

    shared memory   allocated by the program, mapped here. From a sync to its answer it is ours:
                    first the contribution, and piece by piece the result, which takes its place;
                    decided, it is what the program loads. The program's again when that is saved
    private memory  the result, where the shared memory is not ours: while a late joiner has none,
                    and when a program has finished, whose final weights may be needed again
    merged.bin      the last decided model on disk: for latecomers, for what may become of learners,
                    and for programs that do not find it in shared memory

All of them hold the vector as it travels: with a `transferDtype`, in that type (the program narrows
what it writes and widens what it reads), so whoever fetches a model gets the decided bytes as well.

So one vector is in memory as a rule, and every byte of it is touched as seldom as can be. The price
is that an attempt that fails has spent the contribution; the program has it still, and writes it
again. No unmerged weights ever reach a disk.

A decided model is saved after the program has loaded it, and until then nothing else is written to
the memory that it lies in. Those who fetch it read from memory or file, whichever has it. It is
saved as next.bin, which then changes names with merged.bin, so that this one is always whole. A
program that loads merged.bin need not hurry: the file that it has opened is written to again only
when another model has been decided, which takes its next call. Who fetches reads through a
descriptor, and hears that the model was replaced before that file is written to.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from swarm.errors import LocalError, RemoteError
from swarm.learner import reading
from swarm.merge import blocks
from swarm.merge.exchange import Buffers
from swarm.merge.fetch import Decided, Write
from swarm.merge.mean import Segment, segments
from swarm.merge.store import copy
from swarmlearning import link, tensors
from swarmlearning.narrow import TRANSFER
from swarmlearning.tensors import Layout, Tensor, TensorFile, TensorFileError

NEXT = "next.bin"
SPARE = "spare.bin"  # the older file, for the moment in which names are changed
HUGE_PAGES = 16 << 20  # bytes of a vector from which on what they round up does not count
MOST_LINES = 512  # tensors that a check-in describes; the ledger bounds the text as well
MOST_TEXT = 30_000


class Contribution(NamedTuple):
    """What is known of a contribution that was read."""

    root: bytes
    layout: Layout
    odd: list[Tensor]  # those that hold NaN or infinity


class Vectors:
    """The vectors of one session, with files in `folder`.

    Used by the learner's main thread; `write` and `save` also by one other, and what fetches by the
    one that does.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offered = -1  # descriptor of shared memory that is not mapped yet
        self._shared: TensorFile | None = None
        self._private = memoryview(b"")
        self._runs: tuple[Segment, ...] = ()  # types in the contribution
        self._leaves: list[bytes] = []  # of the contribution
        self._layout = Layout([])  # of the result
        self._result = memoryview(b"")  # in shared or private memory
        self._partial: Sequence[bytes] = ()  # leaves of what it holds, where it is not whole
        self._written = False  # next.bin holds the result
        self._held: Held | None = None  # the decided model
        self._writing = threading.RLock()
        self.spent = False  # the shared memory does not hold the contribution any more
        self.unsaved = False  # the decided model is not in merged.bin yet

    # ----------------------------------------------------------- contribution

    def share(self, descriptor: int) -> None:
        """The program shares this memory from now on; the descriptor is taken over."""
        if self._offered >= 0:
            os.close(self._offered)
        self._offered = descriptor

    def prepare(self, decided: bool, transfer: str = "") -> Contribution:
        """Map and read the contribution, which has to be stored for this transfer type.

        It is what the program wrote, or the model that was `decided` last, which then takes the
        place of that. Raises LocalError SW6003.
        """
        if decided:
            self.hand_over()
        shared = self._map_shared()
        layout = shared.layout
        if layout != layout.narrowed(transfer):
            text = f"the weights are not stored for transferDtype {transfer or 'none'}"
            raise LocalError("SW6003", text)
        self._runs = segments([(t.dtype, t.offset) for t in layout.tensors], layout.size)
        self._leaves, finite = reading.read(shared.data, self._runs)
        self._partial, self.spent = (), False
        odd = [] if finite else reading.odd_tensors(shared.data, layout)
        return Contribution(blocks.root(self._leaves), layout, odd)

    def prepare_again(self) -> None:
        """The program has written the contribution once more. Raises LocalError SW6003."""
        if reading.read(self._map_shared().data, ()).leaves != self._leaves:
            text = "the program's weights changed while they were being merged"
            raise LocalError("SW6003", text)
        self._partial, self.spent = (), False

    def _map_shared(self) -> TensorFile:
        offered, self._offered = self._offered, -1
        shared = self._shared
        if offered >= 0 and shared is not None and os.path.sameopenfile(offered, shared.descriptor):
            os.close(offered)
        elif offered >= 0:
            try:
                file = tensors.attach(offered)
            except (OSError, TensorFileError) as error:
                raise LocalError("SW6003", f"the program's memory: {error}") from error
            if shared is not None and self._result is shared.data:
                self._leave(self._private)  # of a program that is gone
            _close(shared)
            self._shared = file
        assert self._shared is not None, "it comes with the first weights"
        return self._shared

    # ----------------------------------------------------------------- result

    def buffers(self, in_place: bool) -> Buffers:
        """What an exchange reads and writes: the prepared contribution, and the result.

        Which takes its place, if that is wanted. Raises LocalError SW6003.
        """
        shared = self._map_shared()
        self._begin(shared.layout, in_place)
        return Buffers(shared.data, self._leaves, self._result, self._runs)

    def stopped(self, leaves: Sequence[bytes]) -> None:
        """What was being made will not be whole; these are the leaves of what there is, or b""."""
        self._partial = leaves

    def for_fetch(
        self, header: bytes, size: int, schema: str, in_place: bool
    ) -> tuple[Write, Sequence[bytes]]:
        """What writes the result, for a model with this header; the leaves of what it holds.

        Raises RemoteError SW6107, LocalError SW6003.
        """
        try:
            layout = layout_of(header)
        except TensorFileError as error:
            raise RemoteError("SW6107", str(error)) from None
        if layout.size != size or (schema and layout.schema_digest().hex() != schema):
            raise RemoteError("SW6107", "its layout is not the one that the ledger knows")
        self._begin(layout, in_place and self._map_shared().layout == layout)
        result, partial = self._result, self._partial
        self._partial = ()  # if what comes does not fit, nobody knows

        def write(at: int, piece: memoryview) -> None:
            result[at : at + len(piece)] = piece

        return write, partial

    def left_behind(self, digest: str) -> tuple[str, list[bytes]] | None:
        """Make the model with this digest the result, if a learner before this one left it here.

        Name of the file that had it, and its leaf digests; None when there is none, or none whole.
        No memory is written to, as the program's weights may be in it.
        """
        for name in (link.MERGED, NEXT, SPARE):
            path = self._folder / name
            try:
                with tensors.open(path) as file:
                    leaves = reading.read(file.data, ()).leaves
                    if blocks.root(leaves).hex() == digest:
                        path.replace(self._folder / NEXT)
                        self._result, self._partial = memoryview(b""), ()
                        self._layout, self._written = file.layout, True
                        return name, leaves
            except (OSError, TensorFileError):
                continue  # never written, or not to its end
        return None

    def _begin(self, layout: Layout, in_place: bool) -> None:
        """Something is going to be written to the result, which takes a model of this layout."""
        if in_place:
            self._leave(self._map_shared().data)
            self.spent = True
        elif self._layout == layout and len(self._private) == layout.size:
            self._leave(self._private)
        else:
            self._leave(_memory(layout.size))
        self._private = memoryview(b"") if in_place else self._result
        self._layout, self._written = layout, False

    def _leave(self, memory: memoryview) -> None:
        """The next result goes to this memory; a decided model has to be in its file now."""
        self.save()
        if memory is not self._result:
            self._result, self._partial = memory, ()

    # ---------------------------------------------------------------- decided

    def write(self) -> None:
        """Write the result to next.bin, where it is not yet. Raises LocalError SW6003."""
        path = self._folder / NEXT
        with self._writing:
            if self._written:
                return
            assert len(self._result) == self._layout.size, "it is in memory"
            try:
                tensors.save(path, self._layout, self._result)
            except OSError as error:
                raise LocalError("SW6003", f"{path}: {error}") from error
            self._written = True

    def keep(self, contract: str, round_: int, digest: str, leaves: Sequence[bytes]) -> Decided:
        """The result is decided: from now on others may fetch it. It has to be `save`d.

        Raises LocalError SW6003.
        """
        if self._held is not None:
            self._held.close()
        held = self._held = Held(self._result, self._folder / link.MERGED)
        self.unsaved, self._partial = True, ()
        if len(self._result) != self._layout.size:
            self.save()  # it was left behind, in a file
        place = contract, round_, bytes.fromhex(digest)
        return Decided(*place, self._layout.header(), self._layout.size, leaves, held.read)

    def save(self) -> None:
        """Save the decided model as merged.bin, where it is not yet. Raises LocalError SW6003.

        From then on it is read from there, and the memory is free.
        """
        path = self._folder / link.MERGED
        with self._writing:
            if not self.unsaved:
                return
            self.write()
            try:
                _change_names(self._folder / NEXT, path, self._folder / SPARE)
                assert self._held is not None, "it was decided"
                self._held.saved(len(self._layout.header()))
            except OSError as error:
                raise LocalError("SW6003", f"{path}: {error}") from error
            self.unsaved = False

    def hand_over(self) -> None:
        """Let the program's memory hold the decided model. Raises LocalError SW6003."""
        shared = self._map_shared()
        assert self._held is not None, "there is a decided model"
        if shared.layout != self._layout:
            difference = shared.layout.difference(self._layout)
            raise LocalError("SW6003", f"the merged model does not fit this one: {difference}")
        if self._held.memory is shared.data:
            return
        self._partial = ()
        try:
            self._held.read(0, shared.data)
        except RemoteError as fault:
            raise LocalError("SW6003", fault.cause) from fault

    def close(self) -> None:
        """Give everything back. Exchanges must have ended."""
        self.share(-1)
        self._result = memoryview(b"")
        _close(self._shared)
        self._shared = None
        if self._held is not None:
            self._held.close()
            self._held = None


def _change_names(one: Path, other: Path, spare: Path) -> None:
    """Rename files to each other's names; `other` need not be there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        other.rename(spare)
    one.rename(other)
    with contextlib.suppress(FileNotFoundError):
        spare.rename(one)


def _memory(size: int) -> memoryview:
    """Zeros that no other process sees; large ones in large pages, which are cheaper to reach."""
    if not size:
        return memoryview(bytearray())
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_PAGES and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel that was built without
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


class Held:
    """The decided model, as it is read for those who fetch it: by any thread.

    From memory until it is saved, and from the file `path` then.
    """

    def __init__(self, memory: memoryview, path: Path) -> None:
        self.memory: memoryview | None = memory
        self._path = path
        self._descriptor = -1
        self._data_at = 0  # offset of the data section in the file
        self._lock = threading.Lock()

    def read(self, start: int, buffer: memoryview) -> None:
        """Read the model from byte `start` of its data. Raises RemoteError SW6108."""
        with self._lock:
            if self.memory is not None:
                copy(self.memory[start : start + len(buffer)], buffer)
                return
            if self._descriptor < 0:
                raise RemoteError("SW6108", "the model was replaced")
            at = 0
            while at < len(buffer):
                count = os.preadv(self._descriptor, [buffer[at:]], self._data_at + start + at)
                if count <= 0:
                    raise RemoteError("SW6108", "the kept model is shorter than it was")
                at += count

    def saved(self, data_at: int) -> None:
        """The file holds the model, with its data from this offset on. Raises OSError."""
        with self._lock:
            self._descriptor, self._data_at = os.open(self._path, os.O_RDONLY), data_at
            self.memory = None

    def close(self) -> None:
        """The model is replaced."""
        with self._lock:
            self.memory = None
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


def _close(file: TensorFile | None) -> None:
    if file is not None:
        with contextlib.suppress(BufferError):
            file.close()


def describe(layout: Layout) -> list[str]:
    """Lines for the check-in, so that a differing tensor can be named; none when too many."""
    lines = [line[:256] for line in layout.schema_lines()]
    if len(lines) > MOST_LINES or sum(map(len, lines)) > MOST_TEXT:
        return []
    return lines


def not_finite(odd: Sequence[Tensor]) -> str:
    """Says which tensors hold NaN or infinity, and why that may be."""
    names = ", ".join(repr(tensor.name[:64]) for tensor in odd[:3])
    more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
    text = f"tensor{'s' * (len(odd) > 1)} {names}{more} of this node: NaN or infinity"
    kind = next((tensor.dtype for tensor in odd if tensor.of != tensor.dtype), "")
    if kind:
        text += f", or above {TRANSFER[kind].largest:.5g}, the largest {kind} (transferDtype)"
    return text


def layout_of(header: bytes) -> Layout:
    """The layout that a file header, as sent by a holder, describes. Raises TensorFileError."""
    length = int.from_bytes(header[12:16], "little")
    layout = Layout.parse(header[16 : 16 + length])
    if layout.header() != header:
        raise TensorFileError("not the header of a tensor file")
    return layout
