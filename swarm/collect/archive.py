"""A gzipped tar of texts, of bounded size, that nobody but its owner can read."""

from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path
from types import TracebackType

CUT = "[the beginning is left out: {} bytes]\n"


class Archive:
    """Written beside its name and renamed when it is whole. Everything is below one directory."""

    def __init__(self, path: Path, *, file_limit: int, total_limit: int) -> None:
        self.path = path
        self.cut: list[str] = []  # names of which not all is in the archive
        self._root = path.name.removesuffix(".tar.gz")
        self._draft = path.with_name(f".{path.name}.draft")
        self._file_limit = file_limit
        self._left = total_limit
        self._now = int(time.time())
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file of our own or none: the directory may be one where others write, such as /tmp.
        descriptor = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w:gz")  # noqa: SIM115 - see __exit__

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tar.close()
        self._file.close()
        if kind is None:
            self._draft.replace(self.path)
        else:
            self._draft.unlink(missing_ok=True)

    def add(self, name: str, text: str) -> None:
        """Add a file: its end, where it is larger than it may be."""
        data = text.encode("utf-8", "replace")
        most = max(0, min(self._file_limit, self._left))
        if len(data) > most:
            self.cut.append(name)
            data = CUT.format(len(data) - most).encode() + data[len(data) - most :]
        member = tarfile.TarInfo(f"{self._root}/{name}")
        member.size, member.mode, member.mtime = len(data), 0o600, self._now
        self._tar.addfile(member, io.BytesIO(data))
        self._left -= len(data)
