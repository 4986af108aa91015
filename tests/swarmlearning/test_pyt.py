"""The PyTorch callback in training loops as users write them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarmlearning import SwarmError
from tests.swarmlearning.fake_sl import Arrays, FakeLearner

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from swarmlearning.pyt import SwarmCallback  # noqa: E402

pytestmark = pytest.mark.slow
torch.set_num_threads(1)  # so small models are fastest on one core

X = torch.from_numpy(np.random.default_rng(1).normal(size=(60, 6)).astype(np.float32))
Y = (X.sum(dim=1) > 0).long()
LOADER = DataLoader(TensorDataset(X, Y), batch_size=16)  # the last batch is a smaller one


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARM_LINK", str(tmp_path))
    monkeypatch.delenv("SWARM_LOOPBACK", raising=False)
    return tmp_path


def build() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2)
    )


def train(model: nn.Module, callback: Any, epochs: int = 2) -> list[float]:
    """The loop of a user's program; the loss of each batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    callback.on_train_begin()
    for epoch in range(epochs):
        model.train()
        for index, (x, y) in enumerate(DataLoader(TensorDataset(X, Y), 10, shuffle=True)):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            callback.on_batch_end(index)
        callback.on_epoch_end(epoch)
    callback.on_train_end()
    return losses


def halve(_: int, arrays: Arrays) -> Arrays:
    return {
        name: (array * np.asarray(0.5, array.dtype)).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in arrays.items()
    }


def same(model: nn.Module, arrays: Arrays) -> None:
    state = model.state_dict()
    assert state.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(state[name].numpy(), array)


@pytest.mark.parametrize(
    "loss",
    [
        {"lossFunction": "CrossEntropyLoss"},
        {"lossFunction": "CrossEntropyLoss", "lossFunctionArgs": {"reduction": "sum"}},
        {"lossFunction": "CrossEntropyLoss", "lossFunctionArgs": {"reduction": "none"}},
    ],
    ids=["mean", "sum", "none"],
)
def test_a_loop_merges_reports_and_ends_with_the_swarms_model(
    folder: Path, loss: dict[str, Any]
) -> None:
    learner = FakeLearner(folder, merge=halve)
    model = build()
    callback = SwarmCallback(
        4,
        2,
        model=model,
        totalEpochs=2,
        adsValData=LOADER,
        adsValBatchSize=16,
        metricFunction="Accuracy",
        metricFunctionArgs={"task": "multiclass", "num_classes": 2},
        **loss,
    )
    before = {name: tensor.clone().numpy() for name, tensor in model.state_dict().items()}
    train(model, callback)  # 12 batches: merges at the begin, after 5, 9, and at the end
    learner.join()
    assert len(learner.handed_in) == 4
    assert all((learner.handed_in[0][name] == array).all() for name, array in before.items())
    assert int(learner.handed_in[1]["1.num_batches_tracked"]) == 5
    same(model, halve(0, learner.handed_in[-1]))

    reports = [message for message in learner.received if message["type"] == "report"]
    model.eval()
    with torch.no_grad():
        expected = float(nn.functional.cross_entropy(model(X), Y))
        accuracy = float((model(X).argmax(1) == Y).float().mean())
    assert float(reports[-1]["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(reports[-1]["metric"]) == pytest.approx(accuracy, rel=1e-5)
    assert [report["epochs"] for report in reports] == [0, 0, 1, 2]


def test_measuring_does_not_touch_the_training(folder: Path) -> None:
    """Random numbers, dropout, statistics and a layer that the program froze stay as they are."""

    def losses(**options: Any) -> tuple[list[float], Any]:
        FakeLearner(folder)  # gives back what it got
        torch.manual_seed(7)
        model = build()
        callback = SwarmCallback(2, 1, model=model, **options)
        model[1].eval()
        result = train(model, callback)
        assert model.training
        return result, model[1].running_mean

    plain, mean = losses()
    measured, mean_measured = losses(
        adsValData=DataLoader(TensorDataset(X, Y), 7, shuffle=True), lossFunction="CrossEntropyLoss"
    )
    assert measured == plain
    assert torch.equal(mean, mean_measured)


def test_a_frozen_layer_stays_in_its_mode() -> None:
    from swarmlearning import torch_measure

    model = build()
    model.train()
    model[1].eval()
    with torch_measure.undisturbed(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model] == [True, False, True, True, True]


def test_without_validation_data_zeros_are_reported(folder: Path) -> None:
    learner = FakeLearner(folder)
    model = build()
    train(model, SwarmCallback(9, 1, model=model, lossFunction="NLLLoss"), epochs=1)
    reports = [message for message in learner.join() if message["type"] == "report"]
    assert {(report["loss"], report["metric"]) for report in reports} == {("0", "0")}


def test_several_inputs_and_a_metric_without_arguments(folder: Path) -> None:
    class Distance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, a: Any, b: Any) -> Any:
            return (a - b).abs().sum(dim=1) * self.scale

    learner = FakeLearner(folder)
    model = Distance()
    callback = SwarmCallback(
        9, 1, model=model, metricFunction="MeanSquaredError",
        adsValData=DataLoader(TensorDataset(X, X + 1, torch.zeros(60)), 7),
    )  # fmt: skip
    callback.on_train_begin()
    callback.on_train_end()
    reports = [message for message in learner.join() if message["type"] == "report"]
    assert float(reports[-1]["metric"]) == pytest.approx(144, rel=1e-5)
    assert learner.handed_in[0]["scale"].shape == ()


def test_the_end_of_the_swarm_in_a_loop_that_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learner = FakeLearner(folder, merge=halve, over_after_syncs=2)
    model = nn.DataParallel(build())
    callback = SwarmCallback(1, 2, model=model)
    losses = train(model, callback)
    learner.join()
    assert callback.isSwarmTrainingOver
    assert len(losses) == 12
    same(model.module, halve(0, learner.handed_in[-1]))
    assert "Batches from here on are not merged" in capsys.readouterr().out


def test_a_model_in_bfloat16_trains_and_ends_in_it(folder: Path) -> None:
    learner = FakeLearner(folder)
    model = nn.Linear(6, 2).to(torch.bfloat16)
    callback = SwarmCallback(2, 1, model=model)
    callback.on_train_begin()
    with torch.no_grad():
        model.weight += 1
    expected = model.weight.detach().clone()
    callback.on_train_end()
    learner.join()
    assert learner.handed_in[-1]["weight"].dtype.name == "bfloat16"
    assert model.weight.dtype is torch.bfloat16
    assert torch.equal(model.weight, expected)


def test_a_program_of_the_existing_client(folder: Path) -> None:
    """Its parameters, in its order and spelling, with a log of its own."""
    learner = FakeLearner(folder)
    model = nn.Sequential(build(), nn.LogSoftmax(dim=1))
    callback = SwarmCallback(
        128,
        2,
        "defaultbb.cqdb.sml.hpe",
        useAdaptiveSync=False,
        adsValData=LOADER,
        adsValBatchSize=16,
        mergeMethod="geomedian",
        nodeWeightage=100,
        ml_platform="PYTORCH",
        model=model,
        totalEpochs=2,
        lossFunction="NLLLoss",
        lossFunctionArgs={"reduction": "sum"},
        metricFunction="F1Score",
        metricFunctionArgs={"task": "multiclass", "num_classes": 2, "average": None},
        hfMode="full",
    )
    train(model, callback, epochs=1)
    reports = [message for message in learner.join() if message["type"] == "report"]
    assert 0 < float(reports[-1]["metric"]) < 1  # F1 of both classes, averaged
    assert learner.received[0]["mergeMethod"] == "geomedian"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": None}, "Pytorch model is None"),
        ({"model": object()}, "not object"),
        ({"adsValData": (X, Y)}, "adsValData type passed is .*tuple"),
        ({"lossFunction": "NoSuchLoss"}, "Invalid value lossFunction: NoSuchLoss"),
        ({"lossFunction": "functional"}, "a class in torch.nn"),
        ({"lossFunction": nn.NLLLoss()}, "Give the name of a class"),
        ({"lossFunction": "NLLLoss", "lossFunctionArgs": [1]}, "has to be a dictionary, not list"),
        ({"lossFunction": "NLLLoss", "lossFunctionArgs": {"a": 1}}, "cannot be made of"),
        ({"lossFunctionArgs": {"reduction": "sum"}}, "given without lossFunction"),
        ({"metricFunction": "NoSuchMetric"}, "a class in torchmetrics"),
        ({"metricFunction": "F1Score"}, "metricFunction F1Score cannot be made"),
        ({"useAdaptiveSync": True, "adsValData": LOADER}, "give lossFunction, too"),
        ({"ml_platform": "KERAS"}, "Invalid ml platform type: KERAS"),
        ({"model": nn.LazyLinear(2)}, "run one batch"),
    ],
)
def test_complaints(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SwarmError, match=said):
        SwarmCallback(9, 1, **{"model": build(), **options})


