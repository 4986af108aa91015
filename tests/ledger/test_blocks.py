"""Blocks, certificates, messages, transactions and geneses: their bytes, and hostile bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.authority import issue_leaf
from swarm.errors import RemoteError
from swarm.identity import Role, TrustStore, verify_chain
from swarm.ledger import codec
from swarm.ledger.block import (
    MAX_BLOCK_TRANSACTIONS,
    NIL,
    PRECOMMIT,
    PREVOTE,
    Block,
    Certificate,
    Effect,
    proposal_bytes,
    vote_bytes,
)
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.quorum import one_honest, proposer, quorum, tolerated
from swarm.ledger.genesis import BYZANTINE, CRASH, Genesis, Timing
from swarm.ledger.transaction import MAX_TRANSACTION, SignedTransaction, Transaction
from tests import pki
from tests.ledger import kv
from tests.ledger.net import genesis_for

CHAIN = b"c" * 32


def block(txs: list[bytes], height: int = 3) -> Block:
    return Block.make(
        chain=CHAIN,
        height=height,
        previous=b"p" * 32,
        time_ms=5,
        proposer="a",
        transactions=txs,
        effect=Effect(b"s" * 32, b"r" * 32, b"v" * 32),
    )


MESSAGES: list[msg.Message] = [
    msg.Vote(PREVOTE, 1, 0, NIL, "a", b"s"),
    msg.Vote(PRECOMMIT, 9, 4, b"x" * 32, "a", b"s" * 70),
    msg.Proposal(3, 2, 1, block([b"t"]), "a", b"s"),
    msg.Transactions((b"one", b"two")),
    msg.Ask(0, -1, True),
    msg.Answer(7, -1, -1),
    msg.Fetch(12),
    msg.Blocks(((block([b"t"]).encoded, Certificate(3, 0, b"x" * 32, ()).encode()),)),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_messages_are_read_back(message: msg.Message) -> None:
    assert msg.decode(msg.encode(message)) == message


@settings(max_examples=400)
@given(st.sampled_from(MESSAGES), st.data())
def test_an_altered_message_is_refused_or_another_one(
    message: msg.Message, data: st.DataObject
) -> None:
    raw = bytearray(msg.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        other = msg.decode(bytes(raw))
    except RemoteError as error:
        assert error.code in ("SW3001", "SW3004", "SW3005")
        return
    assert msg.encode(other) == bytes(raw)


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    for parse in (msg.decode, Block.decode, Certificate.decode, Genesis.decode,
                  SignedTransaction.decode):  # fmt: skip
        with pytest.raises(RemoteError):
            parse(data)


@pytest.mark.parametrize(
    "value",
    [
        ["vote", 3, 1, 0, b"", "a", b""],  # no such kind
        ["vote", 1, 0, 0, b"", "a", b""],  # no such height
        ["vote", 1, 1, -1, b"", "a", b""],
        ["vote", 1, 1, 1 << 31, b"", "a", b""],
        ["vote", 1, 1, 0, b"short", "a", b""],
        ["vote", 1, 1, 0, b"", "a" * 65, b""],
        ["vote", 1, 1, 0, b"", "a", b"s" * 1025],
        ["vote", True, 1, 0, b"", "a", b""],
        ["vote", 1, 1, 0, b"", "a"],
        ["proposal", 4, 0, -1, block([b"t"]).encoded, "a", b""],  # the block is of height 3
        ["proposal", 3, 1, 1, block([b"t"]).encoded, "a", b""],  # valid round not before
        ["proposal", 3, 1, -2, block([b"t"]).encoded, "a", b""],
        ["transactions", [b"t"] * 101],
        ["transactions", [b"t" * (MAX_TRANSACTION + 1)]],
        ["transactions", ["text"]],
        ["ask", -2, 0, False],
        ["blocks", [[b"", b""]] * 201],
        ["blocks", [[b""]]],
        ["nothing"],
        [],
        7,
    ],
)
def test_messages_out_of_range_are_refused(value: codec.Value) -> None:
    with pytest.raises(RemoteError):
        msg.decode(codec.encode(value))


def test_a_block_is_bounded_and_its_hashes_are_checked() -> None:
    good = block([b"one", b"two"])
    assert Block.decode(good.encoded) == good
    tag, header, txs = codec.decode(good.encoded, limit=1 << 20, what="block")
    for wrong in ([b"one"], [b"two", b"one"], [], [b"one", b"two", b"three"]):
        with pytest.raises(RemoteError):
            Block.decode(codec.encode([tag, header, wrong]))
    with pytest.raises(RemoteError):
        Block.decode(block([b"%d" % n for n in range(MAX_BLOCK_TRANSACTIONS + 1)]).encoded)
    with pytest.raises(RemoteError):
        Block.decode(block([b"t" * 60_000] * 20).encoded)
    assert txs == list(good.transactions)


def test_every_part_of_the_header_changes_the_id() -> None:
    header = block([b"t"]).header
    changed = [
        dataclasses.replace(header, **{name: value})  # type: ignore[arg-type]
        for name, value in {
            "chain": b"d" * 32, "height": 4, "previous": b"q" * 32, "time_ms": 6,
            "proposer": "b", "count": 2, "root": b"r" * 32,
        }.items()
    ]  # fmt: skip
    changed += [
        dataclasses.replace(header, effect=header.effect._replace(**{name: b"w" * 32}))
        for name in header.effect._fields
    ]
    assert len({h.encode() for h in [header, *changed]}) == 11


def test_signed_bytes_are_told_apart() -> None:
    """No signature for one purpose fits another, nor another swarm, height, round or kind."""
    one = b"x" * 32
    texts = [
        vote_bytes(CHAIN, PREVOTE, 1, 0, one),
        vote_bytes(CHAIN, PRECOMMIT, 1, 0, one),
        vote_bytes(CHAIN, PREVOTE, 2, 0, one),
        vote_bytes(CHAIN, PREVOTE, 1, 1, one),
        vote_bytes(CHAIN, PREVOTE, 1, 0, NIL),
        vote_bytes(b"d" * 32, PREVOTE, 1, 0, one),
        proposal_bytes(CHAIN, 1, 0, -1, one),
        proposal_bytes(CHAIN, 1, 1, 0, one),
        Transaction(CHAIN, b"i" * 16, 1, "a.b", {}).body(),
    ]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("names", [("b", "a"), ("a", "a")])
def test_certificates_list_each_signer_once_and_in_order(names: tuple[str, str]) -> None:
    certificate = Certificate(1, 0, b"x" * 32, tuple((name, b"s") for name in names))
    with pytest.raises(RemoteError):
        Certificate.decode(certificate.encode())


def test_a_certificate_with_one_false_signature_among_enough_good_ones_is_refused() -> None:
    made = block([b"t"])
    data = vote_bytes(CHAIN, PRECOMMIT, 3, 0, made.id)
    keys = {uid: kv.key_of(uid) for uid in "abcd"}
    good = tuple((uid, kv.sign(kv.key_of(uid), data)) for uid in "abc")
    Certificate(3, 0, made.id, good).check(made, keys, 3, kv.verify)
    with pytest.raises(RemoteError):
        Certificate(3, 0, made.id, (*good, ("d", b"no"))).check(made, keys, 3, kv.verify)


# ---------------------------------------------------------------- quorums and proposers


@given(st.integers(1, 25), st.sampled_from([BYZANTINE, CRASH]))
def test_two_quorums_share_more_than_what_may_fail(n: int, model: str) -> None:
    needed = quorum(n, model)
    assert needed <= n
    common = 2 * needed - n
    liars = (n - 1) // 3 if model == BYZANTINE else 0
    assert common > liars
    assert one_honest(n, model) > liars
    assert tolerated(n, model) == ((n - 1) // 3 if model == BYZANTINE else (n - 1) // 2)


@given(st.integers(1, 25), st.integers(1, 500), st.integers(1, 50), st.integers(0, 60))
def test_proposers_stay_and_rounds_go_through_all(
    n: int, height: int, rotate: int, last: int
) -> None:
    uids = [f"v{number:02d}" for number in range(n)]
    before = f"v{last:02d}"  # may have left
    turns = [proposer(uids, before, height, round_, rotate) for round_ in range(n)]
    assert set(turns) == set(uids)
    if before in uids and height % rotate:
        assert turns[0] == before


# ---------------------------------------------------------------- transactions, genesis


def test_transactions_are_signed_and_traced_to_their_sender(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    identity = pki.identity(tmp_path / "a", Role.SWCI, ca)
    cas = identity.trust.ca_ders
    made = SignedTransaction.sign(identity, Transaction.new(CHAIN, 9, "task.create", {"a": [1]}))
    back = SignedTransaction.decode(made.encode())
    assert back == made
    assert back.sender(cas).fingerprint == identity.fingerprint
    assert back.transaction.args == {"a": [1]}
    with pytest.raises(RemoteError) as caught:
        dataclasses.replace(made, signature=made.signature[:-1] + b"\0").sender(cas)
    assert caught.value.code == "SW3002"
    other = Transaction(CHAIN, b"i" * 16, 9, "task.create", {}).body()
    with pytest.raises(RemoteError):
        dataclasses.replace(made, body=other).sender(cas)
    with pytest.raises(RemoteError):
        made.sender({})


def test_nobody_can_put_another_chain_beside_a_body(tmp_path: Path) -> None:
    """Any CA can issue a certificate, of any role, for somebody else's public key."""
    ours, theirs = pki.authority(tmp_path / "a", 1), pki.authority(tmp_path / "b", 2)
    identity = pki.identity(tmp_path / "a", Role.SL, ours)
    cas = {**identity.trust.ca_ders, **TrustStore(capath=theirs.capath).ca_ders}
    made = SignedTransaction.sign(identity, Transaction.new(CHAIN, 9, "node.enroll", {}))
    assert made.sender(cas).role is Role.SL

    class OnlyPublic:  # what the thief has of the key
        def public_key(self) -> object:
            return identity.certificate.public_key()

    forged = issue_leaf(theirs.issued, "SWCI-2", key=OnlyPublic())  # type: ignore[arg-type]
    chain = (forged.certificate.public_bytes(Encoding.DER),)
    peer = verify_chain(chain, cas)
    assert peer.fingerprint == identity.fingerprint and peer.organisation != identity.organisation
    for stolen in (chain, (*made.chain_der, *chain)):
        with pytest.raises(RemoteError, match="SW3002"):
            dataclasses.replace(made, chain_der=stolen).sender(cas)


