"""The learner's files: what the program hands in, what it gets, and what is kept for others.

    trained.bin   written by the program, mapped here read-only: the contribution
    merged.bin    written here: the output of exchanges and fetches, read by the program
    kept.bin      a copy of the last decided model

All of them hold the vector as it travels: with a `transferDtype`, in that type (the program narrows
what it writes and widens what it reads), so whoever fetches a model gets the decided bytes as well.

merged.bin is overwritten while the next round is being merged, and that round may fail; kept.bin is
then what late joiners fetch, and what a waiting program is given at the end. It is copied by the
kernel, beside the program's training, and not mapped, so it does not count as memory of this
process (in mode `active` it is the contribution, and trained.bin is not mapped instead).
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
from swarm.merge.fetch import Decided
from swarm.merge.mean import Segment, segments
from swarmlearning import link, tensors
from swarmlearning.narrow import TRANSFER
from swarmlearning.tensors import Layout, Tensor, TensorFile, TensorFileError

KEPT = "kept.bin"
BESIDE = 10  # niceness of work that nobody waits for
MOST_LINES = 512  # tensors that a check-in describes; the ledger bounds the text as well
MOST_TEXT = 30_000


class Contribution(NamedTuple):
    """What is known of a contribution that was read."""

    root: bytes
    layout: Layout
    odd: list[Tensor]  # those that hold NaN or infinity


class Vectors:
    """Files of one session in `folder`. Used by the learner's main thread, except `read`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contribution: TensorFile | None = None
        self._source: tuple[str, int] = ("", 0)  # name and inode of what is mapped
        self._runs: tuple[Segment, ...] = ()  # types in the contribution
        self._leaves: list[bytes] = []
        self.merged: TensorFile | None = None
        self._keeper: threading.Thread | None = None
        self._kept = -1  # descriptor that `read` reads from
        self._data_at = 0  # offset of the data section in the file behind it
        self._lock = threading.Lock()

    # ----------------------------------------------------------- contribution

    def prepare(self, kept: bool, transfer: str = "") -> Contribution:
        """Map and read the contribution, which has to be stored for this transfer type.

        Raises LocalError SW6003.
        """
        name = KEPT if kept else link.TRAINED
        if kept:
            self.settle()
        try:
            self._map(name, transfer)
            contribution = self._contribution
            assert contribution is not None
            layout = contribution.layout
            if self.merged is None or self.merged.layout != layout:
                self._create_merged(layout)
        except (OSError, TensorFileError) as error:
            raise LocalError("SW6003", f"{self._folder / name}: {error}") from error
        self._leaves, finite = reading.read(contribution.data, self._runs)
        odd = [] if finite else reading.odd_tensors(contribution.data, layout)
        return Contribution(blocks.root(self._leaves), layout, odd)

    def buffers(self) -> Buffers:
        """Memory for an exchange: the prepared contribution, and merged.bin."""
        self.settle()
        assert self._contribution is not None
        assert self.merged is not None
        return Buffers(self._contribution.data, self._leaves, self.merged.data, self._runs)

    def _map(self, name: str, transfer: str) -> None:
        inode = (self._folder / name).stat().st_ino
        if self._contribution is not None and self._source == (name, inode):
            return
        if self._contribution is not None:
            self._contribution.close()
            self._contribution = None
        file = tensors.open(self._folder / name)
        layout = file.layout
        if layout != layout.narrowed(transfer):
            file.close()
            raise TensorFileError(f"it is not stored for transferDtype {transfer or 'none'}")
        self._contribution, self._source = file, (name, inode)
        self._runs = segments([(t.dtype, t.offset) for t in layout.tensors], layout.size)

    # ----------------------------------------------------------------- merged

    def for_fetch(self, header: bytes, size: int, schema: str) -> memoryview:
        """Memory of merged.bin for a model with this file header. Raises RemoteError SW6107."""
        self.settle()
        try:
            layout = layout_of(header)
        except TensorFileError as error:
            raise RemoteError("SW6107", str(error)) from None
        if layout.size != size or (schema and layout.schema_digest().hex() != schema):
            raise RemoteError("SW6107", "its layout is not the one that the ledger knows")
        if self.merged is None or self.merged.layout != layout:
            self._create_merged(layout)
        assert self.merged is not None
        return self.merged.data

    def _create_merged(self, layout: Layout) -> None:
        if self.merged is not None:
            self.merged.close()
        self.merged = tensors.create(self._folder / link.MERGED, layout)

    def left_behind(self, digest: str) -> tuple[str, list[bytes]] | None:
        """The model with this digest into merged.bin, if a learner before this one left it here.

        Name of the file that has it, and its leaf digests; None when there is none, or none whole.
        """
        for name in (KEPT, link.MERGED):
            try:
                source = tensors.open(self._folder / name)
            except (OSError, TensorFileError):
                continue  # never written, or not to its end
            with source:
                leaves = reading.read(source.data, ()).leaves
                if blocks.root(leaves).hex() == digest:
                    self._create_merged(source.layout)
                    assert self.merged is not None
                    self.merged.data[:] = source.data
                    return name, leaves
        return None

    # ------------------------------------------------------------------- kept

    def keep(self, contract: str, round_: int, digest: str, leaves: Sequence[bytes]) -> Decided:
        """merged.bin is decided: copy it aside in the background, and make it readable for others.

        The result reads from merged.bin until the copy is there, and from the copy then.
        """
        self.settle()
        assert self.merged is not None
        layout = self.merged.layout
        self._data_at = len(layout.header())
        self._switch(self._folder / link.MERGED)
        self._keeper = threading.Thread(target=self._copy, name="keep", daemon=True)
        self._keeper.start()
        return Decided(
            contract, round_, bytes.fromhex(digest), layout.header(), layout.size, leaves, self.read
        )

    def settle(self) -> None:
        """Wait until the copy is made; merged.bin may be written to then."""
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None

    def restore(self) -> None:
        """Copy the kept model back into merged.bin. Raises OSError."""
        self.settle()
        if self.merged is not None:
            self.read(0, self.merged.data)

    def read(self, start: int, buffer: memoryview) -> None:
        """Read the decided model from byte `start` of its data. Raises RemoteError SW6108."""
        with self._lock:
            if self._kept < 0:
                raise RemoteError("SW6108", "no model is kept here")
            at = 0
            while at < len(buffer):
                count = os.preadv(self._kept, [buffer[at:]], self._data_at + start + at)
                if count <= 0:
                    raise RemoteError("SW6108", "the kept model is shorter than it was")
                at += count

    def _copy(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            # Beside the program, which loads the model now: on Linux each thread has its priority.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BESIDE)
        source, target = self._folder / link.MERGED, self._folder / KEPT
        # Written in place, so that its mapping in mode `active` stays valid.
        with source.open("rb") as read, target.open("r+b" if target.exists() else "wb") as write:
            copy_bytes(read.fileno(), write.fileno(), os.fstat(read.fileno()).st_size)
        self._switch(target)

    def _switch(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        with self._lock:
            if self._kept >= 0:
                os.close(self._kept)
            self._kept = descriptor

    def close(self) -> None:
        """Give everything back. Exchanges must have ended."""
        self.settle()
        for file in (self._contribution, self.merged):
            if file is not None:
                with contextlib.suppress(BufferError):
                    file.close()
        self._contribution = self.merged = None
        with self._lock:
            if self._kept >= 0:
                os.close(self._kept)
            self._kept = -1


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


def copy_bytes(source: int, target: int, size: int) -> None:
    """Copy a file's first `size` bytes within the kernel where it can. Raises OSError."""
    os.ftruncate(target, size)
    done = 0
    while done < size:
        count = 0
        if hasattr(os, "copy_file_range"):
            with contextlib.suppress(OSError):  # not on this file system
                count = os.copy_file_range(source, target, size - done, done, done)
        if count == 0:
            data = os.pread(source, mmap.PAGESIZE * 256, done)
            if not data:
                raise OSError("the file became shorter while it was copied")
            count = os.pwrite(target, data, done)
        done += count
