"""The working directory of a session.

Scripts say `cd /platform/swarm/usr`, the place of the user directory inside a container. The same
scripts run outside of one, so that this path means the user directory (USR_DIR) everywhere; all
other paths are the host's own. Where commands come over the network, a directory is *confined*:
only what lies in the user directory exists.
"""

from __future__ import annotations

import posixpath
from pathlib import Path

from swci.command import CommandError

FILES = "SW8027"
USER_DIRECTORY = "/platform/swarm/usr"


class Directory:
    """Where relative paths of commands begin. `shown` is the path that users see."""

    def __init__(self, user_directory: Path, *, confined: bool = False) -> None:
        self._user_directory = user_directory
        self._confined = confined
        self.shown = USER_DIRECTORY

    def real(self, path: str = "") -> Path:
        """The file that a path of a command means. Raises CommandError when it is out of bounds."""
        return self._real(self._resolve(path))

    def change(self, path: str) -> None:
        """`cd`. Raises CommandError when there is no such directory."""
        target = self._resolve(path)
        if not self._real(target).is_dir():
            raise CommandError(FILES, f"there is no directory {target}")
        self.shown = target

    def _resolve(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self.shown, path))

    def _real(self, path: str) -> Path:
        real = Path(path)
        if path == USER_DIRECTORY or path.startswith(USER_DIRECTORY + "/"):
            real = self._user_directory / path[len(USER_DIRECTORY) :].lstrip("/")
        if self._confined and not real.resolve().is_relative_to(self._user_directory.resolve()):
            raise CommandError(FILES, f"{path} is outside of the user directory")
        return real
