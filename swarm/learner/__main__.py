"""`python -m swarm.learner`: the SL daemon. Configured by its environment, see `settings`.

Exit status: 0 after the program's bye, or a stop signal while there was no program; 1 when it could
not start, 3 after a stop signal in the middle of a training, 4 when something is wrong that only
people can repair.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from swarm import inherited
from swarm import log as logs
from swarm.api.client import ApiClient
from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, Role
from swarm.identity.live import follow
from swarm.learner.learner import Learner
from swarm.learner.settings import Settings

M_ARENA_MAX = -8  # <malloc.h>
MADV_DONTNEED = 4  # <sys/mman.h>
# A head line of /proc/self/smaps; there is a path where a file is mapped that is not written to.
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (?:r-[x-]p \S+ \S+ \S+ +(/.*)|[rwxsp-]{4} )")

log = logging.getLogger("swarm.learner")


def main() -> int:
    """Run the learner that the environment describes."""
    spare_memory()
    give_way()
    try:
        logs.configure(logs.level_from(os.environ, "SL"))
        inherited.tell(os.environ, "SL")
        settings = Settings.from_env()
        data = os.environ.get("SWARM_DATA_DIR")
        identity = Identity.from_env(os.environ, Role.SL, Path(data) if data else None)
        client = ApiClient(identity, [(settings.sn_host, settings.sn_port)])
        learner = Learner(settings, identity, client, version())
        follow(identity, client.audit, learner.audit)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: learner.stop())
        return learner.run()
    except (LocalError, RemoteError) as fault:
        log.error("%s", fault)
        return 1


def spare_memory() -> None:
    """Let glibc's allocator use two arenas, as one for each thread would cost megabytes, and give
    back what the imports have left; nor does the collector look at their objects again.

    Without this a learner is 5 to 12 MB larger, depending on how the system caches its libraries.
    """
    gc.collect()
    gc.freeze()
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # other C libraries have no arenas
        library.mallopt(M_ARENA_MAX, 2)
        library.malloc_trim(0)
    for start, length in unchanged_mappings():
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), MADV_DONTNEED)


def unchanged_mappings() -> Iterator[tuple[int, int]]:
    """Start and length of parts of files that are mapped here and hold nothing but the file.

    Libraries above all, of which imports have touched much that is not needed again. What is given
    back is read from the file when it is touched.
    """
    try:
        lines = Path("/proc/self/smaps").read_text().splitlines()
    except OSError:  # another system
        return
    span = (0, 0)
    for line in lines:
        mapping = _MAPPING.match(line)
        if mapping:
            start, stop = int(mapping[1], 16), int(mapping[2], 16)
            span = (start, stop - start) if mapping[3] else (0, 0)
        elif span[1] and line.split() == ["Anonymous:", "0", "kB"]:
            yield span


def give_way() -> None:
    """Tell Linux that this process works in bulk (SCHED_BATCH, sched(7)); its threads inherit it.

    A network node or a program that wakes up for a moment, for which learners may well be waiting,
    then gets its turn at once and not after a learner's slice.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):  # where a container forbids it, it is slower
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def version() -> str:
    """Version of the installed distribution."""
    try:
        return metadata.version("swarmlearning")
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
