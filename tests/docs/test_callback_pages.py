"""The Python on the pages about callbacks runs as it stands there, against a learner of a test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarm.ledger.state import pace
from swarmlearning.settings import KNOWN, MERGE_ARGS, SLMergeMethod
from tests.docs.test_commands import REPOSITORY
from tests.swarmlearning.fake_sl import FakeLearner

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
REFERENCE = (REPOSITORY / "docs/reference/callbacks.md").read_text()
PORTING = (REPOSITORY / "docs/how-to/port-a-framework.md").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARM_LINK", str(tmp_path))
    monkeypatch.delenv("SWARM_LOOPBACK", raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "framework"),
    [
        ("tf", "tensorflow"),
        ("pyt", "torch"),
        ("hf_transformers", "transformers"),
        ("sklearn", "sklearn"),
        ("numpy", "numpy"),
    ],
)
def test_programs_of_the_reference(
    folder: Path, module: str, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(framework)
    monkeypatch.chdir(folder)
    (program,) = (text for text in BLOCK.findall(REFERENCE) if f"swarmlearning.{module} " in text)
    learner = FakeLearner(folder)
    exec(compile(program, "callbacks.md", "exec"), {})
    learner.join()
    assert len(learner.handed_in) == 3


def test_every_method_is_in_the_table() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \|(.*?)\|", REFERENCE, re.MULTILINE))
    for method in SLMergeMethod:
        assert set(re.findall(r"`(\w+)`", table[method.name])) == set(MERGE_ARGS.get(method, {}))


def test_every_parameter_is_described() -> None:
    # `tf` and `sess` are of TensorFlow 1, which is refused.
    for name in KNOWN - {"tf", "sess"}:
        assert f"`{name}`" in REFERENCE or f'`{name}="' in REFERENCE, name


def test_the_law_of_adaptive_sync_is_the_one_of_the_ledger() -> None:
    assert f"the last {pace.WINDOW} such losses" in REFERENCE
    assert pace.SPAN == 8
    assert "an eighth and the eightfold" in REFERENCE
    assert (pace.following(100, True, 100), pace.following(100, False, 100)) == (125, 75)
    assert "grows by a quarter" in REFERENCE
    assert pace.UNIT == 10**9
    assert "steps of 10⁻⁹" in REFERENCE
    assert f"`Merge Done: RVInt [cur: 128 Nxt: {pace.following(128, True, 128)}]`" in REFERENCE


class Layer:
    def __init__(self) -> None:
        self.w, self.b = np.zeros((2, 1)), np.zeros(1)


class Model:
    def __init__(self) -> None:
        self.layers = [Layer()]

    def predict(self, x: Any) -> Any:
        return x @ self.layers[0].w + self.layers[0].b


def test_a_port(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(BLOCK.findall(PORTING)[0], "port-a-framework.md", "exec"), names)
    learner = FakeLearner(
        folder, merge=lambda _, arrays: {name: array + 1 for name, array in arrays.items()}
    )
    model = Model()
    swarm = names["SwarmCallback"](1, 1, model=model, adsValData=(np.ones((3, 2)), np.ones((3, 1))))
    swarm.on_train_begin()
    swarm.on_batch_end()
    swarm.on_train_end()
    learner.join()
    assert list(learner.handed_in[0]) == ["0/w", "0/b"]
    np.testing.assert_array_equal(model.layers[0].w, 2)
    reports = [(m["loss"], m["metric"]) for m in learner.received if m["type"] == "report"]
    assert reports == [("4", "2"), ("25", "5")]
    with pytest.raises(names["SwarmError"], match="give the model"):
        names["SwarmCallback"](1, 1)


def test_a_port_that_exists_already(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(BLOCK.findall(PORTING)[1], "port-a-framework.md", "exec"), names)
    learner = FakeLearner(folder)
    swarm = names["OlderCallback"](1, 1, weights={"w": np.ones(2)})
    swarm.on_train_begin()
    swarm.on_batch_end(0)
    swarm.on_epoch_end(0)
    swarm.on_train_end()
    learner.join()
    assert len(learner.handed_in) == 2
