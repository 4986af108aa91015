"""Going on after the quorum was lost: the commands, and what other nodes make of it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from swarm.audit.recover import accept, recover
from swarm.errors import LocalError, RemoteError
from swarm.identity import Role, verify_signature
from swarm.ledger import directory, recovery
from swarm.ledger.block import Block, Certificate, Effect
from swarm.ledger.consensus import messages as msg
from swarm.ledger.recovery import Draft, Name, check_certificate
from swarm.ledger.replica import Replica
from swarm.ledger.transaction import SignedTransaction
from tests import pki
from tests.ledger.cores import Wire, block_of, put
from tests.ledger.net import Site, Swarm, genesis_for, sign
from tests.ledger.test_replica import run


def flags(site: Site) -> list[str]:
    """The command line's identity of a site."""
    tmp = site.swarm.tmp
    folder = tmp / site.name
    (cert,), (key,) = folder.glob("*-cert.pem"), folder.glob("*-key.pem")
    return [f"--cert={cert}", f"--key={key}", f"--capath={tmp / 'ca' / 'capath'}"]


def command(site: Site, *words: str) -> int:
    return recover([str(site.directory), *flags(site), *words])


async def stop(*sites: Site) -> None:
    for site in sites:
        await site.kill()


def names(site: Site) -> tuple[Name, ...]:
    return directory.recoveries_of(site.directory)


def join(swarm: Swarm, through: Site) -> Site:
    """A new site, as `/v1/bootstrap` of another one lets it begin."""
    name = f"sn-{len(swarm.sites) + 1}"
    identity = pki.identity(swarm.tmp / name, Role.SN, swarm.ca)
    site = Site(swarm, name, identity, swarm.tmp / name / "data")
    swarm.sites.append(site)
    Replica.create(site.directory, swarm.genesis, recoveries=through.replica.recoveries)
    return site


