"""The callback for Hugging Face's Trainer, for whole models and for PEFT adapters.

callback = SwarmCallback(syncFrequency=16, minPeers=2, model=model, hfMode="peft")
Trainer(model=model, args=args, train_dataset=data, callbacks=[callback]).train()
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from swarmlearning import torch_measure, torch_weights
from swarmlearning.errors import SwarmError
from swarmlearning.settings import HFMode, SLPlatforms
from swarmlearning.torch_callback import TorchCallback

__all__ = ["SwarmCallback", "SwarmError"]

LABELS = ("labels", "label", "label_ids")
DEFAULT_BATCH = 8  # the Trainer's own


class SwarmCallback(TorchCallback, TrainerCallback):  # type: ignore[misc]
    """Merges a Transformers model with its peers while `Trainer.train` runs. See SwarmCallbackBase.

    The Trainer calls all hooks by itself. `syncFrequency` counts optimizer steps: with gradient
    accumulation, one step takes several batches.

    `hfMode` "full" (the default) merges the whole model. "peft" merges the one active adapter of a
    PeftModel, with the modules that are trained and saved beside it; only these travel. The base
    model, which nobody trains, must be the same on all nodes, and is not compared.

    `adsValData` is a DataLoader, or a data set that is collated as the training's is, in batches of
    `adsValBatchSize`. The merged model is measured on it after each round, for the reports. The
    loss is the model's own unless `lossFunction` names a class in torch.nn, which is given logits
    and labels, as is `metricFunction`, a class in torchmetrics.
    """

    platforms = (SLPlatforms.HF_TRANSFORMER,)

    def _verifyAndSetPlatformContext(self, params: Mapping[str, Any]) -> None:
        model = params.get("model")
        if model is None:
            raise SwarmError("Hugging Face model is None")
        self._mode = _mode(params.get("hfMode", HFMode.full))
        self._measure = torch_measure.Measure(params)
        self._use(model)

    def _getValidationDataForAdaptiveSync(
        self, valData: Any, valBatchSize: int | None
    ) -> tuple[Any, Any, Any, Any, Any]:
        if not isinstance(valData, DataLoader) and not hasattr(valData, "__getitem__"):
            raise SwarmError(
                f"adsValData type passed is {type(valData)}; give a DataLoader or a data set "
                "whose samples have numbers, as the training's"
            )
        return valData, None, None, None, None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Merge once before the first step, the model that the Trainer has."""
        # Trainers may wrap what they are given, for example when they add the adapters themselves.
        if kwargs.get("model") is not None:
            self._use(kwargs["model"])
        if self.valGen is not None and not isinstance(self.valGen, DataLoader):
            self.valGen = self._loader(kwargs.get("train_dataloader"))
        super().on_train_begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Merge when it is time to; ends the training when the swarm's is over."""
        self.on_batch_end()
        if self.isSwarmTrainingOver:
            control.should_training_stop = True

    def _use(self, model: Any) -> None:
        """Take `model`, and check that it fits the mode. Raises SwarmError."""
        self._take(model)
        if self._mode is HFMode.full and hasattr(self._model, "peft_config"):
            self.logger.info("hfMode is full: the base model travels, too. 'peft' sends adapters")
        self._weights()

    def _weights(self) -> dict[str, torch.Tensor]:
        state = self._model.state_dict(keep_vars=True)
        if self._mode is HFMode.peft:
            state = _adapter(self._model, state)
        return torch_weights.to_merge(self._model, state)

    def _calculateLocalLossAndMetrics(self) -> tuple[float, float]:
        device = torch_measure.device_of(self._model)
        self._measure.begin(device)
        with torch_measure.undisturbed(self._model):
            for batch in self.valGen:
                if not isinstance(batch, Mapping):
                    raise SwarmError("the batches of adsValData have to be dictionaries")
                inputs = torch_measure.moved(batch, device)
                labels = next((inputs[name] for name in LABELS if name in inputs), None)
                if labels is None:
                    raise SwarmError(f"a batch of adsValData has no labels, only {sorted(inputs)}")
                outputs = self._model(**inputs)
                if not isinstance(outputs, Mapping):  # return_dict=False
                    outputs = {"loss": outputs[0], "logits": outputs[1]}
                loss = outputs.get("loss")
                if loss is None and not self._measure.has_loss:
                    raise SwarmError("the model computes no loss; name one as lossFunction")
                self._measure.add(outputs["logits"], labels, loss)
        return self._measure.result()

    def _loader(self, like: Any) -> DataLoader[Any]:
        """Batches of the validation data, collated as those of the training are."""
        collate = getattr(like, "collate_fn", None) or torch.utils.data.default_collate
        base = self._model.get_base_model() if hasattr(self._model, "peft_config") else self._model
        known = {*inspect.signature(base.forward).parameters, *LABELS}

        def collated(samples: Sequence[Any]) -> Any:
            # As the Trainer does: columns that the model does not take, as texts, are left out.
            if isinstance(samples[0], Mapping):
                samples = [{k: v for k, v in one.items() if k in known} for one in samples]
            return collate(samples)

        size = self.valBatchSize or DEFAULT_BATCH
        return DataLoader(self.valGen, batch_size=size, collate_fn=collated)

    def _stopLocalTraining(self) -> None:
        self.logger.info("Swarm training is over. Stopping local training")


def _mode(value: object) -> HFMode:
    if isinstance(value, HFMode):
        return value
    allowed = [mode.name for mode in HFMode]
    if isinstance(value, str) and value.lower() in allowed:
        return HFMode[value.lower()]
    raise SwarmError(f"Invalid Hugging Face model type: {value}. Allowed values: {allowed}")


def _adapter(model: Any, state: dict[str, Any]) -> dict[str, Any]:
    """What `state`, the state dict of a PeftModel, holds of its active adapter.

    Names are those of PEFT's files, without the adapter's name, which nodes are free to choose.
    """
    try:
        import peft
    except ImportError:
        raise SwarmError("hfMode 'peft' needs the package peft: pip install peft") from None
    if not isinstance(model, peft.PeftModel):
        raise SwarmError(
            f"hfMode is 'peft', but the model is {type(model).__name__} and no PeftModel; "
            "make one by peft.get_peft_model, or use hfMode='full'"
        )
    active = list(model.active_adapters)
    if len(active) != 1:
        raise SwarmError(f"one adapter has to be active to be merged, not {active}")
    if model.peft_config[active[0]].is_prompt_learning:
        # PEFT's file holds what the prompt encoder computes; what is trained is in the model.
        return {name: item for name, item in state.items() if name.startswith("prompt_encoder.")}
    # No look at the embeddings: to learn whether they have grown, PEFT would ask the model hub.
    select: Callable[..., dict[str, Any]] = peft.get_peft_model_state_dict
    return select(model, state_dict=state, adapter_name=active[0], save_embedding_layers=False)
