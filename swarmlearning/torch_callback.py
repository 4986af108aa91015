"""What the callbacks for PyTorch and for Hugging Face share: a module's tensors in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from swarmlearning import torch_weights
from swarmlearning.callback import SwarmCallbackBase
from swarmlearning.errors import SwarmError
from swarmlearning.tensors import Array


class TorchCallback(SwarmCallbackBase):
    """Hands `_weights` in, and merged values into the same tensors."""

    _model: torch.nn.Module

    def _take(self, model: Any) -> None:
        """Take `model` for the one that is trained. Raises SwarmError when it cannot be merged."""
        if not isinstance(model, torch.nn.Module):
            raise SwarmError(f"model has to be a torch.nn.Module, not {type(model).__name__}")
        torch_weights.refuse_many_processes()
        self._model = torch_weights.unwrap(model)

    def _weights(self) -> dict[str, torch.Tensor]:
        """The tensors to merge, by name."""
        return torch_weights.to_merge(self._model, self._model.state_dict(keep_vars=True))

    def _saveModelWeightsToDict(self) -> dict[str, Array]:
        return torch_weights.to_arrays(self._weights())

    def _loadModelWeightsFromDict(self, inDict: Mapping[str, Array]) -> None:
        torch_weights.load(self._weights(), inDict)
