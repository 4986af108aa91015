"""`python -m sentinel`: a network node, configured by its environment (see `sentinel.settings`)."""

from __future__ import annotations

import logging
import os
import signal
import sys

from sentinel.settings import Settings
from swarm import inherited
from swarm import log as logs
from swarm.errors import LocalError
from swarm.identity import Identity, Role, node_uid

log = logging.getLogger("swarm.node")


def main() -> int:
    """Run the node; returns the exit status: 0 after a signal, 1 after a mistake of its user."""
    # Until the node has its own receiver, a signal ends the process at once and quietly.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        logs.configure(logs.level_from(os.environ, "SN"))
        inherited.tell(os.environ, "SN")
        settings = Settings.from_env(os.environ)
        identity = Identity.from_env(os.environ, role=Role.SN, keys=settings.data_dir)
    except LocalError as fault:
        log.error("%s", fault)
        return 1
    role = "the sentinel network node" if settings.is_sentinel else "a network node"
    log.info("This is %s %s (%s)", role, settings.name, node_uid(identity.fingerprint))
    return _run(settings, identity)


def _run(settings: Settings, identity: Identity) -> int:
    # Everything from here on takes a second to import: the user sees the lines above first.
    import trio

    from sentinel.groups import leaves
    from sentinel.node import NetworkNode

    try:
        trio.run(NetworkNode(settings, identity).run)
    except BaseException as fault:
        causes = list(leaves(fault))
        known = [cause for cause in causes if isinstance(cause, LocalError)]
        if not known:
            raise
        for cause in known:
            log.error("%s", cause)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
