"""Golden files: what each method makes of fixed inputs of all types, in numbers and in bytes.

All members of a swarm must get the same bytes, whatever their machine and version of numpy; so a
difference here is a change of protocol. `SWARM_REWRITE=1` writes the files anew.

Inputs are eighths of small whole numbers. So their distances are exact, however they are added.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarm.merge import methods
from swarm.merge.mean import segments
from swarm.merge.methods.kinds import is_float
from tests.merge.methods.running import reduce
from tests.merge.methods.test_types import KINDS, stored

FOLDER = Path(__file__).parent / "golden"
WEIGHTS = [10_000, 20_000, 0, 10_000, 30_000, 10_000, 20_000]  # the third does not contribute
LENGTH = 8
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("mean", {}),
    "coordmedian": ("coordmedian", {}),
    "trimmedmean": ("trimmedmean", {"f": 2}),
    "geomedian": ("geomedian", {}),
    "krum": ("krum", {"f": 1}),
    "multikrum": ("multikrum", {"f": 1, "m": 3}),
    "centeredclip": ("centeredclip", {}),
    "centeredclip-tau": ("centeredclip", {"tau": "1.5", "iterations": 3}),
}


def given(kind: str, member: int, gaps: bool) -> np.ndarray[Any, Any]:
    """What a member brings: near the others', but for the sixth, who is far away."""
    numbers = np.array([(member * 37 + k * 17 + member * k * 7) % 101 for k in range(LENGTH)])
    if kind == "bool":
        return numbers % 2
    if not is_float(kind):
        return numbers + 27 * (member == 5)
    values = numbers / 8 - 6 + 1000.0 * (member == 5)
    if gaps and member == 3:
        values[1:3] = np.nan, -np.inf
    return values


def shown(kind: str, raw: bytes) -> list[float]:
    """The values of a type, as text can hold them exactly."""
    if kind == "bfloat16":
        bits = np.frombuffer(raw, "<u2", LENGTH).astype("<u4") << 16
        return list(map(float, bits.view("<f4")))
    return list(np.frombuffer(raw, "u1" if kind == "bool" else kind, LENGTH).tolist())


def record(name: str, args: dict[str, Any], gaps: bool) -> dict[str, Any]:
    """One merge of all types, with an empty tensor at the end."""
    tensors: list[tuple[str, int]] = []
    inputs = [b""] * len(WEIGHTS)
    for kind in KINDS:
        tensors.append((kind, len(inputs[0])))
        for member in range(len(WEIGHTS)):
            inputs[member] += stored(kind, given(kind, member, gaps))
    layout = segments([*tensors, ("int8", len(inputs[0]))], len(inputs[0]))
    method = methods.make(name, args, layout, WEIGHTS)
    result, shares = reduce(method, [inputs[i] for i in method.contributors])
    values = {kind: shown(kind, result[at:]) for kind, at in tensors}
    return {
        "shares": list(shares),
        "rejected": sorted(method.rejected),
        "values": values,
        "bytes": result.hex(" ", 64).split(" "),
    }


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    name, args = CASES[case]
    found = {"all finite": record(name, args, False)}
    if name != "mean":
        found["with NaN and infinity"] = record(name, args, True)
    text = json.dumps(
        {"method": name, "args": args, "weights": WEIGHTS, **found}, indent=1, ensure_ascii=False
    )
    for one in found.values():
        assert one["values"]["int64"] == one["values"]["int32"] == one["values"]["uint64"]
    path = FOLDER / f"{case}.json"
    if os.environ.get("SWARM_REWRITE"):
        path.write_text(text + "\n")
    assert json.loads(path.read_text()) == json.loads(text)
