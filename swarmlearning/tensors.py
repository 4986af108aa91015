"""The tensor file: how weights lie in the memory that a program and its learner share, or on disk.

No serialisation: arrays are copied into mapped memory once, and the other side reads the same
pages. What is shared is memory with a descriptor and no name (memfd_create(2)), made by the program
and passed to its learner; its size is sealed, so nobody can cut it off while the other one reads.
What has to outlive both is saved in a file. The layout is dull on purpose, since the reader does
not trust the writer:

    offset 0   magic b"SWRMTNSR"
           8   u32  version (1)
          12   u32  length of the header
          16   header, JSON: {"tensors": [[name, dtype, shape, offset], ...], "size": N}
     4096·k    data section of N bytes

A tensor that travels in a narrower type than the program's (see `narrow`) has a fifth part, `of`:
[name, "float16", shape, offset, "float32"] lies here as float16 and is float32 in the program.

All numbers are little-endian. Offsets count from the start of the data section. Each tensor starts
at the next multiple of 64 after its predecessor, and N is padded to a multiple of 64; there is
exactly one valid layout for a list of tensors and a transfer type, so nothing can overlap, and
whoever reduces the data section as one vector finds no surprises in it.

`bfloat16` has no numpy type; such tensors appear as their `uint16` bit patterns, with the tag in
the layout. Arrays that go in have the type of the package ml_dtypes, or are made by `bfloat16`.

Everything that comes from the other side is checked before memory is touched; what does not fit
raises `TensorFileError`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import math
import mmap
import os
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swarmlearning.narrow import TRANSFER, narrow, stored, widen

MAGIC = b"SWRMTNSR"
VERSION = 1
ALIGNMENT = 64
PAGE = 4096

# fcntl(2), for which Python has names only where it was built with a C library that had them.
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1, 2, 4
_SIZE_IS_FINAL = _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW
_CLOEXEC, _ALLOW_SEALING = 1, 2  # memfd_create(2)

MAX_HEADER = 4 << 20  # bytes of JSON
MAX_TENSORS = 100_000
MAX_RANK = 32  # numpy 1.x allows no more
MAX_NAME = 1024  # characters
MAX_SIZE = 1 << 48  # bytes; far above any memory, far below an overflow

_PREFIX = struct.Struct("<8sII")

# Tag in the file -> numpy type under which the bytes are seen.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "bfloat16": np.dtype("<u2"),
    "int8": np.dtype("i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "bool": np.dtype("?"),
}

# Bit patterns that know what they are, where no package has a type for them.
_BFLOAT16 = np.dtype("<u2", metadata={"tag": "bfloat16"})

Array = NDArray[Any]


class TensorFileError(Exception):
    """A tensor file, or an array meant for one, breaks the layout. The text says which and how."""


class Tensor(NamedTuple):
    """One entry of a layout; `offset` counts from the start of the data section, in bytes.

    It lies in the file as `dtype` and is `of` in the program; these are equal unless the model
    travels in a narrower type.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    of: str

    @property
    def nbytes(self) -> int:
        """Length in bytes, without padding."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def view(self, data: memoryview) -> Array:
        """The array that lies in the data section `data`, as it is stored; no copy."""
        raw = data[self.offset : self.offset + self.nbytes]
        view: Array = np.ndarray(self.shape, dtype=DTYPES[self.dtype], buffer=raw)
        return view

    def get(self, data: memoryview) -> Array:
        """As `view`, in the program's type: widened, and a copy then, where it travels narrow."""
        view = self.view(data)
        return view if self.of == self.dtype else widen(view, self.dtype, self.of)

    def put(self, array: Array, data: memoryview) -> None:
        """Store `array`, of the program's type and of this shape; narrowed where it has to be."""
        view = self.view(data)
        if self.of != self.dtype:
            narrow(array, self.dtype, view)
        else:
            np.copyto(view, array.view(np.uint16) if self.of == "bfloat16" else array)


