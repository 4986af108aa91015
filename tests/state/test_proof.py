"""A record is proven against the state's digest, and nothing else is."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import RemoteError
from swarm.ledger import merkle
from swarm.ledger.state import State
from swarm.ledger.state.digest import state_digest
from swarm.ledger.state.proof import RecordProof, prove
from swarm.ledger.state.table import BUCKETS, Table
from tests.state.world import genesis

CHAIN = b"c" * 32


def table_of(count: int) -> Table:
    return Table().updated({f"name {n}": {"value": n} for n in range(count)})


def proof_of(table: Table, key: str) -> tuple[RecordProof, bytes]:
    tables = (("others", b"o" * 32), ("things", table.digest))
    return prove(table, "things", key, tables), state_digest(CHAIN, 7, tables)


def test_a_tables_digest_is_the_merkle_root_over_its_buckets() -> None:
    for table in (Table(), table_of(1), table_of(300), table_of(300).updated({"name 5": None})):
        assert table.digest == merkle.root([bucket.digest for bucket in table._buckets])


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=60))
def test_it_does_not_depend_on_history(steps: list[tuple[int, bool]]) -> None:
    table, kept = Table(), {}
    for number, there in steps:
        key = f"name {number}"
        table = table.updated({key: {"value": number} if there else None})
        kept[key] = there
    direct = Table().updated({k: {"value": int(k[5:])} for k, there in kept.items() if there})
    assert table.digest == direct.digest


@pytest.mark.parametrize("count", [1, 2, 300, 2000])
def test_every_record_is_proven(count: int) -> None:
    table = table_of(count)
    for number in range(0, count, 7):
        proof, digest = proof_of(table, f"name {number}")
        assert len(proof.path) == BUCKETS.bit_length() - 1
        assert proof.check(CHAIN, 7, digest) == {"value": number}


def test_a_record_that_is_not_there_has_no_proof() -> None:
    with pytest.raises(KeyError):
        proof_of(table_of(3), "name 4")


def test_anything_altered_is_refused() -> None:
    proof, digest = proof_of(table_of(2000), "name 4")
    other = dict.fromkeys(proof.bucket, b"x" * 32)
    wrong = [
        dataclasses.replace(proof, record=proof.record + b"\x00"),
        dataclasses.replace(proof, key=next(k for k in proof.bucket if k != proof.key)),
        dataclasses.replace(proof, key="name 5"),
        dataclasses.replace(proof, table="others"),
        dataclasses.replace(proof, bucket={**other, proof.key: proof.bucket[proof.key]}),
        dataclasses.replace(proof, path=proof.path[1:]),
        dataclasses.replace(proof, path=(b"x" * 32, *proof.path[1:])),
        dataclasses.replace(proof, tables=proof.tables[::-1]),
        dataclasses.replace(proof, tables=(*proof.tables, proof.tables[0])),
    ]
    for altered in wrong:
        with pytest.raises(RemoteError):
            altered.check(CHAIN, 7, digest)
    for chain, height, state in [(b"d" * 32, 7, digest), (CHAIN, 8, digest), (CHAIN, 7, b"")]:
        with pytest.raises(RemoteError):
            proof.check(chain, height, state)


def test_a_state_proves_its_records() -> None:
    state = State.genesis(genesis())
    proof = state.prove("meta", "settings")
    assert proof.check(state.chain, 0, state.digest()) == state.get("meta", "settings")
