"""Logs of programs that were removed: private files within one budget, the oldest go first.

Each file holds at most a quarter of the budget, the end of the log: that is where it says why a
program ended.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from swarm.errors import LocalError

SUFFIX = ".log"
MIB = 1 << 20
COPY = 64 * 1024  # bytes


class KeptLogs:
    """The directory of logs; `budget` in bytes for all that nobody writes any more, 0 for none."""

    def __init__(self, directory: Path, budget: int) -> None:
        self.directory = directory
        self.budget = budget
        try:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)
        except OSError as error:
            raise LocalError("SW7015", f"{directory}: {error}") from error

    @property
    def most(self) -> int:
        """Bytes of one log."""
        return self.budget // 4

    def path(self, name: str) -> Path:
        """Where the log of this program is, or would be."""
        return self.directory / f"{name}{SUFFIX}"

    def keep(self, name: str, chunks: Iterable[bytes]) -> None:
        """Keep the end of an output, after what is kept of an earlier run of the same name."""
        if not self.budget:
            return
        with _private(self.path(name), os.O_APPEND) as file:
            for chunk in last_bytes(chunks, self.most):
                os.write(file, chunk)
        self._shorten(self.path(name))

    def settle(self, name: str) -> None:
        """Nobody writes this log any more: it is cut to size, or removed when none is kept."""
        path = self.path(name)
        if not self.budget:
            path.unlink(missing_ok=True)
        elif path.exists():
            self._shorten(path)

    def trim(self, living: Collection[str] = ()) -> None:
        """Remove the oldest logs beyond the budget, but none of programs that still exist."""
        found = []
        for path in self.directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if path.name.removesuffix(SUFFIX) not in living:
                    found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.budget:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _shorten(self, path: Path) -> None:
        """Leave the end of a file that is too long, from the beginning of a line on."""
        size = path.stat().st_size
        if size <= self.most:
            return
        draft = path.with_suffix(".part")
        with path.open("rb") as source, _private(draft, os.O_TRUNC) as file:
            source.seek(size - self.most + 200)  # room for the sentence
            source.readline(self.most // 2)
            os.write(file, f"[{source.tell()} bytes before this are not kept]\n".encode())
            while chunk := source.read(COPY):
                os.write(file, chunk)
        draft.replace(path)


def last_bytes(chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The last chunks, with at least `most` bytes where there are as many."""
    kept: deque[bytes] = deque()
    size = 0
    for chunk in chunks:
        kept.append(chunk)
        size += len(chunk)
        while size - len(kept[0]) > most:
            size -= len(kept.popleft())
    return iter(kept)


@contextlib.contextmanager
def _private(path: Path, how: int) -> Iterator[int]:
    """Open for writing, for this user alone, whatever the umask says."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | how, 0o600)
    try:
        os.fchmod(file, 0o600)
        yield file
    finally:
        os.close(file)
