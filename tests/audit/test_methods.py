"""Records of trainings by every merge method and transfer type, with tensors of many types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.audit import model, record
from swarm.errors import LocalError
from swarm.ledger.state import DEFAULT_CONTRACT
from swarm.merge import methods
from tests.audit import independent
from tests.audit.history import RULES, History, mixed
from tests.audit.test_verify import Memory

BRAIN = 3  # the tensor of type bfloat16
CASES = [
    ("mean", "bfloat16"),
    ("coordmedian", "float16"),
    ("trimmedmean", "float32"),
    ("geomedian", "bfloat16"),
    ("krum", "float16"),
    ("multikrum", ""),
    ("centeredclip", "float32"),
]


def trained(tmp: Path, method: str, transfer: str) -> History:
    """Two rounds of five learners by these rules."""
    asked = {"transferDtype": transfer} if transfer else {}
    name, args = methods.agreed(method, asked, 5)
    rules = {**RULES, "min_peers": 5, "merge_method": name, "merge_args": args}
    history = History(tmp, validators=1, learners=5, rules=rules)
    history.found()
    for _ in range(2):
        history.round(merged_by=3, make=mixed)
    return history


def as_saved(arrays: list[NDArray[Any]], tmp: Path) -> list[NDArray[Any]]:
    """As `numpy.savez` keeps a program's weights: bfloat16 as two bytes of no type."""
    typed = [a.view(ml_dtypes.bfloat16) if i == BRAIN else a for i, a in enumerate(arrays)]
    np.savez(tmp / "weights.npz", *typed)
    return model.read_npz(tmp / "weights.npz")


def test_all_methods_are_here() -> None:
    assert {method for method, _ in CASES} == set(methods.BUILT_IN)


@pytest.mark.parametrize(("method", "transfer"), CASES)
def test_a_record_holds_with_its_model(tmp_path: Path, method: str, transfer: str) -> None:
    history = trained(tmp_path, method, transfer)
    told = record.export(Memory(history.genesis, history.pairs), DEFAULT_CONTRACT)
    authorities = history.sns[0].trust.ca_ders
    summary = record.check(told, authorities)
    assert summary["rules"]["merge_method"] == method
    assert summary["rules"]["merge_args"].get("transferDtype", "") == transfer
    pems = [authority.path.read_bytes() for authority in history.authorities]
    assert independent.check(json.dumps(told), pems) == summary

    arrays = list(history.models[-1].values())
    right = as_saved(arrays, tmp_path)
    about = summary["model"], summary["result"], transfer
    assert model.difference(right, *about) == ""
    assert model.difference(right, {**about[0], "tensors": []}, *about[1:]) == ""
    assert independent.digest(right, transfer) == summary["result"]
    for number, array in enumerate(right):
        if array.size:
            wrong = [a.copy() for a in right]
            raw = bytearray(array.tobytes())
            raw[0] ^= 1
            wrong[number] = np.frombuffer(raw, array.dtype).reshape(array.shape)
            text = model.difference(wrong, *about)
            assert text.startswith((f"its tensor {number} is not exactly", "its digest is"))


def test_weights_that_were_not_narrowed_are_not_the_result(tmp_path: Path) -> None:
    """A program's own weights, say, before they were merged; or a record with other rules."""
    history = trained(tmp_path, "mean", "bfloat16")
    told = record.export(Memory(history.genesis, history.pairs), DEFAULT_CONTRACT)
    summary = record.check(told, history.sns[0].trust.ca_ders)
    right = list(history.models[-1].values())
    about = summary["model"], summary["result"]
    own = [*mixed(0).values()]
    text = model.difference(own, *about, "bfloat16")
    assert text == "its tensor 0 is not exactly bfloat16, which the record's is"
    assert "the record has 0000/kernel float32>bfloat16 4x3" in model.difference(right, *about)
    with pytest.raises(LocalError, match="SW3205"):
        model.difference(right, *about, "float8")


def test_bfloat16_may_be_given_as_its_bits(tmp_path: Path) -> None:
    """As numpy has it without a package that knows the type; no other type passes for another."""
    (typed,) = as_saved([np.arange(9, dtype=np.uint16)] * 4, tmp_path)[BRAIN:]
    assert typed.dtype == np.dtype("V2")
    for given, fitting in ((typed, {"bfloat16"}), (typed.view("<u2"), {"bfloat16", "uint16"})):
        for kind in ("bfloat16", "uint16", "int16"):
            text = model.difference([given], {"tensors": [f"x {kind} 9"], "size": 64}, "?")
            assert text.startswith("its digest is") is (kind in fitting)
