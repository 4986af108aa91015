"""Unpacking an archive of unknown origin into a `Tree`.

What is taken: tar (plain, gzip, bzip2, xz) and zip, told apart by their first bytes. Of their
members: regular files (sparse ones are written out), directories, and links that stay inside.
Anything else (devices, pipes, encrypted members) is an error, not skipped: content is complete or
it is not there. Owners, times and special mode bits are not taken over.

Bounds: the meter counts what is written against the task's limit; MAX_ENTRIES members; and an
archive that grows by more than MAX_RATIO beyond the first FREE_BYTES is taken for a bomb. The
process that runs this has a limit of memory, as some headers and dictionaries of the formats may
ask for any amount.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, cast

from swarm.errors import LocalError
from swop.fetching import CHUNK, Meter
from swop.tree import Tree, parts_of

MAX_ENTRIES = 2_000_000
MAX_RATIO = 1000
FREE_BYTES = 256 << 20  # what any archive may grow to
MAX_LINK = 4096  # bytes of a link's target
MAX_HEADER = 16 << 20  # bytes of an extended header, which the library reads at once
BLOCK = tarfile.BLOCKSIZE
# What the libraries raise for damaged input.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    OverflowError,
    LookupError,
    NotImplementedError,  # a compression that the library does not know
    RuntimeError,  # an encrypted member of a zip
)


@dataclass
class Unpacked:
    """What came out."""

    files: int = 0
    size: int = 0

    @property
    def entries(self) -> str:
        return f"{self.files} files, {self.size} bytes"


def unpack(archive: IO[bytes], size: int, tree: Tree, below: str, meter: Meter) -> Unpacked:
    """Unpack an open archive of `size` bytes into the directory `below` of the tree.

    Raises LocalError SW7023 (unsafe or damaged), and what the meter raises.
    """
    unpacking = _Unpacking(tree, "/".join(parts_of(below, "Out")), size, meter)
    if below:
        tree.make_directory(below, "Out")
    start = archive.read(BLOCK)
    archive.seek(0)
    try:
        if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            unpacking.zip(archive)
        else:
            unpacking.tar(_decompressed(archive, start))
    except DAMAGE as error:
        raise LocalError("SW7023", f"a damaged archive: {str(error)[:300] or error!r}") from error
    except OSError as error:
        if error.errno is not None:
            raise  # the disk's, not the archive's
        raise LocalError("SW7023", f"a damaged archive: {error}") from error
    except MemoryError as error:
        raise LocalError("SW7023", "the archive needs too much memory to be unpacked") from error
    return unpacking.done


def _decompressed(archive: IO[bytes], start: bytes) -> IO[bytes]:
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=archive))
    if start.startswith(b"BZh"):
        return cast(IO[bytes], bz2.BZ2File(archive))
    if start.startswith(b"\xfd7zXZ\x00"):
        return cast(IO[bytes], lzma.LZMAFile(archive))
    return archive


class _Unpacking:
    """One archive on its way into the tree."""

    def __init__(self, tree: Tree, below: str, size: int, meter: Meter) -> None:
        self.tree = tree
        self.below = below
        self.meter = meter
        self.bound = max(FREE_BYTES, size * MAX_RATIO)
        self.done = Unpacked()
        self._entries = 0

    # -------------------------------------------------------------- tar

    def tar(self, plain: IO[bytes]) -> None:
        source = _Stream(plain, self.bound)
        with tarfile.open(fileobj=cast(IO[bytes], source), mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined] # or it would keep all of them
                self._tar_member(archive, member)
        if source.last.strip(b"\0"):
            # The library takes a damaged header for the end.
            raise LocalError("SW7023", "a damaged archive: what follows is no member of a tar file")

    def _tar_member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = self._place(member.name)
        what = f"member {member.name[:200]!r}"
        if member.isdir():
            self.tree.make_directory(name, what)
        elif member.issym():
            self.tree.symlink(name, _short(member.linkname, what), what)
        elif member.islnk():
            self.tree.link(name, self._place(member.linkname), what)
        elif member.isreg():
            source = archive.extractfile(member)
            assert source is not None, "a regular file has content"
            self._file(name, what, source, member.size, bool(member.mode & 0o100))
        else:
            raise LocalError("SW7023", f"{what} is a device, a pipe or of an unknown kind")

    # -------------------------------------------------------------- zip

    def zip(self, file: IO[bytes]) -> None:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = self._place(member.filename)
                what = f"member {member.filename[:200]!r}"
                mode = member.external_attr >> 16
                kind = stat.S_IFMT(mode)
                if member.is_dir():
                    self.tree.make_directory(name, what)
                    continue
                if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
                    raise LocalError("SW7023", f"{what} is a device, a pipe or of an unknown kind")
                with archive.open(member) as content:
                    if kind == stat.S_IFLNK:
                        to = content.read(MAX_LINK + 1).decode("utf-8")
                        self.tree.symlink(name, _short(to, what), what)
                    else:
                        self._file(name, what, content, member.file_size, bool(mode & 0o100))

    # -------------------------------------------------------------- both

    def _place(self, name: str) -> str:
        """Where a member goes; every call counts one."""
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise LocalError("SW7023", f"the archive has more than {MAX_ENTRIES} members")
        parts = parts_of(name, "an archive")
        return "/".join(([self.below] if self.below else []) + list(parts))

    def _file(self, name: str, what: str, source: IO[bytes], size: int, executable: bool) -> None:
        self.meter.expect(size)
        count = 0
        with self.tree.create(name, what, executable=executable) as target:
            while chunk := source.read(CHUNK):
                count += len(chunk)
                if count > size:
                    raise LocalError("SW7023", f"{what} is larger than it says ({size} bytes)")
                self.meter.add(len(chunk))
                _refuse_bomb(self.done.size + count, self.bound)
                target.write(chunk)
        if count != size:
            raise LocalError("SW7023", f"{what} is cut off after {count} of {size} bytes")
        self.done.files += 1
        self.done.size += count


class _Stream(io.RawIOBase):
    """A tar file's bytes: counted, read in bounded pieces, and the last header is remembered."""

    def __init__(self, source: IO[bytes], bound: int) -> None:
        self._source = source
        self._bound = bound
        self._count = 0
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise LocalError("SW7023", f"a damaged archive: a header of {size} bytes")
        data = self._source.read(size)
        self._count += len(data)
        _refuse_bomb(self._count, 2 * self._bound)  # headers of empty files are a part of it
        self.last = data if size == BLOCK else b""
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()


def _refuse_bomb(count: int, bound: int) -> None:
    if count > bound:
        cause = f"the archive grows to more than {MAX_RATIO} times its size: taken for a bomb"
        raise LocalError("SW7023", cause)


def _short(target: str, what: str) -> str:
    if len(target) > MAX_LINK:
        raise LocalError("SW7023", f"{what} is a link with a target of more than {MAX_LINK} bytes")
    return target
