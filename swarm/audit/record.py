"""The record of one training, as a file: what is in it, and how it is made.

A record is for people outside of the swarm, years later. It holds evidence and a summary. The
summary says nothing that does not follow from the evidence (`derive.py`), the evidence nothing that
was not certified by the validators and signed by the members themselves (`evidence.py`).
`docs/reference/record.md` describes the format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swarm.audit import derive, evidence
from swarm.audit.replay import Replay, Step
from swarm.audit.sources import Source
from swarm.audit.verify import WRONG
from swarm.errors import LocalError, RemoteError
from swarm.ledger import merkle
from swarm.ledger.block import Block, validators_hash, verdict_leaf
from swarm.ledger.state.proof import RecordProof
from swarm.ledger.transaction import SignedTransaction

FORMAT = "swarm-record-1"
UNREADABLE = "SW3202"
UNKNOWN = "SW3206"
MAX_FILE = 1 << 30  # bytes

Json = dict[str, Any]


def export(source: Source, contract: str) -> Json:
    """The record of a contract's training, as far as the source has it.

    Raises LocalError: SW3201 when the ledger itself is wrong, SW3206 when no round was decided,
    SW3202 when another network does the ordering, as no certificates prove its blocks.
    """
    if source.genesis.order is not None:
        raise LocalError(UNREADABLE, "blocks that another network orders have no certificates")
    collected = _Collector(source, contract)
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


class _Collector:
    """Goes through a ledger and keeps what proves one contract's training."""

    def __init__(self, source: Source, contract: str) -> None:
        self._source = source
        self._contract = contract
        accepted = {name.block_id for name in source.recoveries}
        self.replay = Replay(source.genesis, accepted)
        self._light: dict[int, Step] = {}  # blocks in which the validators change
        self._used: dict[int, Step] = {}
        self._acts: list[Json] = []
        self._states: list[RecordProof] = []
        self._heights: list[int] = []
        last = self._go_through()
        state = self.replay.app.state
        found = state.get("contracts", contract)
        if found is None or found["last"] is None or last is None:
            what = "no round was decided in" if found else "there is no contract"
            raise LocalError(UNKNOWN, f"{what} {contract}")
        self._prove(last, "contracts")
        self._prove(last, "schemas")

    def _go_through(self) -> Step | None:
        step = None
        validators = validators_hash(self.replay.app.validators())
        for pair in self._source.pairs():
            height = self.replay.app.height + 1
            try:
                step = self.replay.take(pair)
            except RemoteError as error:
                raise LocalError(WRONG, f"height {height}: {error.cause}") from None
            following = step.block.header.effect.next_validators
            if following != validators:
                validators = following
                self._light[height] = step
            self._look(step)
        return step

    def _look(self, step: Step) -> None:
        for index, verdict in enumerate(step.outcome.verdicts):
            if not verdict.ok:
                continue
            transaction = SignedTransaction.decode(step.block.transactions[index]).transaction
            if transaction.args.get("contract") != self._contract:
                continue
            if transaction.op == "contract.reset":
                self._forget()
            elif transaction.op in evidence.ACTS:
                self._acts.append(_act(step, index))
                self._used[step.block.height] = step
        found = step.after.state.get("contracts", self._contract)
        if found and found["last"] and found["last"]["height"] == step.block.height:
            self._prove(step, "contracts")

    def _forget(self) -> None:
        """The contract was reset: what was before is another training."""
        for kept in (self._acts, self._states, self._heights):
            kept.clear()
        self._used.clear()

    def _prove(self, step: Step, table: str) -> None:
        height = step.block.height
        if height in self._heights and self._states[self._heights.index(height)].table == table:
            return  # the ledger ends with the block that decided the last round
        self._states.append(step.after.state.prove(table, self._contract))
        self._heights.append(height)
        self._used[height] = step

    def evidence(self) -> Json:
        """As JSON; bytes are hexadecimal."""
        steps = {**self._light, **self._used}
        return {
            "genesis": self._source.genesis.encode().hex(),
            "blocks": [self._block(steps[height]) for height in sorted(steps)],
            "acts": self._acts,
            "states": [
                _state(height, proof)
                for height, proof in zip(self._heights, self._states, strict=True)
            ],
        }

    def _block(self, step: Step) -> Json:
        assert step.certificate is not None, "checked before the export began"
        told: Json = {"header": step.block.header.encode().hex()}
        if step.recovery is not None:
            told = {"recovery": step.block.encoded.hex()}
        told["certificate"] = step.certificate.encode().hex()
        if step.block.height in self._light:
            told["next_validators"] = [
                [v.uid, v.public_key_der.hex()] for v in step.after.validators()
            ]
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
