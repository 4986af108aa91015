"""Loss and metric of a PyTorch model on validation data, by the names that a program gives.

    lossFunction      a class in torch.nn, as "NLLLoss"; lossFunctionArgs its keyword arguments
    metricFunction    a class in torchmetrics, as "F1Score"; metricFunctionArgs likewise

The reported loss is the mean over all samples, whatever the loss function's own `reduction`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from swarmlearning.errors import SwarmError


class Measure:
    """A loss function and a metric, either of which may be missing."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        """Make both from a callback's parameters. Raises SwarmError when that is not possible."""
        self._loss = _made(nn, "torch.nn", "lossFunction", params)
        metrics = _torchmetrics() if params.get("metricFunction") is not None else None
        self._metric = _made(metrics, "torchmetrics", "metricFunction", params)

    @property
    def has_loss(self) -> bool:
        """Whether a loss function is given."""
        return self._loss is not None

    def begin(self, device: torch.device) -> None:
        """Start anew; the batches that follow are on `device`."""
        self._sum = 0.0
        self._samples = 0
        if self._loss is not None:
            self._loss.to(device)
        if self._metric is not None:
            self._metric.to(device)
            self._metric.reset()

    def add(self, output: Any, target: Any, mean_loss: Any = None) -> None:
        """Take in one batch: the model's output and what it should have been.

        `mean_loss` is the batch's loss where the model has computed it itself.
        """
        samples = len(target) if getattr(target, "ndim", 1) else 1
        if self._loss is not None:
            loss = self._loss(output, target)
            is_sum = getattr(self._loss, "reduction", "mean") == "sum"
            self._sum += float(loss) if is_sum else float(loss.double().mean()) * samples
        elif mean_loss is not None:
            self._sum += float(mean_loss) * samples
        if self._metric is not None:
            self._metric.update(output, target)
        self._samples += samples

    def result(self) -> tuple[float, float]:
        """Mean loss and metric; 0 stands for one that was not asked for."""
        if not self._samples:
            raise SwarmError("adsValData has no samples")
        metric = 0.0
        if self._metric is not None:
            value = self._metric.compute()
            if not isinstance(value, torch.Tensor):
                raise SwarmError(
                    f"metricFunction {type(self._metric).__name__} gives "
                    f"{type(value).__name__} and no number"
                )
            metric = float(value.double().mean())  # of the classes, where it has one for each
        return self._sum / self._samples, metric


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluate inside; afterwards each module is in the mode that it was in.

    The training's random numbers stay the same, too: a DataLoader draws one when it starts.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first tensor is."""
    for tensor in model.parameters():
        return tensor.device
    return torch.device("cpu")


def moved(batch: Any, device: torch.device) -> Any:
    """A batch, or tuples, lists and dicts of tensors, on `device`."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: moved(item, device) for name, item in batch.items()}
    if isinstance(batch, (tuple, list)):
        return [moved(item, device) for item in batch]
    return batch


def _made(source: Any, where: str, name: str, params: Mapping[str, Any]) -> Any:
    """An instance of the class that parameter `name` names, or None without one."""
    chosen, arguments = params.get(name), params.get(f"{name}Args")
    if arguments is not None and not isinstance(arguments, Mapping):
        raise SwarmError(f"{name}Args has to be a dictionary, not {type(arguments).__name__}")
    if chosen is None:
        if arguments:
            raise SwarmError(f"{name}Args is given without {name}")
        return None
    made = getattr(source, chosen, None) if isinstance(chosen, str) else None
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        raise SwarmError(f"Invalid value {name}: {chosen}. Give the name of a class in {where}")
    return _called(made, arguments or {}, f"{name} {chosen}")


def _called(made: Any, arguments: Mapping[str, Any], what: str) -> Any:
    try:
        return made(**arguments)
    except (TypeError, ValueError, RuntimeError, ImportError) as error:
        raise SwarmError(f"{what} cannot be made of {dict(arguments)}: {error}") from error


def _torchmetrics() -> Any:
    try:
        import torchmetrics
    except ImportError:
        raise SwarmError(
            "metricFunction names a class in torchmetrics, which is not installed: "
            "pip install torchmetrics"
        ) from None
    return torchmetrics
