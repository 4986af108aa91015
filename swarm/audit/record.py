"""The record of one training, as a file: what is in it, and how it is made.

A record is for people outside of the swarm, years later. It holds evidence and a summary. The
summary says nothing that does not follow from the evidence (`derive.py`), the evidence nothing that
was not certified by the validators and signed by the members themselves (`evidence.py`).
`docs/reference/record.md` describes the format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from swarm.audit import derive, evidence
from swarm.audit.replay import Replay, Step
from swarm.audit.sources import Pair, Source
from swarm.audit.verify import WRONG
from swarm.errors import LocalError, RemoteError
from swarm.ledger import merkle
from swarm.ledger.block import Block, verdict_leaf
from swarm.ledger.state.proof import RecordProof
from swarm.ledger.transaction import SignedTransaction

FORMAT = "swarm-record-1"
UNREADABLE = "SW3202"
UNKNOWN = "SW3206"
ENDS = ("contract.reset", "contract.delete")  # of a training
MAX_FILE = 1 << 30  # bytes

Json = dict[str, Any]


def export(source: Source, contract: str, *, until: int | None = None) -> Json:
    """The record of the last training of a contract in which a round was decided.

    A reset begins another training, and so does the deletion of the contract. `until` is the height
    at which to stop reading, for an earlier one.

    Raises LocalError: SW3201 when the ledger itself is wrong, SW3206 when no round was decided,
    SW3202 when another network does the ordering, as no certificates prove its blocks.
    """
    if source.genesis.order is not None:
        raise LocalError(UNREADABLE, "blocks that another network orders have no certificates")
    collected = _Collector(source, contract, until)
    record: Json = {"format": FORMAT, "contract": contract, "evidence": collected.evidence()}
    authorities = collected.replay.app.state.cas()
    record["summary"] = _summary(record, authorities)
    return record


def check(record: Json, authorities: Mapping[str, bytes]) -> Json:
    """Check a whole record against trusted CAs (fingerprint to DER); its summary.

    Raises LocalError SW3203 that says what does not hold.
    """
    if record.get("format") != FORMAT:
        raise LocalError(evidence.CODE, f"its format is not {FORMAT}")
    if set(record) != {"format", "contract", "evidence", "summary"}:
        raise LocalError(evidence.CODE, "it has other parts than its format says")
    summary = _summary(record, authorities)
    if record["summary"] != summary:
        raise LocalError(
            evidence.CODE, f"its summary does not follow: {_difference(record['summary'], summary)}"
        )
    return summary


def _summary(record: Json, authorities: Mapping[str, bytes]) -> Json:
    try:
        proven = evidence.check(record["evidence"], record["contract"], authorities)
        summary = derive.summary(proven)
    except RemoteError as error:
        raise LocalError(evidence.CODE, error.cause) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # Whoever makes up a swarm of his own can certify a state that no state machine made.
        raise LocalError(evidence.CODE, f"its states are malformed ({error!r:.200})") from None
    if proven.idle:
        raise LocalError(evidence.CODE, f"block {proven.idle[0]} is there for nothing")
    return summary


def _difference(told: Any, derived: Any, place: str = "") -> str:
    """Where two JSON values begin to differ."""
    if type(told) is dict and type(derived) is dict:
        for key in [*derived, *told]:
            if told.get(key) != derived.get(key):
                return _difference(told.get(key), derived.get(key), f"{place}/{key}")
    if type(told) is list and type(derived) is list and len(told) == len(derived):
        for number, (one, other) in enumerate(zip(told, derived, strict=True)):
            if one != other:
                return _difference(one, other, f"{place}/{number}")
    return f"{place} is {str(told)[:80]} there, and {str(derived)[:80]} by the evidence"


def write(record: Json, path: Path) -> None:
    """Write a record. Raises LocalError SW3202."""
    try:
        path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise LocalError(UNREADABLE, f"{path}: {error.strerror}") from error


def read(path: Path) -> Json:
    """Read a record; nothing in it is checked. Raises LocalError SW3202."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise LocalError(UNREADABLE, f"{path} has more than {MAX_FILE} bytes")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise LocalError(UNREADABLE, f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LocalError(UNREADABLE, f"{path} is not JSON: {error}") from None
    if type(value) is not dict:
        raise LocalError(UNREADABLE, f"{path} is no record")
    return value


