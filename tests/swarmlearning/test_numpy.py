"""The bare callback: dictionaries of arrays in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from swarmlearning import SwarmError
from swarmlearning.numpy import SwarmCallback
from tests.swarmlearning.fake_sl import Arrays, FakeLearner


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARM_LINK", str(tmp_path))
    monkeypatch.delenv("SWARM_LOOPBACK", raising=False)
    return tmp_path


def of_all_kinds() -> dict[str, np.ndarray[Any, Any]]:
    return {
        "double": np.linspace(0, 1, 6).reshape(2, 3) + 1e-12,
        "brain": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "half": np.array([0.5], np.float16),
        "count": np.array(2**53 + 1, np.int64),
        "flag": np.array([True, False]),
        "empty": np.empty((0, 4), np.float32),
    }


def test_types_and_shapes_stay(folder: Path) -> None:
    learner = FakeLearner(folder)
    swarm = SwarmCallback(2, 1)
    before = of_all_kinds()
    after = swarm.on_train_end(swarm.on_train_begin(before))
    learner.join()
    assert list(after) == list(before)
    for name, array in before.items():
        assert after[name].dtype == array.dtype
        assert after[name].shape == array.shape
        np.testing.assert_array_equal(after[name], array)


def test_a_training(folder: Path) -> None:
    def ten_more(_: int, arrays: Arrays) -> Arrays:
        return {name: array + 10 for name, array in arrays.items()}

    learner = FakeLearner(folder, merge=ten_more)
    swarm = SwarmCallback(
        2,
        1,
        adsValData=3.0,
        lossFunction=lambda weights, data: weights["w"].sum() - data,
        metricFunction=lambda weights, data: data,
    )
    first = {"w": np.zeros(2)}
    weights = swarm.on_train_begin(first)
    np.testing.assert_array_equal(first["w"], 0)  # the program's own arrays are not written to
    for _ in range(4):
        trained = {"w": weights["w"] + 1}
        weights = swarm.on_batch_end(trained)
    assert weights is trained  # no merge: what was given comes back
    swarm.on_epoch_end()
    weights = swarm.on_train_end(weights)
    learner.join()
    assert [int(array["w"][0]) for array in learner.handed_in] == [0, 13, 24]
    np.testing.assert_array_equal(weights["w"], 34)
    reports = [message for message in learner.received if message["type"] == "report"]
    assert [report["loss"] for report in reports] == ["17", "43", "65"]
    assert {report["metric"] for report in reports} == {"3"}


def test_merged_arrays_are_the_programs_own(folder: Path) -> None:
    """The next round is written into the memory from which they came."""
    learner = FakeLearner(folder, merge=lambda number, _: {"w": np.full(2, float(number))})
    swarm = SwarmCallback(1, 1)
    first = swarm.on_train_begin({"w": np.zeros(2)})
    swarm.on_batch_end(first)
    swarm.on_batch_end(first)
    np.testing.assert_array_equal(first["w"], 0)
    swarm.on_train_end(first)
    learner.join()
    np.testing.assert_array_equal(first["w"], 0)


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_LOOPBACK", "true")
    swarm = SwarmCallback(1, 2)
    weights = {"w": np.ones(2)}
    assert swarm.on_train_begin(weights) is weights
    assert swarm.on_batch_end(weights) is weights
    assert swarm.on_train_end(weights) is weights


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lossFunction": "mse"}, "lossFunction has to be a function"),
        ({"metricFunction": 1}, "metricFunction has to be a function"),
        ({"useAdaptiveSync": True, "adsValData": 1}, "a lossFunction is mandatory"),
        ({"ml_platform": "KERAS"}, "Invalid ml platform type: KERAS"),
    ],
)
def test_complaints(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SwarmError, match=text):
        SwarmCallback(1, 2, **options)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([np.ones(2)], "have to be a dictionary"),
        ({}, "at least one numpy array"),
        ({"w": [1.0]}, r"weights\['w'\] is no numpy array but list"),
    ],
)
def test_weights_of_another_kind(folder: Path, weights: Any, text: str) -> None:
    FakeLearner(folder)
    with pytest.raises(SwarmError, match=text):
        SwarmCallback(1, 2).on_train_begin(weights)
