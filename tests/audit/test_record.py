"""The record of a training: exported, checked offline, and every way of lying with it is named."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarm.audit import record
from swarm.audit.record_commands import export_record, verify_record
from swarm.audit.sources import write_export
from swarm.audit.verify import verify
from swarm.errors import LocalError
from swarm.ledger import merkle
from swarm.ledger.block import BlockHeader, Certificate, verdict_leaf
from swarm.ledger.state import DEFAULT_CONTRACT, Verdict
from swarm.ledger.transaction import SignedTransaction
from tests import pki
from tests.audit import independent
from tests.audit.history import RULES, History
from tests.audit.test_verify import Memory

Json = dict[str, Any]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    made = History(tmp_path_factory.mktemp("history"))
    made.found()
    made.round()
    made.must((made.sls[0], "round.report", made.report(0, "0.125")))
    made.round(merged_by=3)
    return made


@pytest.fixture(scope="module")
def exported(history: History) -> str:
    return json.dumps(record.export(Memory(history.genesis, history.pairs), DEFAULT_CONTRACT))


@pytest.fixture
def told(exported: str) -> Json:
    found: Json = json.loads(exported)
    return found


def check(history: History, told: Json) -> Json:
    return record.check(told, history.sns[0].trust.ca_ders)


def refused(history: History, told: Json, text: str) -> None:
    with pytest.raises(LocalError) as caught:
        check(history, told)
    assert caught.value.code == "SW3203"
    assert text in caught.value.cause, caught.value.cause


def test_a_record_holds_the_training(history: History, told: Json) -> None:
    summary = check(history, told)
    assert summary["chain"] == history.genesis.chain_id.hex()
    assert summary["rules"] == RULES
    assert [one["round"] for one in summary["rounds"]] == [0, 1]
    first, second = summary["rounds"]
    assert len(first["agreed"]) == 2 and len(second["agreed"]) == 3
    assert {entry["samples"] for entry in first["roster"]} == {100, 101, 102}
    assert [one["loss"] for one in first["reports"]] == ["0.25"] * 3 + ["0.125"]
    assert len({member["organisation"] for member in summary["members"].values()}) == 2
    last = history.app.state.get("contracts", DEFAULT_CONTRACT)
    assert last is not None and summary["result"] == last["last"]["digest"].hex()


def test_it_leaves_out_what_it_does_not_need(history: History, told: Json) -> None:
    heights = [header(item).height for item in told["evidence"]["blocks"]]
    assert len(heights) < len(history.pairs)
    # Four nodes join one by one; the first was the founder.
    changes = [item for item in told["evidence"]["blocks"] if "next_validators" in item]
    assert len(changes) == 3


def header(item: Json) -> BlockHeader:
    return BlockHeader.decode(bytes.fromhex(item["header"]))


# ---------------------------------------------------------------- every lie has a name


def acts(told: Json, op: str) -> list[Json]:
    return [act for act in told["evidence"]["acts"] if op_of(act) == op]


def op_of(act: Json) -> str:
    return SignedTransaction.decode(bytes.fromhex(act["transaction"])).transaction.op


def flip(text: str, place: int = -1) -> str:
    """One bit of hexadecimal text."""
    raw = bytearray.fromhex(text)
    raw[place] ^= 1
    return raw.hex()


def drop(told: Json, op: str, which: int = 0) -> None:
    told["evidence"]["acts"].remove(acts(told, op)[which])


def alter_act(told: Json, **changes: Callable[[Any], Any]) -> None:
    act = acts(told, "round.checkin")[0]
    for key, change in changes.items():
        act[key] = change(act[key])


def test_one_bit_in_a_members_signature(history: History, told: Json) -> None:
    alter_act(told, transaction=flip)
    refused(history, told, "is not in its block")


def test_one_bit_in_a_validators_signature(history: History, told: Json) -> None:
    item = told["evidence"]["blocks"][5]
    item["certificate"] = flip(item["certificate"])
    refused(history, told, "does not fit")


def test_a_certificate_by_a_minority(history: History, told: Json) -> None:
    for place, needed in ((-1, 3), (1, 2)):
        wrong = copy.deepcopy(told)
        item = wrong["evidence"]["blocks"][place]
        certificate = Certificate.decode(bytes.fromhex(item["certificate"]))
        few = Certificate(
            certificate.height, certificate.round, certificate.block_id, certificate.signatures[:1]
        )
        item["certificate"] = few.encode().hex()
        refused(history, wrong, f"1 signatures where {needed} are needed")


def test_an_altered_block(history: History, told: Json) -> None:
    item = told["evidence"]["blocks"][-1]
    item["header"] = flip(item["header"])
    refused(history, told, "certificate is for another block")


def test_a_block_of_another_swarm(history: History, told: Json, tmp_path: Path) -> None:
    other = History(tmp_path, validators=1, learners=1)
    other.found()
    item = told["evidence"]["blocks"][0]
    step = other.pairs[0]
    item["header"] = other.blocks[0].header.encode().hex()
    item["certificate"] = step.certificate.hex()
    refused(history, told, "was no validator at height")
    told["evidence"]["genesis"] = other.genesis.encode().hex()
    refused(history, told, "names CA")


def test_a_step_of_the_validators_left_out(history: History, told: Json) -> None:
    """So that few early validators could certify what many decided later."""
    del told["evidence"]["blocks"][2]
    refused(history, told, "was no validator at height")


def test_other_validators_than_the_block_names(history: History, told: Json) -> None:
    item = next(i for i in told["evidence"]["blocks"] if "next_validators" in i)
    item["next_validators"] = item["next_validators"][:1]
    refused(history, told, "")
    del item["next_validators"]
    refused(history, told, "the record does not say to whom")


def test_another_authority(told: Json, tmp_path: Path) -> None:
    stranger = pki.authority(tmp_path, 1)
    with pytest.raises(LocalError, match="which is not among yours"):
        record.check(told, {"00": stranger.issued.certificate_pem})


def test_a_swapped_roster(history: History, told: Json) -> None:
    roster = told["summary"]["rounds"][0]["roster"]
    roster[0]["samples"], roster[1]["samples"] = roster[1]["samples"], roster[0]["samples"]
    theirs, ours = roster[0]["samples"], roster[1]["samples"]
    text = f"/rounds/0/roster/0/samples is {theirs} there, and {ours} by the evidence"
    refused(history, told, text)


def test_a_dropped_check_in(history: History, told: Json) -> None:
    drop(told, "round.checkin")
    refused(history, told, "has signed no check-in that fits")


def test_a_dropped_result(history: History, told: Json) -> None:
    drop(told, "round.merged")
    refused(history, told, "round 0: 1 of 3 signed for the result, which is no majority")


def test_a_dropped_enrolment(history: History, told: Json) -> None:
    drop(told, "contract.enroll")
    refused(history, told, "has not signed to take part under these rules")


def test_a_dropped_last_report(history: History, told: Json) -> None:
    drop(told, "round.report", -1)
    refused(history, told, "about round 1 is missing")


def test_a_dropped_round(history: History, told: Json) -> None:
    del told["evidence"]["states"][0]
    told["summary"]["rounds"].pop(0)
    refused(history, told, "round 0 is missing")


def test_a_training_that_ends_too_early(history: History, told: Json) -> None:
    """The later state left out, and what belongs to it: an older record, and it says so."""
    told["evidence"]["states"] = told["evidence"]["states"][:1]
    refused(history, told, "the contract's state, or its schema, is missing")


def test_an_altered_state(history: History, told: Json) -> None:
    state = told["evidence"]["states"][0]
    state["record"] = flip(state["record"])
    refused(history, told, "is for another record")


def test_a_state_of_another_height(history: History, told: Json) -> None:
    told["evidence"]["states"][0]["height"] -= 1
    refused(history, told, "does not lead to the state that the block names")


def test_an_act_at_another_place(history: History, told: Json) -> None:
    merged = acts(told, "round.merged")[0]
    merged["index"] += 1
    refused(history, told, "")


def test_a_refused_act_passed_off_as_accepted(history: History, tmp_path: Path) -> None:
    """Nobody's word is needed for that: the header says what the verdicts were."""
    made = History(tmp_path)
    made.found()
    made.round()
    outcome = made.commit(
        made.sign(made.sls[0], "round.report", made.report(0, "0.5")),
        made.sign(made.sls[1], "round.report", made.report(0, "0.5")),
    )
    assert [verdict.ok for verdict in outcome.verdicts] == [True, False]
    told = record.export(Memory(made.genesis, made.pairs), DEFAULT_CONTRACT)
    block = made.blocks[-1]
    verdicts = [verdict_leaf(verdict) for verdict in outcome.verdicts]
    told["evidence"]["acts"].append({
        "height": block.height, "index": 1, "transaction": block.transactions[1].hex(),
        "inclusion": [step.hex() for step in merkle.proof(block.transactions, 1)],
        "acceptance": [step.hex() for step in merkle.proof(verdicts, 1)],
    })  # fmt: skip
    assert not merkle.proves(
        block.header.effect.results, verdict_leaf(Verdict(True)), 1, 2, merkle.proof(verdicts, 1)
    )
    refused(made, told, "was not accepted")