class Layout:
    """Names, types, shapes and places of all tensors of one model. Immutable, checked when made."""

    def __init__(
        self, tensors: Sequence[tuple[str, str, Sequence[int]]], transfer: str = ""
    ) -> None:
        """Place `tensors`, given as (name, dtype tag, shape), one behind the other.

        The tags are the program's; with a `transfer` type, wider floats are stored in that type.
        Raises TensorFileError when a name, type, shape or one of the limits is violated.
        """
        if transfer and transfer not in TRANSFER:
            raise TensorFileError(f"{transfer!r} is not a type to transfer floats in")
        if len(tensors) > MAX_TENSORS:
            raise TensorFileError(f"{len(tensors)} tensors, at most {MAX_TENSORS} are allowed")
        placed: list[Tensor] = []
        names: set[str] = set()
        end = 0
        for name, dtype, shape in tensors:
            _check_entry(name, dtype, shape)
            if name in names:
                raise TensorFileError(f"tensor {name!r} appears twice")
            names.add(name)
            place = _align(end, ALIGNMENT)
            tensor = Tensor(name, stored(dtype, transfer), tuple(shape), place, dtype)
            end = tensor.offset + tensor.nbytes
            if end > MAX_SIZE:
                raise TensorFileError(f"tensor {name!r} makes the model larger than {MAX_SIZE} B")
            placed.append(tensor)
        self.tensors: tuple[Tensor, ...] = tuple(placed)
        self.size = _align(end, ALIGNMENT)

    @classmethod
    def of(cls, arrays: Mapping[str, Array], transfer: str = "") -> Layout:
        """The layout of `arrays`, in their order."""
        tensors = [(name, dtype_tag(array, name), array.shape) for name, array in arrays.items()]
        return cls(tensors, transfer)

    def narrowed(self, transfer: str) -> Layout:
        """The layout of the same model when it travels as `transfer`."""
        return Layout([(t.name, t.of, t.shape) for t in self.tensors], transfer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.tensors == other.tensors

    def __hash__(self) -> int:
        return hash(self.tensors)

    def schema_digest(self) -> bytes:
        """SHA-256 over names, types and shapes: equal exactly when two models fit each other."""
        schema = [[t.name, _type(t), list(t.shape)] for t in self.tensors]
        return hashlib.sha256(_json(schema)).digest()

    def schema_lines(self) -> list[str]:
        """One line for each tensor, so that a mismatch can name the tensor that differs."""
        return [
            f"{t.name} {_type(t)} {'x'.join(map(str, t.shape)) or 'scalar'}" for t in self.tensors
        ]

    def difference(self, other: Layout) -> str:
        """Where `other` is not this one, for people."""
        ours, theirs = self.schema_lines(), other.schema_lines()
        for mine, its in zip(ours, theirs, strict=False):
            if mine != its:
                return f"here {mine}, there {its}"
        return f"{len(ours)} tensors here, {len(theirs)} there"

    def header(self) -> bytes:
        """The bytes before the data section, padding included."""
        entries = [
            [t.name, t.dtype, list(t.shape), t.offset, *([t.of] * (t.of != t.dtype))]
            for t in self.tensors
        ]
        text = _json({"tensors": entries, "size": self.size})
        if len(text) > MAX_HEADER:
            raise TensorFileError(f"header of {len(text)} B, at most {MAX_HEADER} B are allowed")
        head = _PREFIX.pack(MAGIC, VERSION, len(text)) + text
        return head + bytes(_align(len(head), PAGE) - len(head))

    @classmethod
    def parse(cls, text: bytes) -> Layout:
        """The layout that the JSON of a header describes. Raises TensorFileError."""
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TensorFileError(f"header is not JSON: {error}") from None
        if not isinstance(header, dict) or set(header) != {"tensors", "size"}:
            raise TensorFileError("header must hold 'tensors' and 'size' and nothing else")
        entries = header["tensors"]
        if not isinstance(entries, list):
            raise TensorFileError("'tensors' is not a list")
        for entry in entries:
            if not isinstance(entry, list) or len(entry) not in (4, 5):
                raise TensorFileError("an entry is not [name, dtype, shape, offset] or five parts")
        # The fifth part is there where the transfer type, one for all, is the narrower one.
        transfer = next((entry[1] for entry in entries if len(entry) == 5), "")
        if not isinstance(transfer, str):
            raise TensorFileError("a tensor's type is not a text")
        layout = cls([(*_named(entry), entry[2]) for entry in entries], transfer)
        for tensor, entry in zip(layout.tensors, entries, strict=True):
            if tensor.dtype != entry[1] or (len(entry) == 5) != (tensor.of != tensor.dtype):
                raise TensorFileError(
                    f"tensor {tensor.name!r} is stored as {entry[1]!r}, expected {tensor.dtype}"
                )
            if not _is_int(entry[3]) or entry[3] != tensor.offset:
                raise TensorFileError(
                    f"tensor {tensor.name!r} lies at {entry[3]!r}, expected {tensor.offset}"
                )
        if not _is_int(header["size"]) or header["size"] != layout.size:
            raise TensorFileError(f"size is {header['size']!r}, expected {layout.size}")
        return layout


class TensorFile:
    """A mapped tensor file, made by `allocate`, `attach` or `open`; close it when done."""

    def __init__(
        self, layout: Layout, data_offset: int, mapping: mmap.mmap, descriptor: int = -1
    ) -> None:
        """`descriptor` is that of memory which others may map as well; it is closed with it."""
        self.layout = layout
        self.descriptor = descriptor
        self._map = mapping
        self.data = memoryview(mapping)[data_offset : data_offset + layout.size]

    def views(self) -> dict[str, Array]:
        """Arrays over the mapped memory, no copies; read-only when it is a file."""
        return {t.name: t.view(self.data) for t in self.layout.tensors}

    def arrays(self) -> Mapping[str, Array]:
        """As `views`, read-only and in the program's types: what is stored narrower is widened.

        Then each tensor is made when it is asked for, so that the wide model is never here whole.
        """
        data = self.data.toreadonly()
        if all(t.of == t.dtype for t in self.layout.tensors):
            return {t.name: t.view(data) for t in self.layout.tensors}
        return _Arrays({t.name: t for t in self.layout.tensors}, data)

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Copy `arrays`, of the program's types, into the file, narrowed where the layout says so.

        What lies between them becomes zero, whatever a merge has left there.
        Raises TensorFileError when they do not fit the layout, ValueError when it is only read.
        """
        tensors = self.layout.tensors
        if set(arrays) != {t.name for t in tensors}:
            odd = sorted(set(arrays) ^ {t.name for t in tensors})
            raise TensorFileError(f"tensor {odd[0]!r} is not in both the model and the file")
        for tensor in tensors:
            array = arrays[tensor.name]
            tag = dtype_tag(array, tensor.name)
            if tag != tensor.of or array.shape != tensor.shape:
                raise TensorFileError(
                    f"tensor {tensor.name!r} is {tag} {array.shape}, "
                    f"the file holds {tensor.of} {tensor.shape}"
                )
            tensor.put(array, self.data)
            end = tensor.offset + tensor.nbytes
            self.data[end : _align(end, ALIGNMENT)] = bytes(-end % ALIGNMENT)

    def close(self) -> None:
        """Give the mapping back. Arrays from `views` keep it alive until they are gone."""
        self.data.release()
        with contextlib.suppress(BufferError):
            self._map.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Arrays(Mapping[str, Array]):
    """Tensors of a data section by name, each made when it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], data: memoryview) -> None:
        self._tensors = tensors
        self._data = data

    def __getitem__(self, name: str) -> Array:
        return self._tensors[name].get(self._data)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def allocate(layout: Layout) -> TensorFile:
    """Make memory for a model, zero filled, that another process may `attach` by its descriptor.

    All of it is allocated here, and its size is sealed. Raises OSError.
    """
    head = layout.header()
    whole = len(head) + layout.size
    descriptor = _memory_without_name("swarm weights")
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, whole)
        else:
            os.ftruncate(descriptor, whole)
        fcntl.fcntl(descriptor, _ADD_SEALS, _SIZE_IS_FINAL)
        os.pwrite(descriptor, head, 0)
        return TensorFile(layout, len(head), mmap.mmap(descriptor, whole), descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _memory_without_name(label: str) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label, _CLOEXEC | _ALLOW_SEALING)
    # A Python that was built with an older C library than it runs with.
    descriptor = ctypes.CDLL(None, use_errno=True).memfd_create(
        label.encode(), _CLOEXEC | _ALLOW_SEALING
    )
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(descriptor)


