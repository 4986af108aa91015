"""The Hugging Face callback inside the real Trainer, with models of a few thousand numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarmlearning import SwarmError
from tests.swarmlearning.fake_sl import Arrays, FakeLearner

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from swarmlearning.hf_transformers import SwarmCallback  # noqa: E402

pytestmark = pytest.mark.slow
torch.set_num_threads(1)  # so small models are fastest on one core

WORDS, CLASSES = 40, 3
SAMPLES = [
    {"input_ids": ids.tolist(), "labels": int(ids[0]) % CLASSES, "text": "left out"}
    for ids in np.random.default_rng(1).integers(0, WORDS, (24, 6))
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARM_LINK", str(tmp_path))
    monkeypatch.delenv("SWARM_LOOPBACK", raising=False)

    def no_hub(*_: Any, **__: Any) -> None:
        raise AssertionError("the model hub is asked")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", no_hub)
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", no_hub)
    return tmp_path


def classifier() -> Any:
    torch.manual_seed(3)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=WORDS,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
            num_labels=CLASSES,
        )
    )


def lora(model: Any, name: str = "default") -> Any:
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False
    )
    return peft.get_peft_model(model, config, adapter_name=name)


def train(folder: Path, model: Any, callback: Any, steps: int = 6, **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=4,
        max_steps=steps,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=SAMPLES, callbacks=[callback]
    )
    trainer.train()
    return trainer


def halve(_: int, arrays: Arrays) -> Arrays:
    return {
        name: (array * np.asarray(0.5, array.dtype)) if array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }


def equal(model: Any, arrays: Arrays) -> None:
    state = model.state_dict()
    for name, array in arrays.items():
        np.testing.assert_array_equal(state[name].numpy(), array)


def reports(learner: FakeLearner) -> list[tuple[float, float]]:
    return [
        (float(message["loss"]), float(message["metric"]))
        for message in learner.join()
        if message["type"] == "report"
    ]


def test_a_whole_model_merges_and_is_measured(folder: Path) -> None:
    learner = FakeLearner(folder, merge=halve)
    model = classifier()
    callback = SwarmCallback(
        2,
        2,
        model=model,
        adsValData=SAMPLES[:10],
        adsValBatchSize=4,
        metricFunction="Accuracy",
        metricFunctionArgs={"task": "multiclass", "num_classes": CLASSES},
    )
    # Steps of two batches each: merges at the begin, after 3 and 5, and at the end.
    train(folder, model, callback, gradient_accumulation_steps=2)
    measured = reports(learner)
    assert len(learner.handed_in) == 4
    assert set(learner.handed_in[0]) == set(model.state_dict())
    equal(model, halve(0, learner.handed_in[-1]))

    model.eval()
    ids = torch.tensor([sample["input_ids"] for sample in SAMPLES[:10]])
    labels = torch.tensor([sample["labels"] for sample in SAMPLES[:10]])
    with torch.no_grad():
        outputs = model(input_ids=ids, labels=labels)
    accuracy = float((outputs.logits.argmax(1) == labels).float().mean())
    assert measured[-1] == pytest.approx((float(outputs.loss), accuracy), rel=1e-4)


def test_the_end_of_the_swarm_stops_the_trainer(folder: Path) -> None:
    learner = FakeLearner(folder, merge=halve, over_after_syncs=2)
    model = classifier()
    trainer = train(folder, model, SwarmCallback(1, 2, model=model), steps=50)
    learner.join()
    assert trainer.state.global_step == 2
    equal(model, halve(0, learner.handed_in[-1]))


def test_adapters_merge_and_nothing_else_travels(folder: Path) -> None:
    learner = FakeLearner(folder, merge=halve)
    model = lora(classifier(), "mine")
    base = {
        name: tensor.clone() for name, tensor in model.state_dict().items() if "lora" not in name
    }
    train(folder, model, SwarmCallback(2, 2, model=model, hfMode="peft"))
    learner.join()
    saved = peft.get_peft_model_state_dict(model, adapter_name="mine", save_embedding_layers=False)
    sent = learner.handed_in[-1]
    assert sent.keys() == saved.keys()
    assert not any("mine" in name for name in sent)
    assert sum(array.nbytes for array in sent.values()) == sum(
        tensor.numel() * 4 for tensor in model.parameters() if tensor.requires_grad
    )
    for name, array in halve(0, sent).items():
        np.testing.assert_array_equal(saved[name].detach().numpy(), array)
    for name, tensor in model.state_dict().items():
        if name in base and "modules_to_save" not in name:
            assert torch.equal(tensor, base[name]), name


def test_peft_takes_what_the_trainer_has_made_of_the_model(folder: Path) -> None:
    """A program may give the callback one model and the Trainer another, wrapped around it."""
    learner = FakeLearner(folder)
    inner = lora(classifier())
    other = lora(classifier())
    train(folder, other, SwarmCallback(9, 1, model=inner, hfMode="PEFT"), steps=1)
    learner.join()
    sent = learner.handed_in[-1]
    saved = peft.get_peft_model_state_dict(other, save_embedding_layers=False)
    name = next(name for name in sent if "lora_A" in name)
    np.testing.assert_array_equal(sent[name], saved[name].detach().numpy())


def generator() -> Any:
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=8, n_embd=16, n_layer=1, n_head=2
    )
    return transformers.GPT2LMHeadModel(config)


def test_tied_embeddings_travel_once_and_stay_tied(folder: Path) -> None:
    learner = FakeLearner(folder, merge=halve)
    model = generator()
    callback = SwarmCallback(9, 1, model=model)
    callback.on_train_begin(None, None, None)
    sent = learner.handed_in[0]
    assert "lm_head.weight" in sent
    assert "transformer.wte.weight" not in sent
    assert model.lm_head.weight is model.transformer.wte.weight
    np.testing.assert_array_equal(
        model.transformer.wte.weight.detach().numpy(), sent["lm_head.weight"] * np.float32(0.5)
    )


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (lambda: peft.LoraConfig(target_modules=["c_attn"], use_dora=True), "magnitude"),
        (lambda: peft.LoraConfig(target_modules=["c_attn"], bias="all"), "bias"),
        (lambda: peft.LoraConfig(target_modules=["wte"]), "lora_embedding_A"),
        (lambda: peft.IA3Config(target_modules=["c_attn"], feedforward_modules=[]), "ia3_l"),
        (lambda: peft.PromptTuningConfig(num_virtual_tokens=3), "prompt_encoder"),
        (
            lambda: peft.PrefixTuningConfig(
                num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=4
            ),
            "transform",
        ),
    ],
    ids=["dora", "biases", "embedding", "ia3", "prompt", "prefix"],
)
def test_every_number_that_a_peft_method_trains_merges(
    folder: Path, config: Any, part: str
) -> None:
    made = config()
    made.task_type = "CAUSAL_LM"
    model = peft.get_peft_model(generator(), made)
    learner = FakeLearner(folder, merge=halve)
    before = {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    SwarmCallback(9, 1, model=model, hfMode="peft").on_train_begin(None, None, None)
    assert any(part in name for name in learner.handed_in[0])
    after = dict(model.named_parameters())
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor * 0.5), name


def test_measuring_with_a_named_loss_and_a_loader(folder: Path) -> None:
    learner = FakeLearner(folder)
    model = classifier()
    keep = [{k: torch.tensor(v) for k, v in one.items() if k != "text"} for one in SAMPLES]
    callback = SwarmCallback(
        9,
        1,
        model=model,
        adsValData=torch.utils.data.DataLoader(keep, batch_size=5),
        lossFunction="CrossEntropyLoss",
        lossFunctionArgs={"reduction": "sum"},
    )
    model.config.return_dict = False
    callback.on_train_begin(None, None, None)
    callback.on_train_end(None, None, None)
    model.config.return_dict = True
    model.eval()
    ids = torch.stack([sample["input_ids"] for sample in keep])
    labels = torch.stack([sample["labels"] for sample in keep])
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=labels).loss)
    assert reports(learner)[-1] == pytest.approx((loss, 0.0), rel=1e-4)


def test_a_batch_without_labels_is_named(folder: Path) -> None:
    FakeLearner(folder)
    model = classifier()
    samples = [{"input_ids": torch.tensor(one["input_ids"])} for one in SAMPLES]
    callback = SwarmCallback(9, 1, model=model, adsValData=samples)
    with pytest.raises(SwarmError, match=r"no labels, only \['input_ids'\]"):
        callback.on_train_begin(None, None, None)


def test_batches_that_are_no_dictionaries_are_named(folder: Path) -> None:
    FakeLearner(folder)
    loader = torch.utils.data.DataLoader(torch.zeros(4, 2))
    callback = SwarmCallback(9, 1, model=classifier(), adsValData=loader)
    with pytest.raises(SwarmError, match="have to be dictionaries"):
        callback.on_train_begin(None, None, None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": None}, "Hugging Face model is None"),
        ({"model": "bert-base-cased"}, "not str"),
        ({"hfMode": "half"}, r"Invalid Hugging Face model type: half. Allowed .*'full', 'peft'"),
        ({"hfMode": "peft"}, "BertForSequenceClassification and no PeftModel"),
        ({"adsValData": iter(())}, "adsValData type passed is"),
        ({"ml_platform": "PYTORCH"}, "Invalid ml platform type: PYTORCH"),
    ],
)
def test_complaints(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SwarmError, match=said):
        SwarmCallback(9, 1, **{"model": classifier(), **options})


def test_peft_is_asked_for_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_LOOPBACK", "true")
    monkeypatch.setitem(sys.modules, "peft", None)
    SwarmCallback(9, 1, model=classifier())
    with pytest.raises(SwarmError, match="pip install peft"):
        SwarmCallback(9, 1, model=classifier(), hfMode="peft")
