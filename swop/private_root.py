"""The private root of a local program: mounts by symbolic link, and paths rewritten into it.

A container sees a mount at its target; a local process cannot. So each program gets a directory
that stands for "/": below it, each target is a link to its source, the working directory exists,
and every path in command, entrypoint and environment that lies at or below a target (or the working
directory) is rewritten to the place below the root.

A target inside another target (the task's model directory inside the private data, as the usual
task files have it) becomes a link inside the outer source, where a container engine would make an
empty directory. Such a link is removed with the program, unless another program made the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from swarm.errors import LocalError


@dataclass(frozen=True)
class PrivateRoot:
    """One program's stand-in for "/"; `targets` are absolute, normalised and sorted."""

    directory: Path
    targets: tuple[str, ...]

    def path(self, inside: str) -> Path:
        """Where a path of the program lies on this host."""
        return self.directory / normal(inside).lstrip("/")

    def rewrite(self, text: str) -> str:
        """`text` with each path at or below a target moved below the root.

        Understood are a bare path, `--option=path`, and lists of paths with colons.
        """
        head, equals, value = text.partition("=")
        if equals and head.startswith("-"):
            return f"{head}={self.rewrite(value)}"
        return ":".join(self._rewrite_path(part) for part in text.split(":"))

    def rewrite_all(self, texts: Sequence[str]) -> list[str]:
        return [self.rewrite(text) for text in texts]

    def rewrite_values(self, environment: Mapping[str, str]) -> dict[str, str]:
        return {name: self.rewrite(value) for name, value in environment.items()}

    def _rewrite_path(self, text: str) -> str:
        if not text.startswith("/"):
            return text
        path = normal(text)
        if any(target != "/" and is_below(path, target) for target in self.targets):
            return str(self.path(path)) + ("/" if text.endswith("/") else "")
        return text


def normal(path: str) -> str:
    """An absolute path without "..", "." and doubled slashes."""
    parts: list[str] = []
    for part in PurePosixPath(path).parts[1:]:
        if part == "..":
            parts = parts[:-1]
        else:
            parts.append(part)
    return "/" + "/".join(parts)


def is_below(path: str, target: str) -> bool:
    """Is `path` the target, or below it?"""
    return path == target or path.startswith(target.rstrip("/") + "/")


def build_root(
    directory: Path, mounts: Iterable[tuple[str, Path]], workdir: str
) -> tuple[PrivateRoot, list[Path]]:
    """Make the root with a link for each (target, source), the outer ones first.

    Returns the root and the links that lie inside sources, which `remove_links` takes away.
    Raises LocalError SW7007 (no such source) or SW7008 (something is there already).
    """
    wanted = sorted((normal(target), source) for target, source in mounts)
    for target, source in wanted:
        if not source.exists():
            raise LocalError("SW7007", f"{source}, to be seen at {target}, does not exist")
    root = PrivateRoot(directory, tuple(sorted({*(t for t, _ in wanted), normal(workdir)})))
    directory.mkdir(parents=True, exist_ok=True)
    outside: list[Path] = []
    try:
        for target, source in wanted:
            place = root.path(target)
            place.parent.mkdir(parents=True, exist_ok=True)
            _link(place, source)
            if any(other != target and is_below(target, other) for other, _ in wanted):
                outside.append(place.parent.resolve() / place.name)
        root.path(workdir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remove_links(outside)
        raise LocalError("SW7008", f"cannot prepare {directory}: {error}") from error
    return root, outside


def _link(place: Path, source: Path) -> None:
    """Make `place` a link to `source`; an empty directory, as engines leave it, gives way."""
    if place.is_symlink() and place.resolve() == source.resolve():
        return
    if place.is_dir() and not place.is_symlink():
        with contextlib.suppress(OSError):
            place.rmdir()
    try:
        place.symlink_to(source.resolve())
    except FileExistsError as error:
        cause = f"{place} exists already, where {source} is to be seen"
        raise LocalError("SW7008", cause) from error


def remove_links(links: Iterable[Path]) -> None:
    """Remove these where they are still links."""
    for link in links:
        if link.is_symlink():
            link.unlink(missing_ok=True)