def attach(descriptor: int) -> TensorFile:
    """Map memory that another process allocated, after checking all of its header.

    The descriptor is taken over. Raises TensorFileError when the content breaks the layout or the
    size is not sealed, OSError when it cannot be mapped.
    """
    try:
        try:
            seals = fcntl.fcntl(descriptor, _GET_SEALS)
        except OSError:
            raise TensorFileError("it is not memory whose size can be sealed") from None
        if seals & _SIZE_IS_FINAL != _SIZE_IS_FINAL:
            raise TensorFileError("its size is not sealed")
        layout, data_offset = _read_header(descriptor, os.fstat(descriptor).st_size)
        mapping = mmap.mmap(descriptor, data_offset + layout.size)
    except BaseException:
        os.close(descriptor)
        raise
    return TensorFile(layout, data_offset, mapping, descriptor)


def save(path: str | os.PathLike[str], layout: Layout, data: memoryview) -> None:
    """Write a model into the file at `path`, over what is there. Raises OSError.

    Which takes a third of the time that a new file does, as its pages are there already. The two
    processes may run under different users; the directory is what is private.
    """
    head = layout.header()
    whole = len(head) + layout.size
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        if os.fstat(descriptor).st_size != whole:
            os.fchmod(descriptor, 0o666)
            os.ftruncate(descriptor, whole)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, whole)  # a full disk is an error now
        at = 0
        for raw in (memoryview(head), data):
            while raw:
                count = os.pwrite(descriptor, raw, at)
                raw, at = raw[count:], at + count
    finally:
        os.close(descriptor)


