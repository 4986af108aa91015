"""How fast an outsider checks a ledger: `python -m benchmarks.bench_verify [--blocks N]`.

Makes a ledger of four network nodes with P-256 certificates in this process, ten transactions in a
block, and verifies its export. One JSON line; CPU seconds do not depend on what else runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from swarm.audit.sources import Export, write_export
from swarm.audit.verify import verify

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import pki
from tests.audit.history import History


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--transactions", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        history = History(directory)
        history.found()
        operators = [
            pki.identity(directory / f"swci-{n}", "SWCI", history.authorities[0], name=str(n))
            for n in range(args.transactions)
        ]
        about = {"type": "RUN_SWARM", "author": "A", "prereq": "ROOTTASK", "outcome": "o"}
        for number in range(args.blocks):
            names = [f"t-{number}-{place}" for place in range(args.transactions)]
            history.commit(
                *(
                    history.sign(operator, "task.create", {"name": task, **about})
                    for operator, task in zip(operators, names, strict=True)
                )
            )
        path = directory / "export"
        write_export(path, history.genesis, (), history.pairs)
        size, trusted = path.stat().st_size, history.sns[0].trust.ca_ders
        del history
        _forget_signatures()
        began, cpu = time.perf_counter(), time.process_time()
        summary = verify(Export(path), trusted)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    line = {
        "what": "ledger verify",
        "blocks": summary.height,
        "transactions": summary.transactions,
        "signatures": summary.signatures,
        "bytes": size,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "blocks_per_cpu_second": round(summary.height / cpu),
        "transactions_per_cpu_second": round(summary.transactions / cpu),
    }
    print(json.dumps(line))


def _forget_signatures() -> None:
    """What this process found out while it made the ledger must not help to verify it."""
    from swarm.ledger import application

    application._parsed._items.clear()


if __name__ == "__main__":
    main()
