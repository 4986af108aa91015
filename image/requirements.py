"""Print what a wheel and its `node` extra require, one requirement a line, for pip."""

from __future__ import annotations

import email
import re
import sys
import zipfile

EXTRA = re.compile(r"""\s*(?:and\s+)?extra\s*==\s*["']([^"']+)["']""")


def requirements(wheel: str) -> list[str]:
    """Requirements of the base install and of `node`, other markers kept, sorted."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(item for item in archive.namelist() if item.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    chosen = []
    for line in metadata.get_all("Requires-Dist") or ():
        extra = EXTRA.search(line)
        if extra is None or extra.group(1) == "node":
            chosen.append(EXTRA.sub("", line).rstrip("; "))
    return sorted(chosen)


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1])))
