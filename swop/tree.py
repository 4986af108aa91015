"""Writing into a directory that nothing may leave, whatever the names say.

Every path is walked from the root's descriptor, one component after the other, and no component may
be a symbolic link. So neither "..", nor a link that an archive brought, nor one that is exchanged
meanwhile leads out. Modes are reduced to what content needs: 0644 or 0755.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from swarm.errors import LocalError

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MAX_PARTS = 100
MAX_PATH = 3000  # below PATH_MAX, so that whoever reads the content can name what is in it


def parts_of(path: str, what: str) -> tuple[str, ...]:
    """The components of a relative path. LocalError SW7023 for one that leaves its directory."""
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise LocalError("SW7023", f"{what}: the path {path[:200]!r} leads out of the volume")
    if len(parts) > MAX_PARTS or len(os.fsencode(path)) > MAX_PATH:
        raise LocalError("SW7023", f"{what}: the path {path[:200]!r}… is too long")
    return parts


class Tree:
    """A directory that is being filled. `what` names the source in messages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._descriptor = os.open(root, DIRECTORY & ~os.O_NOFOLLOW)

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    @contextlib.contextmanager
    def _directory(self, parts: tuple[str, ...], what: str) -> Iterator[int]:
        """The descriptor of a directory, made with all above it where it is missing."""
        at = os.dup(self._descriptor)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=at)
                below = os.open(part, DIRECTORY, dir_fd=at)
                os.close(at)
                at = below
            yield at
        except OSError as error:
            raise _refusal(what, "/".join(parts), error) from error
        finally:
            os.close(at)

    def make_directory(self, path: str, what: str) -> None:
        with self._directory(parts_of(path, what), what):
            pass

    def create(self, path: str, what: str, *, executable: bool = False) -> IO[bytes]:
        """A new file, open for writing and reading; one that is there gives way."""
        parts = _file_parts(path, what)
        with self._directory(parts[:-1], what) as directory:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(parts[-1], dir_fd=directory)
            descriptor = os.open(parts[-1], NEW_FILE, 0o600, dir_fd=directory)
            os.fchmod(descriptor, 0o755 if executable else 0o644)
            return os.fdopen(descriptor, "w+b")

    def open(self, path: str, what: str) -> IO[bytes]:
        """A regular file of the tree, for reading."""
        parts = _file_parts(path, what)
        with self._directory(parts[:-1], what) as directory:
            descriptor = os.open(parts[-1], OLD_FILE, dir_fd=directory)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise LocalError("SW7023", f"{what}: {path[:200]} is not a regular file")
            return os.fdopen(descriptor, "rb")

    def link(self, path: str, existing: str, what: str) -> None:
        """A hard link to a regular file of the tree."""
        new, old = _file_parts(path, what), _file_parts(existing, what)
        if new == old:
            raise LocalError("SW7023", f"{what}: {path[:200]} is a hard link to itself")
        with (
            self._directory(old[:-1], what) as source,
            self._directory(new[:-1], what) as target,
        ):
            if not stat.S_ISREG(os.stat(old[-1], dir_fd=source, follow_symlinks=False).st_mode):
                raise LocalError("SW7023", f"{what}: {path[:200]} links to what is no file")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new[-1], dir_fd=target)
            os.link(old[-1], new[-1], src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)

    def symlink(self, path: str, to: str, what: str) -> None:
        """A symbolic link. `check_links` says later whether it stays inside."""
        parts = _file_parts(path, what)
        if to.startswith("/") or not to or "\0" in to:
            raise _leaves(what, path, to)
        with self._directory(parts[:-1], what) as directory:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(parts[-1], dir_fd=directory)
            os.symlink(to, parts[-1], dir_fd=directory)

    def check_links(self, what: str) -> None:
        """Every symbolic link must lead to something inside. LocalError SW7023.

        Looked at once the tree is complete: a link's meaning changes with what lies on its way.
        """
        root = self.root.resolve()
        for directory, names, files in os.walk(root):
            for path in (Path(directory, name) for name in (*names, *files)):
                if path.is_symlink() and not _stays_inside(path, root):
                    raise _leaves(what, str(path.relative_to(root)), str(path.readlink()))


def _stays_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # nothing there, a circle, or too long
        return False


def _file_parts(path: str, what: str) -> tuple[str, ...]:
    parts = parts_of(path, what)
    if not parts:
        raise LocalError("SW7023", f"{what}: {path[:200]!r} names no file")
    return parts


def _leaves(what: str, path: str, to: str) -> LocalError:
    return LocalError(
        "SW7023",
        f"{what}: the link {path[:200]!r} leads out of the volume or to nothing ({to[:200]!r})",
    )


def _refusal(what: str, path: str, error: OSError) -> LocalError:
    """The message for what the file system refused."""
    return LocalError("SW7023", f"{what}: {path[:200]}: {error.strerror or error}")