def test_one_survivor_goes_on_and_others_join(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(swarm: Swarm) -> None:
        first, second, third = await swarm.grow(3)
        await third.task()
        await stop(first, second, third)
        assert command(third, "--reason", "a fire", "--yes") == 0
        printed = capsys.readouterr().out
        assert first.uid in printed and second.uid in printed and "two ledgers" in printed
        (name,) = names(third)
        assert str(name) in printed

        await third.start()
        before = third.replica.state
        assert [validator.uid for validator in before.validators()] == [third.uid]
        record = before.get("recoveries", f"{name.height:012d}")
        assert record["reason"] == "a fire"
        assert record["dropped"] == sorted([first.uid, second.uid])
        assert await third.task() == name.height + 1
        await third.kill()
        await third.start()  # the store is checked again, the recovery included

        fourth = join(swarm, third)
        await fourth.start()
        await fourth.replica.synced.wait()
        assert (await fourth.enroll()).ok
        height = await fourth.task()
        await third.replica.wait_for(height)
        assert len(third.replica.state.validators()) == 2
        assert third.replica.state.digest() == fourth.replica.state.digest()

    run(tmp_path, test)


def test_who_was_dropped_says_so_and_follows_when_told_to(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        first, second = await swarm.grow(2)
        height = first.replica.state.height
        await stop(first, second)
        command(second, "--reason", "lost", "--yes")
        (name,) = names(second)
        await second.start()
        await second.task()
        await first.start()
        while "recovered" not in first.replica.waiting():
            await trio.sleep(0.5)
        told = first.replica.waiting()
        assert f"swarm ledger accept DATA_DIR {name}" in told and "not agreed (lost)" in told
        await trio.sleep(60)
        assert first.replica.state.height == height, "it refuses and does not fork"
        assert first.error is None

        await first.kill()
        accept([str(first.directory), str(name)])
        await first.start()
        await first.replica.wait_for(second.replica.state.height)
        assert (await first.enroll()).ok
        await first.task()
        assert len(second.replica.state.validators()) == 2

    run(tmp_path, test)


def test_several_survivors_sign_one_after_the_other(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(4)
        await swarm.at(await sites[0].task())
        await stop(*sites)
        one, other = sites[1], sites[3]
        file = tmp_path / "recovery.json"
        words = ("--reason", "two are lost", "--validators", other.uid, "--file", str(file))
        command(one, *words, "--yes")
        with pytest.raises(LocalError, match="must co-sign"):
            command(one, "--apply", str(file), "--yes")
        with pytest.raises(LocalError, match="has signed it already"):
            command(one, "--co-sign", str(file), "--yes")
        with pytest.raises(LocalError, match="is not one that stays"):
            command(sites[0], "--co-sign", str(file), "--yes")
        command(other, "--co-sign", str(file), "--yes")
        for site in (one, other):
            command(site, "--apply", str(file), "--yes")
        with pytest.raises(LocalError, match="does not follow"):
            command(one, "--apply", str(file), "--yes")
        for site in (one, other):
            await site.start()
        height = await one.task()
        await other.replica.wait_for(height)
        assert {v.uid for v in one.replica.state.validators()} == {one.uid, other.uid}
        assert one.replica.state.digest() == other.replica.state.digest()

    run(tmp_path, test)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(swarm: Swarm) -> None:
        first, second = await swarm.grow(2)
        stranger = join(swarm, first)
        with pytest.raises(LocalError, match="open in another process"):
            command(second, "--reason", "x", "--yes")
        await stop(first, second)
        digest = (second.directory / "ledger.db").read_bytes()
        cases = (
            ("no validator of", [str(second.directory), *flags(stranger), "--reason=x"]),
            ("--reason", [str(second.directory), *flags(second)]),
            ("of no validator", [*target(second), "--reason=x", "--validators=sn-9"]),
            ("nothing is lost", [*target(second), "--reason=x", f"--validators={first.uid}"]),
            ("holds no ledger", [str(tmp_path / "nowhere"), *flags(second), "--reason=x"]),
            (
                "recovery file",
                [*target(second), f"--co-sign={tmp_path / 'ca/capath/ca-1-cert.pem'}"],
            ),
        )
        for told, words in cases:
            with pytest.raises(LocalError, match=told):
                recover([*words, "--yes"])
        monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
        with pytest.raises(LocalError, match="not confirmed"):
            command(second, "--reason", "x")
        assert (second.directory / "ledger.db").read_bytes() == digest
        assert names(second) == ()
        with pytest.raises(LocalError, match="is no recovery"):
            accept([str(second.directory), "17"])
        monkeypatch.setattr("sys.stdin", io.StringIO("recover\n"))
        assert command(second, "--reason", "x") == 0

    run(tmp_path, test)


def target(site: Site) -> list[str]:
    return [str(site.directory), *flags(site)]


def test_a_chain_that_went_on_cannot_follow(tmp_path: Path) -> None:
    """An operator recovers although the others are well: two ledgers, as the warning says, and
    neither takes anything from the other."""

    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(4)
        await stop(sites[3])
        for _turn in range(3):
            await sites[0].task()
        command(sites[3], "--reason", "a mistake", "--yes")
        (name,) = names(sites[3])
        await sites[3].start()
        await sites[3].task()
        height = await sites[0].task()
        await trio.sleep(30)
        assert {len(site.replica.state.validators()) for site in sites[:3]} == {4}
        assert all("another block" not in site.replica.waiting() for site in sites[:3])
        assert sites[3].replica.state.height < height
        assert all(site.error is None for site in sites)
        await stop(sites[0])
        with pytest.raises(LocalError, match="another block at height"):
            accept([str(sites[0].directory), str(name)])

    run(tmp_path, test)


def test_a_node_that_is_on_another_chain_than_the_others_says_so() -> None:
    """As many of them as cannot all lie must say so: two of four."""
    wire = Wire()
    wire.submit("a", put(1))
    wire.flow()
    core = wire.cores["a"]
    block = block_of(core, [put(2)], "b", previous=b"z" * 32)
    foreign = msg.Blocks(((block.encoded, Certificate(2, 0, block.id, ()).encode()),))
    for source in ("b", "stranger", "b"):
        wire.give("a", foreign, source)
        assert core.left_behind == ""
    wire.give("a", foreign, "c")
    assert "another block at height 1" in core.left_behind
    assert core.halted is None and core.height == 1


def test_a_survivor_with_a_new_store_votes_from_the_recovery_on(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        first, second = await swarm.grow(2)
        await first.kill()
        await second.kill()
        for path in second.directory.glob("ledger.db*"):
            path.unlink()
        await first.start()
        await second.start()
        await second.replica.wait_for(first.replica.state.height)
        await stop(first, second)
        command(second, "--reason", "the other one is lost now", "--yes")
        await second.start()
        await second.task()

    run(tmp_path, test)


def test_other_nodes_ordinary_blocks_never_recover(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        first, _second = await swarm.grow(2)
        args = {"validators": [first.uid], "reason": "a coup"}
        tx = sign(first.identity, swarm.genesis, "ledger.recover", args, 400)
        with pytest.raises(RemoteError, match="no ordinary transaction"):
            await first.replica.submit(tx)

    run(tmp_path, test)


def test_files_and_certificates_that_do_not_fit(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(3)
        await stop(*sites)
        file = tmp_path / "recovery.json"
        words = ("--reason", "x", "--validators", sites[1].uid, "--file", str(file))
        command(sites[0], *words, "--yes")
        draft = Draft.decode(file.read_bytes())
        store, app = directory.open_store(sites[0].directory, swarm.genesis)
        keys = {v.uid: v.public_key_der for v in app.validators()}
        ordinary = store.block(app.height)
        before = store.validators(app.height)
        store.close()
        assert ordinary is not None

        def check(block: Block, certificate: Certificate, accepted: Sequence[bytes] = ()) -> str:
            known = keys if block.height > app.height else before
            needed = 3 if len(known) == 3 else 2
            try:
                check_certificate(block, certificate, known, needed, verify_signature, accepted)
            except RemoteError as error:
                return f"{error.code} {error.cause}"
            return ""

        block = draft.block
        signatures = {site.uid: site.identity.sign(recovery.signed_bytes(block)) for site in sites}
        stay = {site.uid: signatures[site.uid] for site in sites[:2]}
        whole = recovery.certificate_of(block, stay)
        assert check(ordinary[0], ordinary[1]) == ""
        assert check(block, whole, [block.id]) == ""
        assert check(block, whole).startswith("SW3030 at height")
        assert "without 1 of its 3 validators" in check(block, whole)
        one = recovery.certificate_of(block, {sites[0].uid: stay[sites[0].uid]})
        assert "lacks the signature" in check(block, one, [block.id])
        too_many = recovery.certificate_of(block, signatures)
        assert "is no validator" in check(block, too_many, [block.id])
        forged = recovery.certificate_of(block, {**stay, sites[1].uid: stay[sites[0].uid]})
        assert "does not fit" in check(block, forged, [block.id])
        assert "another block" in check(block, replace(whole, round=1), [block.id])
        assert "is none" in check(ordinary[0], ordinary[1], [ordinary[0].id])

        for data in (b"", b"[]", b'{"swarm-recovery": 2}', file.read_bytes()[:-200], b"[" * 99999):
            with pytest.raises(RemoteError, match="recovery file"):
                Draft.decode(data)
        other = replace(draft, block=ordinary[0])
        with pytest.raises(RemoteError, match="recovers nothing"):
            Draft.decode(other.encode().encode())
        broken = replace(draft, signatures={sites[0].uid: b"no"})
        file.write_text(broken.encode())
        with pytest.raises(LocalError, match="does not fit"):
            command(sites[1], "--co-sign", str(file), "--yes")

    run(tmp_path, test)


def test_a_recovery_is_recognised_by_its_only_transaction(tmp_path: Path) -> None:
    ca = pki.authority(tmp_path)
    identity = pki.identity(tmp_path, Role.SN, ca)
    genesis = genesis_for(identity)
    args = {"validators": ["b", "a"], "reason": "r"}
    good = sign(identity, genesis, "ledger.recover", args, 5)
    plain = sign(identity, genesis, "node.leave", {"uid": "a"}, 5)
    odd = sign(identity, genesis, "ledger.recover", {"validators": [1], "reason": "r"}, 5)

    def block(*txs: bytes) -> Block:
        return Block.make(
            chain=genesis.chain_id, height=1, previous=genesis.chain_id, time_ms=1, proposer="a",
            transactions=txs, effect=Effect(bytes(32), bytes(32), bytes(32)),
        )  # fmt: skip

    found = recovery.recovery_of(block(good))
    assert found == recovery.Recovery(("a", "b"), "r")
    for txs in ((plain,), (good, plain), (odd,), (b"nonsense",)):
        assert recovery.recovery_of(block(*txs)) is None
    assert SignedTransaction.decode(good).transaction.op == "ledger.recover"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
FIELDS = ("swarm-recovery", "chain", "recovery", "block", "signatures")


@given(st.binary(max_size=60) | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)))
def test_nothing_breaks_the_reader_of_recovery_files(value: object) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(RemoteError):
        Draft.decode(data)


@given(st.text(max_size=90) | st.from_regex(r"[0-9]{1,18}-[0-9a-f]{64}", fullmatch=True))
def test_names_of_recoveries(text: str) -> None:
    try:
        name = Name.parse(text)
    except RemoteError:
        return
    assert str(name) == text.strip() and name.height > 0
