"""`python -m swop.filling`: fills volumes for a MAKE_SWARM_USER_CONTENT task.

A process of its own, as it reads what strangers wrote: in a container without privileges under
DOCKER, as a child with the programs' user under PROCESS. It is given a job as JSON in the variable
JOB, and prints one JSON object a line: `{"say": text}` while it works, then `{"done": text}` or
`{"error": [code, cause]}`.

The first volume is filled step by step; the others become copies of it. It never cleans up: whoever
started it drops the volumes of a job that failed, and only then are they anybody's to see.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swarm.errors import LocalError
from swop.fetching import CHUNK, Access, fetch
from swop.reach import Reach
from swop.tree import Tree
from swop.unpacking import unpack

JOB = "SWARM_CONTENT_JOB"
MIN_FREE = 1 << 30  # bytes that must stay free on the volume's disk
LOOK_EVERY = 64 << 20  # bytes between two looks at what is free
MEMORY = 1 << 30  # bytes of address space for this process


@dataclass(frozen=True)
class Step:
    """One entry of the task's OpsList."""

    operation: str  # DOWNLOAD or EXTRACT
    target: str
    out: str = ""
    sha256: str = ""

    @property
    def is_fetched(self) -> bool:
        """Does the target come from elsewhere? Else it is a path in the volume."""
        return "://" in self.target


@dataclass(frozen=True)
class Job:
    """Everything that the filling process is told."""

    steps: tuple[Step, ...]
    volumes: tuple[str, ...]  # paths of empty directories
    access: Access
    max_bytes: int
    seconds: int = 3600  # then it ends by itself, as whoever started it may be gone
    lifeline: bool = False  # end when standard input ends: whoever started us is gone

    def to_json(self) -> str:
        access = self.access
        value = {
            "steps": [asdict(step) for step in self.steps],
            "volumes": list(self.volumes),
            "access": {
                "reach": access.reach.as_dict(),
                "files": access.files,
                "files_seen_at": access.files_seen_at,
                "proxies": dict(access.proxies),
            },
            "max_bytes": self.max_bytes,
            "seconds": self.seconds,
            "lifeline": self.lifeline,
        }
        return json.dumps(value)

    @classmethod
    def from_json(cls, text: str) -> Job:
        value: Mapping[str, Any] = json.loads(text)
        access = {**value["access"], "reach": Reach.from_dict(value["access"]["reach"])}
        return cls(
            steps=tuple(Step(**step) for step in value["steps"]),
            volumes=tuple(value["volumes"]),
            access=Access(**access),
            max_bytes=value["max_bytes"],
            seconds=value["seconds"],
            lifeline=value["lifeline"],
        )


class DiskMeter:
    """Counts what a job writes, against its limit and what the disk has left."""

    def __init__(self, at: Path, limit: int) -> None:
        self._at = at
        self._limit = limit
        self._used = 0
        self._looked_at = 0

    def add(self, count: int) -> None:
        self._used += count
        self.expect(0)
        if abs(self._used - self._looked_at) >= LOOK_EVERY:
            self._looked_at = self._used
            self._look(0)

    def expect(self, count: int) -> None:
        """Refuse early what announces that it will be too much."""
        if self._used + count > self._limit:
            cause = f"the task brings more than {self._limit} bytes (SWOP_CONTENT_MAX_BYTES)"
            raise LocalError("SW7025", cause)
        if count > LOOK_EVERY:
            self._look(count)

    def _look(self, count: int) -> None:
        disk = os.statvfs(self._at)
        free = disk.f_bavail * disk.f_frsize
        if free - count < MIN_FREE:
            raise LocalError("SW7025", f"only {free} bytes are free on this host's disk")


def fill(job: Job, say: Callable[[str], None]) -> str:
    """Do the job; returns a sentence on the result. LocalError SW7021 to SW7025."""
    first, *others = (Path(volume) for volume in job.volumes)
    meter = DiskMeter(first, job.max_bytes)
    try:
        with Tree(first) as tree:
            for number, step in enumerate(job.steps, 1):
                done = _do(step, tree, job.access, meter)
                say(f"{number} of {len(job.steps)}: {step.operation} {step.target}: {done}")
            tree.check_links("the content")
        for number, other in enumerate(others, 2):
            copy(first, other, meter)
            say(f"volume {number} of {len(job.volumes)} copied")
    except OSError as error:
        raise LocalError("SW7025", f"the disk refused: {error.strerror or error}") from error
    files, size = measure(first)
    return f"{files} files, {size} bytes"


def _do(step: Step, tree: Tree, access: Access, meter: DiskMeter) -> str:
    if step.operation == "DOWNLOAD":
        out = where(step)
        with tree.create(out, "Out") as file:
            size = fetch(step.target, file, access, meter, step.sha256)
        return f"{size} bytes in {out}"
    if not step.is_fetched:
        with tree.open(step.target.lstrip("/"), "Target") as archive:
            size = os.fstat(archive.fileno()).st_size
            return unpack(archive, size, tree, step.out.strip("/"), meter).entries
    # Without a name, so that nothing of it can stay.
    with tempfile.TemporaryFile(dir=tree.root) as archive:
        size = fetch(step.target, archive, access, meter, step.sha256)
        archive.seek(0)
        return unpack(archive, size, tree, step.out.strip("/"), meter).entries


def where(step: Step) -> str:
    """Path of a downloaded file: as Out says; a directory, or nothing, takes the address's name."""
    name = urllib.parse.unquote(urllib.parse.urlsplit(step.target).path).rpartition("/")[2]
    out = step.out.lstrip("/")
    if out and not out.endswith("/"):
        return out
    if not name or name in (".", "..") or "\0" in name:
        raise LocalError("SW7013", f"{step.target} names no file, so Out has to")
    return out + name


def copy(source: Path, target: Path, meter: DiskMeter) -> None:
    """Copy what `fill` made into an empty directory: links stay links, hard ones included."""
    known: dict[tuple[int, int], Path] = {}
    for directory, names, files in os.walk(source):
        here = target / Path(directory).relative_to(source)
        for name in (*names, *files):
            path, new = Path(directory, name), here / name
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode):
                new.symlink_to(path.readlink())
            elif stat.S_ISDIR(found.st_mode):
                new.mkdir(mode=0o755)
            elif (twin := known.get((found.st_dev, found.st_ino))) is not None:
                new.hardlink_to(twin)
            else:
                meter.add(found.st_size)
                shutil.copyfile(path, new)
                new.chmod(stat.S_IMODE(found.st_mode))
                if found.st_nlink > 1:
                    known[found.st_dev, found.st_ino] = new


def measure(directory: Path) -> tuple[int, int]:
    """Files below a directory and their bytes."""
    count = size = 0
    for path, _, files in os.walk(directory):
        count += len(files)
        size += sum(Path(path, name).lstat().st_size for name in files)
    return count, size


# ------------------------------------------------------------------ the process


def main(environment: Mapping[str, str]) -> int:
    """Do the job of the environment; the exit status is 0 when it is done."""
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    job = Job.from_json(environment[JOB])
    end = threading.Timer(job.seconds, os._exit, (1,))
    end.daemon = True
    end.start()
    if job.lifeline:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _print({"done": fill(job, lambda text: _print({"say": text}))})
    except LocalError as fault:
        _print({"error": [fault.code, fault.cause]})
        return 1
    except MemoryError:
        _print({"error": ["SW7025", f"it takes more than {MEMORY} bytes of memory"]})
        return 1
    return 0


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), CHUNK):
        continue
    os._exit(1)


def _print(message: Mapping[str, str | Sequence[str]]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main(os.environ))
