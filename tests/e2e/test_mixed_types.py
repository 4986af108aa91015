"""Whole rounds of learner processes with tensors of many types: the results, number by number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from swarmlearning.tensors import Layout, bfloat16
from tests import golden
from tests.e2e.learner_network import Learners

Arrays = dict[str, NDArray[Any]]

COUNT = 5
# Each learner's: where it is (the last one far off), how far to the side, and four bools.
PLACES = (0.1, 0.25, 0.3, 0.36, 1000.0)
ASIDE = (0.4, -0.5, 0.9, -0.6, 0.0)
BOOLS = (0b1011, 0b1001, 0b0011, 0b1100, 0b0000)


def model(number: int) -> Arrays:
    """What learner `number`, from 1 on, brings."""
    x = PLACES[number - 1]
    return {
        "kernel": (np.arange(1, 7).reshape(2, 3) * x).astype(np.float32),
        "precise": np.array([x / 3, -x, 1e-12 * x]),
        "half": np.array([x, -x / 3, 0.001 * x], np.float16),
        "brain": bfloat16(np.array([x, -x / 3], ml_dtypes.bfloat16).view(np.uint16)),
        "steps": np.array(10**17 + number * number, np.int64),
        "counts": np.array([number, 200 + number, 255], np.uint8),
        "mask": np.array([bool(BOOLS[number - 1] >> bit & 1) for bit in range(4)]),
        "scale": np.array(1 + ASIDE[number - 1], np.float32),
        "nothing": np.empty((0, 5), np.float32),
    }


def described(name: str, array: NDArray[Any], kind: str, exact: bool) -> str:
    """One line: type, shape, and values.

    The order of the roster is that of the learners' keys, which are new each time, so the last
    digits of sums of wide floats are not told.
    """
    values = array.view(ml_dtypes.bfloat16) if kind == "bfloat16" else array
    wide = ".12g" if exact else ".6g"
    digits = {"float64": wide, "float32": ".6g", "bfloat16": ".4g"}.get(kind)
    told = [format(float(v), digits) if digits else str(v) for v in values.reshape(-1)]
    return f"  {name} {kind} {list(array.shape)}: {' '.join(told)}".rstrip()


class Merges:
    """The commands of the transcript."""

    def __init__(self, network: Learners) -> None:
        self._network = network

    def run(self, line: str) -> list[str]:
        verb, *words = line.split()
        if verb == "models":
            return [text for n in range(1, COUNT + 1) for text in [f"sl-{n}", *tell(model(n))]]
        assert verb == "merge"
        settings = [word.split("=") for word in words[1:]]
        args = {key: int(value) if value.isdigit() else value for key, value in settings}
        return tell(self._merge(words[0], args), "transferDtype" not in args)

    def _merge(self, method: str, args: dict[str, Any]) -> Arrays:
        """One round in a contract of its own."""
        sls = [self._network.learner(number) for number in range(1, COUNT + 1)]
        for sl in sls:
            sl.program.send_open(min_peers=COUNT, mergeMethod=method, mergeArgs=args)
        for number, sl in enumerate(sls, 1):
            sl.program.receive("opened")
            sl.program.send_sync(model(number))
        answers = [sl.program.merged() for sl in sls]
        for sl in sls:
            sl.program.close()
        self._network.reset()
        assert [message["peers"] for message, _ in answers] == [COUNT] * COUNT
        first = answers[0][1]
        for _, merged in answers:
            assert [a.tobytes() for a in merged.values()] == [a.tobytes() for a in first.values()]
        return first


def tell(arrays: Arrays, exact: bool = True) -> list[str]:
    """The lines of a model, which has the types and shapes that all have."""
    expected = Layout.of(model(1)).tensors
    assert [tensor.name for tensor in expected] == list(arrays)
    assert [tensor.shape for tensor in expected] == [array.shape for array in arrays.values()]
    for tensor, array in zip(expected, arrays.values(), strict=True):
        kind = "uint16" if tensor.dtype == "bfloat16" else tensor.dtype
        assert array.dtype.name == kind
    return [described(t.name, arrays[t.name], t.dtype, exact) for t in expected]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Learners]:
    made = Learners(tmp_path)
    yield made
    made.close()


def test_results_of_whole_rounds(network: Learners) -> None:
    folder = Path(__file__).parent / "merges"
    for path in golden.files(folder):
        golden.check(path, Merges(network))
