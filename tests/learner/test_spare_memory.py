"""What a learner gives back before it begins: nothing that is not in a file as well."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PROGRAM = """
    import ctypes, mmap, sys, tempfile
    import numpy as np
    from pathlib import Path
    from swarm.learner.__main__ import spare_memory, unchanged_mappings

    def mapped():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

    with tempfile.TemporaryFile() as file:
        file.write(bytes(4 * mmap.PAGESIZE))
        file.flush()
        changed, same = (mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) for _ in range(2))
    changed[0] = 7
    places = []
    for one in (changed, same):
        view = ctypes.c_char.from_buffer(one)
        places.append(ctypes.addressof(view))
        protect = ctypes.CDLL(None).mprotect  # as the linker does with what it has relocated
        assert protect(ctypes.c_void_p(places[-1]), ctypes.c_size_t(len(one)), 1) == 0
        del view
    given = [start for start, _ in unchanged_mappings()]
    assert places[1] in given and places[0] not in given
    before = mapped()
    spare_memory()
    assert mapped() < before / 2, (before, mapped())
    assert changed[0] == 7 and same[0] == 0
    assert np.dot(np.ones((9, 9)), np.ones((9, 9))).sum() == 729
"""


def test_what_is_in_files_is_given_back_and_the_rest_stays() -> None:
    program = textwrap.dedent(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
