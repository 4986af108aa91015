"""The scikit-learn callback with real estimators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarmlearning import SwarmError
from tests.swarmlearning.fake_sl import Arrays, FakeLearner

pytest.importorskip("sklearn")

from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression, SGDClassifier, SGDRegressor
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.neural_network import MLPClassifier, MLPRegressor

from swarmlearning.sklearn import SwarmCallback

RNG = np.random.default_rng(5)
X = RNG.normal(size=(90, 4))
TWO = (X[:, 0] > 0).astype(int)
THREE = RNG.permutation(np.arange(90) % 3)
START = {"initData": (X[:6], TWO[:6]), "classes": [0, 1]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARM_LINK", str(tmp_path))
    monkeypatch.delenv("SWARM_LOOPBACK", raising=False)
    return tmp_path


def halve(_: int, arrays: Arrays) -> Arrays:
    return {name: array / 2 for name, array in arrays.items()}


def train(swarm: SwarmCallback, y: Any, *, epochs: int = 2) -> None:
    swarm.on_train_begin()
    for _ in range(epochs):
        for at in range(0, len(X), 30):
            swarm.model.partial_fit(X[at : at + 30], y[at : at + 30])
            swarm.on_batch_end()
        swarm.on_epoch_end()
    swarm.on_train_end()


@pytest.mark.parametrize(
    ("model", "y", "tensors"),
    [
        (SGDClassifier(loss="log_loss", random_state=1), TWO, 2),
        (SGDClassifier(random_state=1), THREE, 2),
        (SGDRegressor(random_state=1), X[:, 1], 2),
        (MLPClassifier((5, 4), random_state=1), THREE, 6),
        (MLPRegressor(hidden_layer_sizes=(3,), random_state=1, solver="sgd"), X[:, 1], 4),
    ],
)
def test_estimators(folder: Path, model: Any, y: Any, tensors: int) -> None:
    learner = FakeLearner(folder, merge=halve)
    labels = {"classes": np.unique(y)} if hasattr(model, "predict_proba") or y is THREE else {}
    swarm = SwarmCallback(
        1, 1, model=model, initData=(X[:6], y[:6]), adsValData=(X, y), totalEpochs=2, **labels
    )
    train(swarm, y)
    learner.join()
    assert len(learner.handed_in) == 7
    assert len(learner.handed_in[0]) == tensors
    weights = list(swarm._saveModelWeightsToDict().values())
    for sent, final in zip(learner.handed_in[-1].values(), weights, strict=True):
        np.testing.assert_array_equal(final, sent / 2)
    reports = [message for message in learner.received if message["type"] == "report"]
    assert float(reports[-1]["metric"]) == pytest.approx(model.score(X, y), rel=1e-6)
    assert reports[-1]["epochs"] == 2
    # Each next contribution starts from the merged weights: training goes on in them.
    for before, after in zip(learner.handed_in[:5], learner.handed_in[1:6], strict=True):
        for name in before:
            moved = np.abs(after[name] - before[name] / 2).max()
            assert moved > 0


def test_a_perceptron_trains_the_merged_arrays() -> None:
    """Its optimizer holds on to the first arrays: new ones would never change again."""
    model = MLPClassifier((3,), random_state=1)
    model.partial_fit(X, TWO, classes=[0, 1])
    arrays = [id(array) for array in model.coefs_ + model.intercepts_]
    swarm = loopback(model=model)
    merged = {name: array * 0 for name, array in swarm._saveModelWeightsToDict().items()}
    swarm._loadModelWeightsFromDict(merged)
    assert [id(array) for array in model.coefs_ + model.intercepts_] == arrays


def loopback(**options: Any) -> SwarmCallback:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARM_LOOPBACK", "true")
        return SwarmCallback(1, 2, **options)


def test_measures() -> None:
    model = SGDClassifier(loss="log_loss", random_state=1).fit(X, TWO)
    ones = np.ones(len(X))
    probabilities = model.predict_proba(X)

    def measured(**options: Any) -> tuple[float, float]:
        return loopback(model=model, **options)._calculateLocalLossAndMetrics()

    loss, metric = measured(adsValData=(X, TWO))
    assert (loss, metric) == pytest.approx((log_loss(TWO, probabilities), model.score(X, TWO)))
    assert measured(adsValData=(X, TWO, ones)) == pytest.approx((loss, metric))
    _, area = measured(adsValData=(X, TWO), metricFunction="roc_auc_score")
    assert area == pytest.approx(roc_auc_score(TWO, probabilities[:, 1]))
    _, none = measured(
        adsValData=(X, 1 - TWO), metricFunction="f1_score", metricFunctionArgs={"pos_label": 1}
    )
    assert none < 0.2
    own, hinge = measured(
        adsValData=(X, TWO),
        lossFunction=lambda y, predicted, plus: float((y != predicted).mean()) + plus,
        lossFunctionArgs={"plus": 1},
        metricFunction="hinge_loss",
    )
    assert own == pytest.approx(2 - model.score(X, TWO))
    assert hinge > 0
    without = SGDClassifier(random_state=1).fit(X, TWO)
    wrong, right = loopback(model=without, adsValData=(X, TWO))._calculateLocalLossAndMetrics()
    assert wrong + right == pytest.approx(1)


def test_other_labels_are_another_model() -> None:
    def names(labels: list[int]) -> list[str]:
        swarm = loopback(
            model=SGDClassifier(random_state=1),
            initData=(X[:2], labels),
            classes=labels,
        )
        return list(swarm._saveModelWeightsToDict())

    assert names([0, 1]) == names([0, 1])
    assert names([0, 1]) != names([1, 2])


def test_attributes_by_name() -> None:
    model = MiniBatchKMeans(3, random_state=1, n_init=1)
    swarm = loopback(model=model, weight_attrs=["cluster_centers_"], initData=(X, None))
    assert list(swarm._saveModelWeightsToDict()) == ["cluster_centers_"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "Scikit-Learn model is None"),
        ({"model": LogisticRegression()}, "LogisticRegression has no partial_fit"),
        ({"model": SGDClassifier(average=True)}, "leave average out"),
        ({"model": SGDClassifier()}, "no weights before its first partial_fit"),
        ({"model": SGDClassifier(), **START, "adsValData": X}, "has to be \\(x, y\\)"),
        ({"model": SGDClassifier(), **START, "weight_attrs": ["none_"]}, "lacks one of none_"),
        (
            {"model": MiniBatchKMeans(2, n_init=1), "initData": (X, None)},
            "neither coef_ nor coefs_",
        ),
        ({"model": SGDClassifier(), **START, "lossFunction": "no"}, "has no function 'no'"),
        ({"model": SGDClassifier(), **START, "lossFunction": "_plot"}, "has no function '_plot'"),
        ({"model": SGDClassifier(), **START, "metricFunction": 3}, "has to be a name"),
        (
            {"model": SGDClassifier(), **START, "lossFunction": "log_loss", "lossFunctionArgs": 1},
            "lossFunctionArgs has to be a dictionary",
        ),
    ],
)
def test_complaints(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SwarmError, match=text):
        loopback(**options)


def test_attributes_that_are_no_floats() -> None:
    model = MiniBatchKMeans(2, random_state=1, n_init=1)
    swarm = loopback(model=model, weight_attrs=["labels_"], initData=(X, None))
    with pytest.raises(SwarmError, match="labels_ of MiniBatchKMeans is not an array of floats"):
        swarm._saveModelWeightsToDict()
