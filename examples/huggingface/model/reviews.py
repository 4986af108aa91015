"""Were the writers of reviews pleased? Several nodes teach a small transformer to tell, as one
swarm. An ordinary program for Hugging Face's Trainer; its callback makes it a member.

Environment (all paths relative to the working directory, or absolute):

    DATA_DIR     holds this node's reviews, from data.py
    SCRATCH_DIR  gets result.json, or result-peft.json
    MODEL_DIR    gets the trained model, or the trained adapter; default SCRATCH_DIR
    TOPIC        restaurants or films; default restaurants
    HF_MODE      full: a new model is trained, and all of it is merged (the default)
                 peft: adapters are trained on top of the model that `full` has left, and only they
                 are merged
    MAX_EPOCHS   default 3
    MIN_PEERS    how many nodes a merge needs; default 2
"""

import csv
import hashlib
import json
import os
import statistics
from pathlib import Path

import peft
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from swarmlearning.hf_transformers import SwarmCallback

BATCH_SIZE = 32
SYNC_FREQUENCY = 25  # optimizer steps between two merges
MEASURED = 200  # reviews on which each merged model is measured


def main() -> None:
    data_dir = Path(os.environ.get("DATA_DIR", "."))
    scratch_dir = Path(os.environ.get("SCRATCH_DIR", "."))
    model_dir = Path(os.environ.get("MODEL_DIR", scratch_dir))
    topic = os.environ.get("TOPIC", "restaurants")
    mode = os.environ.get("HF_MODE", "full")
    max_epochs = int(os.environ.get("MAX_EPOCHS", "3"))
    min_peers = int(os.environ.get("MIN_PEERS", "2"))

    set_seed(1)
    tokenizer = build_tokenizer()
    train = load_reviews(data_dir / f"{topic}.csv", tokenizer)
    test = load_reviews(data_dir / f"{topic}-test.csv", tokenizer)
    print(f"{len(train)} reviews to train on, {len(test)} to test with", flush=True)

    model = build_model(tokenizer)
    model_path = model_dir / "model"
    if mode == "peft":
        model = build_adapter(model_path)
        model_path = model_dir / "adapter"
    swarm_callback = SwarmCallback(
        syncFrequency=SYNC_FREQUENCY,
        minPeers=min_peers,
        mergeMethod="mean",
        nodeWeightage=100,
        model=model,
        hfMode=mode,
        totalEpochs=max_epochs,
        adsValData=test[:MEASURED],
        adsValBatchSize=MEASURED,
        metricFunction="Accuracy",
        metricFunctionArgs={"task": "multiclass", "num_classes": 2},
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(scratch_dir / "trainer"),
            num_train_epochs=max_epochs,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=MEASURED,
            learning_rate=3e-3,
            lr_scheduler_type="constant",
            save_strategy="no",
            logging_steps=SYNC_FREQUENCY,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=train,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
        callbacks=[swarm_callback],
    )
    trainer.train()

    scores = trainer.evaluate(test)
    model.save_pretrained(model_path)
    swarm_callback.logger.info("Saved the trained model - %s", model_path)
    merge_seconds = swarm_callback.mergeSeconds
    result = {
        "accuracy": round(scores["eval_accuracy"], 4),
        "loss": round(scores["eval_loss"], 4),
        "rounds": swarm_callback.roundsMerged,
        "median_merge_seconds": round(statistics.median(merge_seconds), 3) if merge_seconds else 0,
        "weights_sha256": digest(model),
        "model": os.path.relpath(model_path, scratch_dir),
    }
    name = "result-peft.json" if mode == "peft" else "result.json"
    write_whole(scratch_dir / name, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result), flush=True)


def build_tokenizer():
    """Words are tokens. The vocabulary lies beside this program, the same on all nodes."""
    words = (Path(__file__).parent / "vocab.txt").read_text().split()
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", vocabulary["[CLS]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]"
    )


def load_reviews(path, tokenizer):
    if not path.is_file():
        raise SystemExit(f"There is no {path}. Put the reviews there with data.py.")
    with path.open(newline="") as file:
        return [
            {"labels": int(row["label"]), **tokenizer(row["text"])} for row in csv.DictReader(file)
        ]


def build_model(tokenizer):
    """A BERT with two layers and 22 thousand numbers, untrained."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            pad_token_id=tokenizer.pad_token_id,
            num_labels=2,
        )
    )


def build_adapter(path):
    """LoRA on the model that an earlier training has left; its classifier is trained, too.

    The films' words are new to that model, so the embeddings of words get an adapter as well.
    """
    if not path.is_dir():
        raise SystemExit(f"There is no {path}. Train with HF_MODE=full first.")
    base = BertForSequenceClassification.from_pretrained(path, local_files_only=True)
    layers = ["word_embeddings", "query", "value"]
    config = peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=layers)
    model = peft.get_peft_model(base, config)
    model.print_trainable_parameters()
    return model


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def digest(model):
    """SHA-256 over all weights: equal on all nodes that ended with the same model."""
    hasher = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        hasher.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def write_whole(path, text):
    """Write in one step, so that whoever watches for the file finds all of it."""
    draft = path.with_suffix(".part")
    draft.write_text(text)
    draft.replace(path)


if __name__ == "__main__":
    main()