def test_what_proves_nothing_is_refused(history: History, told: Json) -> None:
    block = history.blocks[4]
    used = [header(item).height for item in told["evidence"]["blocks"]]
    assert block.height not in used
    told["evidence"]["blocks"].insert(
        sum(height < block.height for height in used),
        {
            "header": block.header.encode().hex(),
            "certificate": history.pairs[block.height - 1].certificate.hex(),
        },
    )
    refused(history, told, "is there for nothing")


def test_any_altered_character_is_found(history: History, exported: str) -> None:
    """Single characters, anywhere; nothing but the spelling of JSON is free."""
    rng = random.Random(5)
    original = json.loads(exported)
    found = 0
    for _ in range(400):
        place = rng.randrange(len(exported))
        text = exported[:place] + rng.choice('0123456789abcdef"{}[],: A') + exported[place + 1 :]
        try:
            told = json.loads(text)
        except ValueError:
            continue
        if told == original:
            continue
        found += 1
        with pytest.raises(LocalError):
            check(history, told)
    assert found > 200


@pytest.mark.parametrize(
    "value",
    [
        {}, {"format": "swarm-record-1"},
        {"format": "swarm-record-1", "contract": 1, "evidence": {}, "summary": {}},
        {"format": "swarm-record-1", "contract": "\ud800", "evidence": [], "summary": {}},
        {"format": "swarm-record-1", "contract": "c", "evidence": {"genesis": "zz"}, "summary": 1},
    ],
)  # fmt: skip
def test_what_is_no_record(history: History, value: Json) -> None:
    with pytest.raises(LocalError):
        check(history, value)