def test_torchmetrics_is_asked_for_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.setenv("SWARM_LOOPBACK", "true")
    SwarmCallback(9, 1, model=build(), adsValData=LOADER, lossFunction="NLLLoss")
    with pytest.raises(SwarmError, match="pip install torchmetrics"):
        SwarmCallback(9, 1, model=build(), adsValData=LOADER, metricFunction="Accuracy")


def test_alone_nothing_is_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_LOOPBACK", "True")
    model = build()
    callback = SwarmCallback(2, 2, model=model)
    losses = train(model, callback, epochs=1)
    assert len(losses) == 6
    assert callback.epochsCompleted == 1


def test_empty_validation_data_is_no_division_by_zero(folder: Path) -> None:
    FakeLearner(folder)
    empty = DataLoader(TensorDataset(X[:0], Y[:0]))
    callback = SwarmCallback(2, 1, model=build(), adsValData=empty, lossFunction="NLLLoss")
    with pytest.raises(SwarmError, match="adsValData has no samples"):
        callback.on_train_begin()


@pytest.mark.parametrize("samples", [[X[0]] * 4, [{"x": X[0], "y": 1}] * 4], ids=["x", "dict"])
def test_batches_without_a_target_are_named(folder: Path, samples: Any) -> None:
    FakeLearner(folder)
    loader = DataLoader(samples, batch_size=2)
    callback = SwarmCallback(2, 1, model=build(), adsValData=loader, lossFunction="NLLLoss")
    with pytest.raises(SwarmError, match=r"have to be \(input, target\)"):
        callback.on_train_begin()


def test_adaptive_sync_follows_the_named_loss(folder: Path) -> None:
    learner = FakeLearner(folder)
    model = build()
    callback = SwarmCallback(
        9, 1, model=model, useAdaptiveSync=True, adsValData=LOADER, lossFunction="CrossEntropyLoss"
    )
    train(model, callback, epochs=1)
    learner.join()
    assert learner.received[0]["adaptive"] is True
    losses = [float(message["loss"]) for message in learner.received if message["type"] == "report"]
    assert losses[0] != losses[-1] > 0
