"""Imported by every Python of the node's image as it starts: see `image/node.Dockerfile`.

The first process of a container ignores signals for which it has no handler. A node installs its
own as soon as it can, but `docker stop` in the second before would wait out its patience and kill.
"""

import os

if os.getpid() == 1:
    import signal

    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
