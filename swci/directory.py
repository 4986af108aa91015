"""The working directory of a session.

Scripts say `cd /platform/swarm/usr`, the place of the user directory inside a container. The same
scripts run outside of one, so that this path means the user directory (USR_DIR) everywhere; all
other paths are the host's own.
"""

from __future__ import annotations

import posixpath
from pathlib import Path

from swci.command import CommandError

USER_DIRECTORY = "/platform/swarm/usr"


class Directory:
    """Where relative paths of commands begin. `shown` is the path that users see."""

    def __init__(self, user_directory: Path) -> None:
        self._user_directory = user_directory
        self.shown = USER_DIRECTORY

    def real(self, path: str = "") -> Path:
        """The file that a path of a command means."""
        return self._real(self._resolve(path))

    def change(self, path: str) -> None:
        """`cd`. Raises CommandError when there is no such directory."""
        target = self._resolve(path)
        if not self._real(target).is_dir():
            raise CommandError(f"there is no directory {target}")
        self.shown = target

    def _resolve(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self.shown, path))

    def _real(self, path: str) -> Path:
        if path == USER_DIRECTORY or path.startswith(USER_DIRECTORY + "/"):
            return self._user_directory / path[len(USER_DIRECTORY) :].lstrip("/")
        return Path(path)
