"""Archives for tests, good and bad ones, made member by member."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Sequence

Member = tuple[str, bytes, str, str]  # name, kind, content or link


def member(
    name: str, kind: bytes = tarfile.REGTYPE, to: str = "", data: bytes = b""
) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, to, len(data)
    found.mode = 0o644
    return found


def tar(*members: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo, mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for item in members:
            info, data = item if isinstance(item, tuple) else (item, b"")
            info.size = len(data) if data else info.size
            archive.addfile(info, io.BytesIO(data) if data else None)
    return stream.getvalue()


def file(name: str, data: bytes, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mode = mode
    return info, data


def symlink(name: str, to: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, to)


def hardlink(name: str, to: str) -> tarfile.TarInfo:
    return member(name, tarfile.LNKTYPE, to)


def zipped(
    *members: tuple[str, bytes], kinds: Sequence[int] = (), method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """A zip; `kinds` are the modes of the first members, as Unix has them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for number, (name, data) in enumerate(members):
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            mode = kinds[number] if number < len(kinds) else stat.S_IFREG | 0o644
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return stream.getvalue()


def sparse(name: str, size: int) -> bytes:
    """A tar file of 1 KiB with one file of any size, all of it a hole (old GNU format)."""
    info = tarfile.TarInfo(name)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    header[398:410] = tarfile.itn(0, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    header[483:495] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(2 * tarfile.BLOCKSIZE)
