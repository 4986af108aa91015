"""The learner's files: what the program hands in, what it gets, and what is kept for others.

    trained.bin   written by the program, mapped here read-only: the contribution
    next.bin      what exchanges and fetches write: what may become the next decided model
    merged.bin    the last decided model: what the program loads, and what latecomers fetch

All of them hold the vector as it travels: with a `transferDtype`, in that type (the program narrows
what it writes and widens what it reads), so whoever fetches a model gets the decided bytes as well.

When a model is decided, the two files change names: what was next is merged, and the older of the
two is written into next. So merged.bin is always whole, whatever becomes of an attempt, and nothing
is copied to be kept. A program that loads merged.bin need not hurry: the file that it has opened is
written to again only when another model has been decided, which takes its next call. Who fetches
reads through a descriptor, and hears that the model was replaced before that file is written to.

What is being made is written by calls, piece by piece, and not through a mapping: the pages of a
file become ready to be written to one by one, anew whenever the disk has written them out, which
costs more than the copy; and they would count as memory of this process. So one vector does, the
contribution, beside what an exchange works in. (In mode `active` the decided model is the
contribution, and trained.bin is not mapped instead.)
"""

from __future__ import annotations

import contextlib
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
from swarm.merge.store import Write
from swarmlearning import link, tensors
from swarmlearning.narrow import TRANSFER
from swarmlearning.tensors import Layout, Tensor, TensorFile, TensorFileError

NEXT = "next.bin"
SPARE = "spare.bin"  # the older file, for the moment in which names are changed
MOST_LINES = 512  # tensors that a check-in describes; the ledger bounds the text as well
MOST_TEXT = 30_000


class Contribution(NamedTuple):
    """What is known of a contribution that was read."""

    root: bytes
    layout: Layout
    odd: list[Tensor]  # those that hold NaN or infinity


class Vectors:
    """Files of one session in `folder`. Used by the learner's main thread, or by its fetch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contribution: TensorFile | None = None
        self._source: tuple[str, int] = ("", 0)  # name and inode of what is mapped
        self._runs: tuple[Segment, ...] = ()  # types in the contribution
        self._leaves: list[bytes] = []
        self._next: TensorFile | None = None  # next.bin, or what is going to be it
        self._decided: TensorFile | None = None  # merged.bin, when it was made here
        self._held: Held | None = None  # the same, for those who fetch it

    # ----------------------------------------------------------- contribution

    def prepare(self, decided: bool, transfer: str = "") -> Contribution:
        """Map and read the contribution, which has to be stored for this transfer type.

        It is what the program wrote, or the model that was `decided` last. Raises LocalError
        SW6003.
        """
        name = link.MERGED if decided else link.TRAINED
        try:
            self._map(name, transfer)
            contribution = self._contribution
            assert contribution is not None
            layout = contribution.layout
            self._make_room(layout)
        except (OSError, TensorFileError) as error:
            raise LocalError("SW6003", f"{self._folder / name}: {error}") from error
        self._leaves, finite = reading.read(contribution.data, self._runs)
        odd = [] if finite else reading.odd_tensors(contribution.data, layout)
        return Contribution(blocks.root(self._leaves), layout, odd)

    def buffers(self) -> Buffers:
        """What an exchange reads and writes: the prepared contribution, and next.bin."""
        assert self._contribution is not None
        output = self._make_room(self._contribution.layout)
        return Buffers(self._contribution.data, self._leaves, output.store, self._runs)

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

    # ------------------------------------------------------------ next, merged

    def for_fetch(self, header: bytes, size: int, schema: str) -> Write:
        """Writes into next.bin, for a model with this file header. Raises RemoteError SW6107."""
        try:
            layout = layout_of(header)
        except TensorFileError as error:
            raise RemoteError("SW6107", str(error)) from None
        if layout.size != size or (schema and layout.schema_digest().hex() != schema):
            raise RemoteError("SW6107", "its layout is not the one that the ledger knows")
        return self._make_room(layout).store

    def left_behind(self, digest: str) -> tuple[str, list[bytes]] | None:
        """The model with this digest as next.bin, if a learner before this one left it here.

        Name of the file that has it, and its leaf digests; None when there is none, or none whole.
        """
        for name in (link.MERGED, NEXT, SPARE):
            try:
                file = tensors.open(self._folder / name, write=True)
            except (OSError, TensorFileError):
                continue  # never written, or not to its end
            leaves = reading.read(file.data, ()).leaves
            if blocks.root(leaves).hex() == digest:
                _close(self._next)
                self._next = file
                return name, leaves
            file.close()
        return None

    def keep(self, contract: str, round_: int, digest: str, leaves: Sequence[bytes]) -> Decided:
        """next.bin is decided: from now on it is merged.bin, for the program and for others.

        Raises OSError.
        """
        made, older = self._next, self._decided
        assert made is not None
        merged, following, spare = (self._folder / n for n in (link.MERGED, NEXT, SPARE))
        if older is not None:
            merged.rename(spare)
        made.path.rename(merged)
        made.path = merged
        if older is not None:
            spare.rename(following)
            older.path = following
        spare.unlink(missing_ok=True)  # of a learner that was killed between two of these lines
        self._decided, self._next = made, older
        if self._held is not None:
            self._held.close()
        header = made.layout.header()
        held = self._held = Held(merged, len(header))
        place = contract, round_, bytes.fromhex(digest)
        return Decided(*place, header, made.layout.size, leaves, held.read)

    def _make_room(self, layout: Layout) -> TensorFile:
        """The file for a model of this layout, which may be written to. Raises OSError."""
        if self._next is None or self._next.layout != layout:
            _close(self._next)
            self._next = tensors.create(self._folder / NEXT, layout)
        return self._next

    def close(self) -> None:
        """Give everything back. Exchanges must have ended."""
        for file in (self._contribution, self._next, self._decided):
            _close(file)
        self._contribution = self._next = self._decided = None
        if self._held is not None:
            self._held.close()
            self._held = None


class Held:
    """The decided model's file, as it is read for those who fetch it: by any thread."""

    def __init__(self, path: Path, data_at: int) -> None:
        """`data_at` is the offset of the data section."""
        self._descriptor = os.open(path, os.O_RDONLY)
        self._data_at = data_at
        self._lock = threading.Lock()

    def read(self, start: int, buffer: memoryview) -> None:
        """Read the model from byte `start` of its data. Raises RemoteError SW6108."""
        with self._lock:
            if self._descriptor < 0:
                raise RemoteError("SW6108", "the model was replaced")
            at = 0
            while at < len(buffer):
                count = os.preadv(self._descriptor, [buffer[at:]], self._data_at + start + at)
                if count <= 0:
                    raise RemoteError("SW6108", "the kept model is shorter than it was")
                at += count

    def close(self) -> None:
        """The model is replaced."""
        with self._lock:
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
