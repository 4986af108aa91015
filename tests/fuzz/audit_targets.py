"""Parsers of what a reader of records is given, and of what an Ethereum end point answers."""

from __future__ import annotations

import copy
import io
import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from swarm.audit import model, record
from swarm.audit.sources import MAGIC, Export
from swarm.errors import LocalError, RemoteError
from swarm.identity.trust import TrustStore
from swarm.ledger import codec
from swarm.ledger.ethereum import contract, entries, follower
from tests.fuzz.ledger_targets import block, certificate, genesis
from tests.fuzz.source import Source, join, split
from tests.fuzz.target import Target

VECTOR = Path(__file__).parents[1] / "audit" / "vectors"


@lru_cache(maxsize=1)
def vector() -> Any:
    """A record that holds, and the authorities that it holds for."""
    told = json.loads((VECTOR / "record.json").read_bytes())
    return told, TrustStore(capath=VECTOR / "ca").ca_ders


def run_record(data: bytes) -> None:
    """A record with some of its values replaced: all of it is covered by signatures or hashes."""
    source = Source(data)
    whole, authorities = vector()
    told = copy.deepcopy(whole)
    for _ in range(1 + source.byte() % 3):
        _replace(told, source)
    if told != whole:
        record.check(told, authorities)
        raise AssertionError("an altered record was accepted")


def _replace(value: Any, source: Source) -> None:
    """Put something else in the place of some value inside."""
    while True:
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        if not keys:
            return
        key = keys[(source.byte() << 8 | source.byte()) % len(keys)]
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or source.byte() % 8 == 0:
            break
        value = inner
    new = source.value([inner, value, key, -1, "00" * 32])
    value[key] = new.hex() if isinstance(new, bytes) else new


def run_record_file(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "record.json"
        path.write_bytes(data)
        record.check(record.read(path), {})


def run_export(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "export"
        path.write_bytes(data)
        list(Export(path).pairs())


def exports() -> list[bytes]:
    parts = [
        codec.encode(["genesis", genesis().encode(), []]),
        codec.encode(["block", block().encoded, certificate().encode()]),
        codec.encode(["end", 1, block().id]),
    ]
    framed = [len(part).to_bytes(4, "big") + part for part in parts]
    return [MAGIC + b"".join(framed), MAGIC + b"".join(framed[:2])]


def run_weights(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "weights"
        path.write_bytes(data)
        model.read_npz(path)


def weights() -> list[bytes]:
    stream = io.BytesIO()
    np.savez(stream, np.zeros((2, 2), "float32"), np.zeros(3, "int64"))
    packed = io.BytesIO()
    np.savez_compressed(packed, np.zeros(50, "float32"))
    return [stream.getvalue(), packed.getvalue()]


def run_appended(data: bytes) -> None:
    """An event of the contract, and the entry in it."""
    *topics, content = split(data) or [b""]
    entries.unpack(contract.parse_appended(topics, content).data)


def appended() -> list[bytes]:
    word = (2).to_bytes(32, "big")
    entry = next(entries.pack([(b"i" * 32, b"transaction")]))[1]
    head = word + (64).to_bytes(32, "big") + len(entry).to_bytes(32, "big")
    return [join([contract.APPENDED, word, word, head + entry])]


def run_position(data: bytes) -> None:
    assert follower.Position.decode(data).encode() == data


LOCAL, REMOTE = (LocalError,), (RemoteError,)
TARGETS = (
    Target("record", "altered records", run_record, LOCAL,
           lambda: [bytes([n]) * 9 for n in range(40)]),
    Target("record-file", "files of records", run_record_file, LOCAL, lambda: [b'{"format": 1}']),
    Target("export", "exported ledgers", run_export, (LocalError, RemoteError), exports),
    Target("weights", "files of weights", run_weights, LOCAL, weights),
    Target("appended", "events of the contract", run_appended, REMOTE, appended),
    Target("position", "a stored position", run_position, REMOTE,
           lambda: [follower.Position.before(7).encode()]),
)  # fmt: skip