@pytest.mark.parametrize(
    "change",
    [
        {"chain": b"short"},
        {"id": b"short"},
        {"expires": -1},
        {"op": ""},
        {"op": "Task.create"},
        {"op": "task..create"},
        {"op": "a" * 49},
    ],
)
def test_malformed_transactions_are_refused(change: dict[str, object]) -> None:
    good = Transaction(CHAIN, b"i" * 16, 9, "task.create", {})
    assert Transaction.from_body(good.body()) == good
    with pytest.raises(RemoteError):
        Transaction.from_body(dataclasses.replace(good, **change).body())  # type: ignore[arg-type]


def test_oversized_transactions_are_refused_by_their_own_sender(tmp_path: Path) -> None:
    identity = pki.identity(tmp_path / "a", Role.SWCI, pki.authority(tmp_path))
    with pytest.raises(RemoteError, match="more than"):
        SignedTransaction.sign(identity, Transaction.new(CHAIN, 9, "a", {"x": b"x" * 65_000}))


def test_point_14_the_genesis_fixes_rules_and_times_and_names_the_chain(tmp_path: Path) -> None:
    identity = pki.identity(tmp_path / "a", Role.SN, pki.authority(tmp_path))
    genesis = genesis_for(identity)
    assert Genesis.decode(genesis.encode()) == genesis
    others = [
        dataclasses.replace(genesis, fault_model=CRASH),
        dataclasses.replace(genesis, timing=Timing(300, 150, 33)),
        dataclasses.replace(genesis, nonce=b"m" * 16),
    ]
    assert len({g.chain_id for g in [genesis, *others]}) == 4
    for wrong in (
        dataclasses.replace(genesis, fault_model="hope"),
        dataclasses.replace(genesis, timing=Timing(300, 0, 32)),
        dataclasses.replace(genesis, timing=Timing(300, 150, 0)),
        dataclasses.replace(genesis, cas={}),
        dataclasses.replace(genesis, cas={"0" * 64: b"other"}),
        dataclasses.replace(genesis, nonce=b""),
    ):
        with pytest.raises(RemoteError) as caught:
            Genesis.decode(wrong.encode())
        assert caught.value.code == "SW3003"