@dataclass
class _Training:
    """What proves one training: from the contract's creation or reset to its end."""

    acts: list[Json] = field(default_factory=list)
    states: list[tuple[int, RecordProof]] = field(default_factory=list)
    used: dict[int, Json] = field(default_factory=dict)  # blocks, by height

    def act(self, step: Step, index: int) -> None:
        self.acts.append(_act(step, index))
        self.used[step.block.height] = _block(step)

    def prove(self, step: Step, table: str, contract: str) -> None:
        height = step.block.height
        if not any(at == height and proof.table == table for at, proof in self.states):
            self.states.append((height, step.after.state.prove(table, contract)))
            self.used[height] = _block(step)

    def end(self, step: Step, contract: str) -> None:
        """The last block that counts is this one."""
        height = step.block.height
        self.acts = [act for act in self.acts if act["height"] <= height]
        self.used = {at: used for at, used in self.used.items() if at <= height}
        self.prove(step, "contracts", contract)
        self.prove(step, "schemas", contract)


class _Collector:
    """Goes through a ledger and keeps what proves one contract's last training with a result."""

    def __init__(self, source: Source, contract: str, until: int | None) -> None:
        self._source = source
        self._contract = contract
        accepted = {name.block_id for name in source.recoveries}
        self.replay = Replay(source.genesis, accepted)
        self._light: dict[int, Json] = {}  # blocks in which the validators change
        self._present = _Training()
        self._ended: _Training | None = None
        last: Step | None = None
        for pair in islice(source.pairs(), until):
            step = self._take(pair)
            self._look(step, last)
            last = step
        if self._present.states and last is not None:
            self._present.end(last, contract)
            self._ended = self._present
        if self._ended is None:
            known = self.replay.app.state.get("contracts", contract)
            what = "no round was decided in" if known else "there is no contract"
            raise LocalError(UNKNOWN, f"{what} {contract}")
        self._training = self._ended

    def _take(self, pair: Pair) -> Step:
        height = self.replay.app.height + 1
        try:
            step = self.replay.take(pair)
        except RemoteError as error:
            raise LocalError(WRONG, f"height {height}: {error.cause}") from None
        if step.after.validators() != step.before.validators():
            self._light[height] = _block(step)
        return step

    def _look(self, step: Step, before: Step | None) -> None:
        for index, verdict in enumerate(step.outcome.verdicts):
            if not verdict.ok:
                continue
            transaction = SignedTransaction.decode(step.block.transactions[index]).transaction
            if transaction.args.get("contract") != self._contract:
                continue
            if transaction.op in ENDS:
                if self._present.states and before is not None:
                    self._present.end(before, self._contract)
                    self._ended = self._present
                self._present = _Training()
            elif transaction.op in evidence.ACTS:
                self._present.act(step, index)
        found = step.after.state.get("contracts", self._contract)
        if found and found["last"] and found["last"]["height"] == step.block.height:
            self._present.prove(step, "contracts", self._contract)

    def evidence(self) -> Json:
        """As JSON; bytes are hexadecimal."""
        training = self._training
        last = max(training.used)
        light = {height: block for height, block in self._light.items() if height < last}
        blocks = {**light, **training.used}
        return {
            "genesis": self._source.genesis.encode().hex(),
            "blocks": [blocks[height] for height in sorted(blocks)],
            "acts": training.acts,
            "states": [_state(height, proof) for height, proof in training.states],
        }


def _block(step: Step) -> Json:
    assert step.certificate is not None, "checked before the export began"
    told: Json = {"header": step.block.header.encode().hex()}
    if step.recovery is not None:
        told = {"recovery": step.block.encoded.hex()}
    told["certificate"] = step.certificate.encode().hex()
    following = step.after.validators()
    if following != step.before.validators():
        told["next_validators"] = [[v.uid, v.public_key_der.hex()] for v in following]
    return told


def _act(step: Step, index: int) -> Json:
    block: Block = step.block
    verdicts = [verdict_leaf(verdict) for verdict in step.outcome.verdicts]
    return {
        "height": block.height,
        "index": index,
        "transaction": block.transactions[index].hex(),
        "inclusion": list(_hex(merkle.proof(block.transactions, index))),
        "acceptance": list(_hex(merkle.proof(verdicts, index))),
    }


def _state(height: int, proof: RecordProof) -> Json:
    return {
        "height": height,
        "table": proof.table,
        "record": proof.record.hex(),
        "bucket": {name: digest.hex() for name, digest in proof.bucket.items()},
        "path": list(_hex(proof.path)),
        "tables": [[name, digest.hex()] for name, digest in proof.tables],
    }


def _hex(items: list[bytes] | tuple[bytes, ...]) -> Iterator[str]:
    return (item.hex() for item in items)
