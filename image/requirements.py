"""Print what a wheel and some of its extras require, one requirement a line, for pip.

requirements.py WHEEL EXTRA…
"""

from __future__ import annotations

import email
import re
import sys
import zipfile
from collections.abc import Collection

EXTRA = re.compile(r"""\s*(?:and\s+)?extra\s*==\s*["']([^"']+)["']""")


def requirements(wheel: str, extras: Collection[str]) -> list[str]:
    """Requirements of the base install and of `extras`, other markers kept, sorted."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(item for item in archive.namelist() if item.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    chosen = []
    for line in metadata.get_all("Requires-Dist") or ():
        extra = EXTRA.search(line)
        if extra is None or extra.group(1) in extras:
            chosen.append(EXTRA.sub("", line).rstrip("; "))
    return sorted(chosen)


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1], sys.argv[2:])))