def test_parts_of_other_types_are_refused(history: History, exported: str) -> None:
    """Every value in the evidence exchanged for one of another type."""
    rng = random.Random(6)
    strange: list[Any] = [None, 1, -1, True, "\ud800", "00", [], {}, 1.5, 1 << 70, [[]], {"a": 1}]
    for _ in range(150):
        told = json.loads(exported)
        parent: Any = told["evidence"]
        while True:
            keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            key = rng.choice(keys)
            child = parent[key]
            if not child or not isinstance(child, dict | list) or rng.random() < 0.2:
                break
            parent = child
        parent[key] = rng.choice([one for one in strange if one != child])
        with pytest.raises(LocalError):
            check(history, told)


# ---------------------------------------------------------------- more trainings and members


def test_a_reset_begins_another_training(tmp_path: Path) -> None:
    """And the one before is told until the next has a result, as scripts end with a reset."""
    made = History(tmp_path)
    made.found()
    operator = pki.identity(tmp_path / "swci", "SWCI", made.authorities[0])
    reset = (operator, "contract.reset", {"contract": DEFAULT_CONTRACT})

    def results() -> list[str]:
        told = record.export(Memory(made.genesis, made.pairs), DEFAULT_CONTRACT)
        rounds = check(made, json.loads(json.dumps(told)))["rounds"]
        return [one["result"] for one in rounds]

    with pytest.raises(LocalError, match="no round was decided") as caught:
        results()
    assert caught.value.code == "SW3206"
    made.round()
    made.round()
    first, height = results(), len(made.pairs)
    made.must((made.sls[0], "round.report", made.report(1, "0.5")), reset)
    assert results() == first and len(first) == 2
    for number, sl in enumerate(made.sls):
        made.must((sl, "contract.enroll", made.enrolment(number)))
    assert results() == first
    made.round(seed=7)
    second = results()
    assert len(second) == 1 and second[0] not in first
    earlier = Memory(made.genesis, made.pairs)
    told = record.export(earlier, DEFAULT_CONTRACT, until=height)
    assert [one["result"] for one in told["summary"]["rounds"]] == first
    with pytest.raises(LocalError, match="there is no contract nothing"):
        record.export(earlier, "nothing")


