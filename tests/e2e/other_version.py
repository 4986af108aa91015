"""Runs a node as if it were of another version: `python -m tests.e2e.other_version MODULE [what…]`.

`what` are the protocols in which it differs: `api`, `mesh`.
"""

from __future__ import annotations

import runpy
import sys

from swarm.api import models

OTHER = 99


def differ(what: str) -> None:
    """Before anything else imports the number."""
    if what == "api":
        models.PROTOCOL = OTHER
    else:
        from swarm.mesh import mesh

        mesh.PROTOCOL_VERSION = OTHER


if __name__ == "__main__":
    module, *differences = sys.argv[1:]
    for difference in differences:
        differ(difference)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