def open(path: str | os.PathLike[str]) -> TensorFile:
    """Map an existing file for reading, after checking all of its header.

    Raises TensorFileError when the content breaks the layout, OSError when it cannot be opened.
    """
    target = Path(path)
    # O_NONBLOCK: opening a FIFO put there instead of a file must not hang.
    descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise TensorFileError(f"{target} is not a regular file")
        layout, data_offset = _read_header(descriptor, status.st_size)
        length = data_offset + layout.size
        mapping = mmap.mmap(descriptor, length, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    return TensorFile(layout, data_offset, mapping)


def bfloat16(bits: Array) -> Array:
    """An array to write: bit patterns (uint16) of bfloat16 numbers, seen as such. No copy."""
    return bits.view(_BFLOAT16)


def dtype_tag(array: Array, name: str) -> str:
    """The tag of an array's type. Raises TensorFileError for one that cannot be merged."""
    metadata = array.dtype.metadata
    tag: str = metadata["tag"] if metadata and "tag" in metadata else array.dtype.name
    if tag not in DTYPES:
        raise TensorFileError(f"tensor {name!r} has type {tag}, which cannot be exchanged")
    return tag


def _read_header(descriptor: int, length: int) -> tuple[Layout, int]:
    prefix = os.pread(descriptor, _PREFIX.size, 0)
    if len(prefix) < _PREFIX.size:
        raise TensorFileError(f"file of {length} B is too short for a header")
    magic, version, header_length = _PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise TensorFileError("not a tensor file: wrong magic")
    if version != VERSION:
        raise TensorFileError(f"layout version {version}, this side speaks {VERSION}")
    if header_length > MAX_HEADER:
        raise TensorFileError(f"header of {header_length} B, at most {MAX_HEADER} B are allowed")
    text = os.pread(descriptor, header_length, _PREFIX.size)
    if len(text) < header_length:
        raise TensorFileError("file ends inside its header")
    layout = Layout.parse(text)
    data_offset = _align(_PREFIX.size + header_length, PAGE)
    if length != data_offset + layout.size:
        raise TensorFileError(f"file of {length} B, expected {data_offset + layout.size} B")
    return layout, data_offset


def _check_entry(name: object, dtype: object, shape: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise TensorFileError(f"a tensor's name must be 1 to {MAX_NAME} characters")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise TensorFileError(f"tensor {name!r} has unknown type {dtype!r}")
    if not isinstance(shape, (list, tuple)) or len(shape) > MAX_RANK:
        raise TensorFileError(f"tensor {name!r} needs a shape of at most {MAX_RANK} dimensions")
    volume = DTYPES[dtype].itemsize
    for dimension in shape:
        if not _is_int(dimension) or dimension < 0:
            raise TensorFileError(f"tensor {name!r} has a dimension that is not a whole number")
        # Zero counts as one here: numpy refuses (2**60, 0) although it is empty.
        volume *= max(dimension, 1)
        if volume > MAX_SIZE:
            raise TensorFileError(f"tensor {name!r} is larger than {MAX_SIZE} B")


def _named(entry: list[Any]) -> tuple[Any, Any]:
    """Name and program's type of a header's entry, as they came."""
    return entry[0], entry[4] if len(entry) == 5 else entry[1]


def _type(tensor: Tensor) -> str:
    """A tensor's type for people and schemas: "float32", or "float32>float16" when narrowed."""
    return tensor.of if tensor.of == tensor.dtype else f"{tensor.of}>{tensor.dtype}"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _align(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode("ascii")
