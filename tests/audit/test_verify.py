"""`swarm ledger verify`, `export`: right ledgers pass, of wrong ones it is told what and where."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from swarm.audit import record
from swarm.audit.commands import export_ledger, verify_ledger
from swarm.audit.replay import Replay
from swarm.audit.sources import Export, Pair, open_source, write_export
from swarm.audit.verify import Summary, verify
from swarm.errors import LocalError, SwarmFault
from swarm.identity import node_uid
from swarm.ledger import directory
from swarm.ledger.block import PRECOMMIT, Block, Certificate
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus.statement import Statement
from swarm.ledger.genesis import EthereumOrder, Genesis
from swarm.ledger.recovery import Name
from tests import pki
from tests.audit.history import History


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    made = History(tmp_path_factory.mktemp("history"))
    made.found()
    made.round()
    return made


class Memory:
    """A source that holds what a test gives it."""

    def __init__(
        self, genesis: Genesis, pairs: list[Pair], recoveries: tuple[Name, ...] = ()
    ) -> None:
        self.genesis, self.recoveries, self._pairs = genesis, recoveries, pairs

    def pairs(self) -> Iterator[Pair]:
        return iter(self._pairs)


def check(history: History, pairs: list[Pair] | None = None, **more: Any) -> Summary:
    trusted = history.sns[0].trust.ca_ders
    source = Memory(history.genesis, history.pairs if pairs is None else pairs)
    return verify(source, trusted, **more)


def wrong(history: History, pairs: list[Pair], height: int, text: str) -> None:
    with pytest.raises(LocalError) as caught:
        check(history, pairs)
    assert caught.value.code == "SW3201"
    assert caught.value.cause.startswith(f"height {height}: "), caught.value.cause
    assert text in caught.value.cause


def exchanged(history: History, height: int, **parts: bytes) -> list[Pair]:
    pairs = list(history.pairs)
    pairs[height - 1] = pairs[height - 1]._replace(**parts)
    return pairs


def test_a_right_ledger_is_found_right(history: History) -> None:
    told: list[str] = []
    summary = check(history, say=told.append)
    assert summary.height == len(history.pairs)
    assert summary.digest == history.app.digest()
    assert (summary.transactions, summary.refused) == (18, 0)
    assert len(summary.members) == 7
    assert not (summary.recoveries or summary.evicted or summary.accused or summary.doubts)


def test_an_empty_ledger_is_right_and_proves_little(history: History) -> None:
    summary = check(history, [])
    assert summary.height == 0 and "founder has signed no transaction" in summary.lines()[-1]


def test_a_certificate_needs_a_quorum_of_its_own_height(history: History) -> None:
    """Of what a minority, former validators or strangers sign."""
    certificate = Certificate.decode(history.pairs[9].certificate)
    few = replace(certificate, signatures=certificate.signatures[:2])
    wrong(history, exchanged(history, 10, certificate=few.encode()), 10, "2 signatures where 3")
    founder = node_uid(history.sns[0].fingerprint)
    alone = replace(
        certificate, signatures=tuple(s for s in certificate.signatures if s[0] == founder)
    )
    wrong(history, exchanged(history, 10, certificate=alone.encode()), 10, "1 signatures where 3")
    early = replace(Certificate.decode(history.pairs[0].certificate), signatures=())
    wrong(history, exchanged(history, 1, certificate=early.encode()), 1, "0 signatures where 1")


def test_a_missing_exchanged_or_repeated_block_is_told(history: History) -> None:
    pairs = history.pairs
    wrong(history, pairs[:4] + pairs[5:], 5, "block 6 is where block 5 should be")
    wrong(history, [*pairs[:5], pairs[4], *pairs[5:]], 6, "block 5 is where block 6 should be")
    wrong(history, pairs[1:], 1, "block 2 is where block 1 should be")


def test_lies_about_what_comes_of_a_block_are_told_even_when_certified(history: History) -> None:
    """All validators together cannot make a state that the state machine does not come to."""
    tx = history.sign(history.sls[0], "contract.enroll", history.enrolment(0))
    _, done = history.next_block([tx])
    for part, text in [
        ("state", "another state"), ("results", "other verdicts"),
        ("next_validators", "other validators"),
    ]:  # fmt: skip
        effect = done.effect._replace(**{part: b"w" * 32})
        block, _ = history.next_block([tx], effect=effect)
        pair = Pair(block.encoded, history.certify(block).encode())
        wrong(history, [*history.pairs, pair], len(history.pairs) + 1, text)


def test_a_forged_replayed_or_foreign_transaction_is_told(history: History) -> None:
    height = len(history.pairs) + 1

    def told(txs: list[bytes], text: str) -> None:
        block, _ = history.next_block([history.blocks[0].transactions[0]])
        block = Block.make(
            chain=block.chain, height=height, previous=history.last_id, time_ms=1,
            proposer=block.header.proposer, transactions=txs, effect=block.header.effect,
        )  # fmt: skip
        pair = Pair(block.encoded, history.certify(block).encode())
        wrong(history, [*history.pairs, pair], height, text)

    told([history.blocks[0].transactions[0]], "transaction 0: node.enroll: its id was used")
    fresh = bytearray(history.sign(history.sls[0], "contract.enroll", history.enrolment(0)))
    fresh[-1] ^= 1
    told([bytes(fresh)], "transaction 0: signature")


def test_other_authorities_are_told(history: History) -> None:
    source = Memory(history.genesis, history.pairs)
    trusted = list(history.sns[0].trust.ca_ders)
    with pytest.raises(LocalError, match="height 0: the genesis names CA") as caught:
        verify(source, trusted[:1])
    assert caught.value.code == "SW3201"


def test_an_authority_that_members_admitted_later_must_be_known_too(tmp_path: Path) -> None:
    history = History(tmp_path, validators=1, learners=1)
    history.found()
    stranger = pki.authority(tmp_path / "elsewhere", 3)
    der = stranger.issued.certificate.public_bytes(Encoding.DER)
    history.must((history.sns[0], "ca.admit", {"der": der}))
    height = len(history.pairs)
    wrong(history, history.pairs, height, "the members admitted CA")
    stranger_too = [*history.sns[0].trust.ca_ders, hashlib.sha256(der).hexdigest()]
    summary = verify(Memory(history.genesis, history.pairs), stranger_too)
    assert summary.height == height


def test_expected_blocks_are_met_or_told(history: History) -> None:
    expected = {3: history.blocks[2].id, 9: history.blocks[8].id}
    assert check(history, expected=expected).anchors == 2
    for unmet, text in (({3: b"x" * 32}, "height 3: "), ({999: b"x" * 32}, "height 999: ")):
        with pytest.raises(LocalError) as caught:
            check(history, expected=unmet)
        assert text in str(caught.value)


def test_a_recovery_is_followed_when_it_was_accepted_and_told_loudly(tmp_path: Path) -> None:
    history = History(tmp_path, validators=4, learners=1)
    history.found()
    name = history.recover(history.sns[:2])
    history.must((history.sns[0], "node.enroll", {
        "host": "10.0.0.9", "port": 1, "p2p": [], "peer_id": "", "parent": "", "runner": "",
        "pairs": 0, "contract": "", "version": "", "uid_name": "", "type": "SN",
        "validator": True,
    }))  # fmt: skip
    trusted = history.sns[0].trust.ca_ders
    summary = verify(Memory(history.genesis, history.pairs, (name,)), trusted)
    assert [line for line in summary.lines() if line.startswith("RECOVERY") and "a fire" in line]
    wrong(history, history.pairs, name.height, "the network was recovered without 2 of its 4")
    with pytest.raises(LocalError, match="a recovery was accepted that is not in the ledger"):
        verify(Memory(history.genesis, history.pairs[: name.height - 1], (name,)), trusted)


def test_double_votes_and_evictions_are_told(tmp_path: Path) -> None:
    history = History(tmp_path, validators=4, learners=1)
    history.found()
    liar = history.sns[3]
    uid = node_uid(liar.fingerprint)

    def statement(block_id: bytes) -> bytes:
        bare = Statement(PRECOMMIT, 3, 0, -1, block_id, uid, b"")
        signature = liar.sign(bare.signed_bytes(history.genesis.chain_id))
        return replace(bare, signature=signature).encode()

    twice = {"first": statement(b"x" * 32), "second": statement(b"y" * 32)}
    history.must((history.sns[0], "node.accuse", twice))
    for authority in history.authorities:
        operator = pki.identity(
            tmp_path / f"swci-{authority.index}", "SWCI", authority, name=str(authority.index)
        )
        history.must((operator, "node.evict", {"uid": uid}))
    told = [line.split("  ")[0] for line in check(history).lines()]
    assert "DOUBLE VOTE" in told and "EVICTED" in told


def test_without_voting_all_but_the_order_is_checked(tmp_path: Path) -> None:
    order = EthereumOrder(31337, "0x" + "ab" * 20, 1, 1)
    history = History(tmp_path, validators=2, learners=1, order=order)
    history.found()
    summary = check(history)
    assert summary.height == len(history.pairs) and summary.certificates == 0
    assert "the order is that of contract 0xabab" in summary.lines()[-1]
    last = history.blocks[-1]
    assert check(history, expected={last.height: last.id}).anchors == 1
    signed = Certificate(2, 0, history.blocks[1].id, (("somebody", b"s"),))
    wrong(history, exchanged(history, 2, certificate=signed.encode()), 2, "nobody votes")
    with pytest.raises(LocalError, match="have no certificates"):
        record.export(Memory(history.genesis, history.pairs), "any")


# ---------------------------------------------------------------- exports and directories


def test_an_export_is_read_back(history: History, tmp_path: Path) -> None:
    path = tmp_path / "export"
    assert write_export(path, history.genesis, (), history.pairs) == len(history.pairs)
    assert list(Export(path).pairs()) == history.pairs
    assert Export(path).genesis == history.genesis
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_any_altered_byte_of_an_export_is_found(tmp_path: Path) -> None:
    """Each byte belongs to something that is hashed, signed or needed to read on."""
    history = History(tmp_path, validators=1, learners=1)
    history.must((history.sns[0], "node.enroll", {
        "host": "10.0.0.9", "port": 1, "p2p": [], "peer_id": "", "parent": "", "runner": "",
        "pairs": 0, "contract": "", "version": "", "uid_name": "", "type": "SN",
        "validator": True,
    }))  # fmt: skip
    path = tmp_path / "export"
    write_export(path, history.genesis, (), history.pairs)
    data = path.read_bytes()
    trusted = history.sns[0].trust.ca_ders
    verify(Export(path), trusted)
    rng = random.Random(7)
    unnoticed = []
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= 1 << rng.randrange(8)
        path.write_bytes(altered)
        try:
            verify(Export(path), trusted)
            unnoticed.append(place)
        except LocalError as error:
            assert error.code in ("SW3201", "SW3202")
    assert unnoticed == []


def test_a_cut_or_foreign_file_is_told(history: History, tmp_path: Path) -> None:
    path = tmp_path / "export"
    write_export(path, history.genesis, (), history.pairs)
    data = path.read_bytes()
    rng = random.Random(7)
    for size in [*range(20), *(rng.randrange(len(data)) for _ in range(30)), len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(SwarmFault):
            verify(open_source(path), history.sns[0].trust.ca_ders)
    path.write_bytes(data + b"\x00")
    with pytest.raises(LocalError, match="bytes after the end"):
        verify(open_source(path), history.sns[0].trust.ca_ders)
    with pytest.raises(LocalError, match="SW3202"):
        open_source(tmp_path / "absent")
    with pytest.raises(LocalError, match="SW3202"):
        open_source(tmp_path)


def kept(history: History, data_dir: Path) -> Any:
    """The ledger of `history` in a data directory; its open store."""
    directory.create(data_dir, history.genesis, founder=True)
    store, app = directory.open_store(data_dir, history.genesis)
    replay = Replay(history.genesis)
    for pair in history.pairs:
        step = replay.take(pair)
        ids = tuple(step.before.check(tx).id for tx in step.block.transactions)
        assert step.certificate is not None
        store.write(
            [fx.Commit(step.block, step.certificate, ids, step.before, step.after, step.outcome)]
        )
    assert app.height == 0
    return store


def test_a_data_directory_is_only_read(
    history: History, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir, out = tmp_path / "data", tmp_path / "export"
    store = kept(history, data_dir)
    with pytest.raises(LocalError, match=r"open in a running node.*--sn") as caught:
        verify_ledger([str(data_dir), "--capath", str(history.capath)])
    assert caught.value.code == "SW3015"
    killed = tmp_path / "killed"  # its log was not folded in
    killed.mkdir()
    for file in data_dir.iterdir():
        (killed / file.name).write_bytes(file.read_bytes())
    assert (killed / "ledger.db-wal").stat().st_size
    store.close()
    before = {p.name: p.read_bytes() for p in data_dir.iterdir()}
    for path in (data_dir, killed):
        assert verify_ledger([str(path), "--capath", str(history.capath)]) == 0
        assert f"height       {len(history.pairs)}," in capsys.readouterr().out
    assert {p.name: p.read_bytes() for p in data_dir.iterdir()} == before
    assert export_ledger([str(data_dir), str(out)]) == 0
    last = f"{len(history.pairs)}:{history.last_id.hex()}"
    assert verify_ledger([str(out), "--capath", str(history.capath), "--block", last]) == 0
