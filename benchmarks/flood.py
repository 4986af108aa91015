"""A member that floods the network nodes, for `bench_ledger.py`; prints one JSON line.

    python benchmarks/flood.py CERT KEY CAPATH CHAIN HEIGHT KIND SECONDS HOST:PORT...

KIND is `valid` (transactions that are committed), or `garbage`: transactions with a signature that
does not fit, and bytes that are none. All connections send the next request as soon as the last one
is answered, whatever the answer, and come back when they are closed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.load import Source, request, requests
from swarm.identity import Identity

WIDTH = 24  # connections to each node
PREPARED = 3000  # requests; sent again from the start when they are used up


def garbage(valid: bytes) -> list[bytes]:
    """Requests that cost the reader as much as possible and lead to nothing."""
    body = valid.partition(b"\r\n\r\n")[2]
    made = []
    for number in range(PREPARED):
        forged = bytearray(body)
        if number % 2:
            # The transaction's id is in the first 100 bytes; the signature covers it.
            at = body.index(b"swarm-tx-1") + 50
            forged[at : at + 8] = os.urandom(8)
        else:
            forged = bytearray(os.urandom(len(body)))
        made.append(request(bytes(forged)))
    return made


def main() -> None:
    cert, key, capath, chain, height, kind, seconds, *nodes = sys.argv[1:]
    identity = Identity.load(Path(cert), Path(key), capath=Path(capath))
    addresses = [(host, int(port)) for host, _, port in (n.partition(":") for n in nodes)]
    lines = [{"task": "bench", "index": 2, "lines": [f"flood-{n}"]} for n in range(PREPARED)]
    made = requests(identity, bytes.fromhex(chain), int(height), "task.append", lines)
    if kind == "garbage":
        made = garbage(made[0])
    source = Source(identity, addresses, WIDTH, again=True)
    print("ready", flush=True)
    result = source.run(made, None, float(seconds), repeat=kind == "garbage")
    source.close()
    statuses = {str(status): count for status, count in sorted(result.statuses.items()) if count}
    line = {"answers": statuses, "seconds": round(result.seconds, 1), "cpu": round(result.cpu, 2)}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