def test_records_of_a_deleted_contract_hold(tmp_path: Path) -> None:
    """And those of the next one of that name tell nothing of it."""
    made = History(tmp_path, contract="mine")
    made.found()
    pems = [authority.path.read_bytes() for authority in made.authorities]
    made.round()
    made.round()
    first = record.export(Memory(made.genesis, made.pairs), "mine")
    height = len(made.pairs)
    made.delete()
    whole = verify(Memory(made.genesis, made.pairs), set(made.sns[0].trust.ca_ders))
    assert whole.digest == made.app.digest() and not whole.doubts
    deleted = record.export(Memory(made.genesis, made.pairs), "mine")
    results = [one["result"] for one in first["summary"]["rounds"]]
    assert [one["result"] for one in check(made, deleted)["rounds"]] == results
    assert {node["name"] for node in check(made, deleted)["members"].values()} == {
        "sl-0", "sl-1", "sl-2",
    }  # fmt: skip
    made.train()
    made.round()  # the same vectors as at first, so with the same result
    made.round(seed=7)
    second = record.export(Memory(made.genesis, made.pairs), "mine")
    told = [one["result"] for one in check(made, second)["rounds"]]
    assert told[0] == results[0] and told[1] != results[1]
    assert min(act["height"] for act in second["evidence"]["acts"]) > height
    until = record.export(Memory(made.genesis, made.pairs), "mine", until=height)
    assert check(made, until) == check(made, first)
    independent.check(json.dumps(second), pems)
    for forged in mixed(first, second):
        with pytest.raises(LocalError, match=r"of another contract|before the contract"):
            check(made, forged)
        with pytest.raises(independent.Wrong, match="one contract"):
            independent.check(json.dumps(forged), pems)


def mixed(first: Json, second: Json) -> Iterator[Json]:
    """Round 0 of one contract and round 1 of the next, as if they were one training; and that
    with the states of the second alone."""
    old, new = first["evidence"], second["evidence"]
    decided = first["summary"]["rounds"][0]["height"]
    later = second["summary"]["rounds"][0]["height"]
    acts = [act for act in old["acts"] if act["height"] <= decided]
    acts += [act for act in new["acts"] if act["height"] > later]
    for states in ([old["states"][0], *new["states"][1:]], new["states"]):
        used = {one["height"] for one in (*acts, *states)}
        blocks = {height_of(block): block for block in (*old["blocks"], *new["blocks"])}
        light = [at for at, block in blocks.items() if "next_validators" in block]
        told = [blocks[at] for at in sorted({*used, *light})]
        evidence = {"genesis": new["genesis"], "blocks": told, "acts": acts, "states": states}
        yield {**second, "evidence": evidence}


def height_of(block: Json) -> int:
    return BlockHeader.decode(bytes.fromhex(block["header"])).height


def test_a_recovery_is_followed_and_told(tmp_path: Path) -> None:
    made = History(tmp_path)
    made.found()
    name = made.recover(made.sns[:2])
    made.round()
    told = record.export(Memory(made.genesis, made.pairs, (name,)), DEFAULT_CONTRACT)
    summary = check(made, json.loads(json.dumps(told)))
    assert summary["recoveries"] == [f"{name}: a fire"]


# ---------------------------------------------------------------- the commands


def test_export_and_verify_with_the_model(
    history: History, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger, out = tmp_path / "ledger", tmp_path / "record.json"
    write_export(ledger, history.genesis, (), history.pairs)
    assert export_record([str(ledger), "--contract", DEFAULT_CONTRACT, "--out", str(out)]) == 0
    weights, other = tmp_path / "weights.npz", tmp_path / "other.npz"
    np.savez(weights, *history.models[-1].values())
    np.savez(other, *history.models[-2].values())
    base = [str(out), "--capath", str(history.capath)]
    last = header(record.read(out)["evidence"]["blocks"][-1])
    known = ["--block", f"{last.height}:{last.id.hex()}"]
    assert verify_record([*base, "--weights", str(weights), *known]) == 0
    text = capsys.readouterr().out
    assert "is the recorded result, bit for bit" in text and "O=" not in text
    with pytest.raises(LocalError, match="its digest is") as caught:
        verify_record([*base, "--weights", str(other)])
    assert caught.value.code == "SW3204"
    with pytest.raises(LocalError, match="the block is not the one expected"):
        verify_record([*base, "--block", f"{last.height}:{'00' * 32}"])
    with pytest.raises(LocalError, match="is not in the record, which uses blocks"):
        verify_record([*base, "--block", f"5:{'00' * 32}"])
    with pytest.raises(LocalError, match="SW3202"):
        verify_record([str(ledger), "--capath", str(history.capath)])
