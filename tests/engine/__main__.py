"""`python -m tests.engine`: leave a Docker engine running, or say why not (status 1)."""

from __future__ import annotations

import sys

from tests.engine.up import ensure

if __name__ == "__main__":
    reason = ensure()
    print(reason or "A Docker engine is running.", file=sys.stderr if reason else sys.stdout)
    sys.exit(1 if reason else 0)
