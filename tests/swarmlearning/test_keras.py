"""The Keras callback with real models; slow, as importing TensorFlow takes seconds."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarmlearning import SwarmError, keras_compat
from tests.swarmlearning.fake_sl import Arrays, FakeLearner

pytestmark = pytest.mark.slow

X = np.random.default_rng(1).normal(size=(64, 6)).astype(np.float32)
Y = (X.sum(axis=1) > 0).astype(np.int32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARM_LINK", str(tmp_path))
    monkeypatch.delenv("SWARM_LOOPBACK", raising=False)
    return tmp_path


@pytest.fixture(params=["keras 3", "tf_keras"])
def keras(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip("tensorflow")
    if request.param == "keras 3":
        import tensorflow as tf

        return tf.keras
    return pytest.importorskip("tf_keras")


def build(keras: Any, metrics: tuple[str, ...] = ("accuracy",)) -> Any:
    """A model with everything that is awkward: equal names, statistics, dropout, two metrics."""
    model = keras.Sequential(
        [
            keras.layers.Input(shape=(6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=list(metrics))
    return model


def halve(_: int, arrays: Arrays) -> Arrays:
    return {name: (array * 0.5).astype(array.dtype) for name, array in arrays.items()}


def test_fit_merges_reports_and_ends_with_the_swarms_model(keras: Any, folder: Path) -> None:
    from swarmlearning.tf import SwarmCallback

    learner = FakeLearner(folder, merge=halve)
    model = build(keras)
    before = model.get_weights()
    callback = SwarmCallback(4, 2, adsValData=(X, Y), adsValBatchSize=32, totalEpochs=2)
    # 16 batches: merges at the begin, after 5, 9, 13, and at the end.
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[callback])
    learner.join()

    assert len(learner.handed_in) == 5
    handed_in = list(learner.handed_in[0].values())
    assert len(handed_in) == len(before) == 10
    for sent, weight in zip(handed_in, before, strict=True):
        np.testing.assert_array_equal(sent, weight)
    assert len(set(learner.handed_in[0])) == 10
    for final, sent in zip(model.get_weights(), learner.handed_in[-1].values(), strict=True):
        np.testing.assert_array_equal(final, (sent * 0.5).astype(sent.dtype))

    reports = [message for message in learner.received if message["type"] == "report"]
    loss, accuracy = model.evaluate(X, Y, batch_size=32, verbose=0)
    assert float(reports[-1]["loss"]) == pytest.approx(loss, rel=1e-4)
    assert float(reports[-1]["metric"]) == pytest.approx(accuracy, rel=1e-4)
    assert [report["epochs"] for report in reports] == [0, 0, 1, 1, 2]


def test_measuring_does_not_touch_the_metrics_of_the_epoch(keras: Any, folder: Path) -> None:
    from swarmlearning.tf import SwarmCallback

    def history(*callbacks: Any) -> list[float]:
        keras.utils.set_random_seed(7)
        model = build(keras)
        fitted = model.fit(
            X, Y, batch_size=8, epochs=2, verbose=0, shuffle=False, callbacks=list(callbacks)
        )
        return [
            float(fitted.history[name][epoch]) for name in ("loss", "accuracy") for epoch in (0, 1)
        ]

    learner = FakeLearner(folder)  # gives back what it got, so training is not disturbed either
    measured = history(SwarmCallback(3, 1, adsValData=(X[:16], Y[:16])))
    learner.join()
    assert measured == pytest.approx(history(), rel=1e-5)


def test_names_do_not_depend_on_what_was_built_before(keras: Any, folder: Path) -> None:
    from swarmlearning.tf import SwarmCallback

    names = []
    for _ in range(2):
        learner = FakeLearner(folder)
        model = build(keras)
        model.fit(X, Y, batch_size=64, verbose=0, callbacks=[SwarmCallback(4, 2)])
        learner.join()
        names.append(list(learner.handed_in[0]))
    assert names[0] == names[1]
    assert names[0][:2] == ["0000/kernel", "0001/bias"]


def test_the_end_of_the_swarm_stops_the_loop(keras: Any, folder: Path) -> None:
    from swarmlearning.tf import SwarmCallback

    learner = FakeLearner(folder, merge=halve, over_after_syncs=2)
    model = build(keras)
    fitted = model.fit(X, Y, batch_size=8, epochs=9, verbose=0, callbacks=[SwarmCallback(1, 2)])
    learner.join()
    assert len(fitted.history["loss"]) == 1
    for final, sent in zip(model.get_weights(), learner.handed_in[-1].values(), strict=True):
        np.testing.assert_array_equal(final, (sent * 0.5).astype(sent.dtype))


@pytest.mark.parametrize("form", ["weights", "dataset", "generator"])
def test_forms_of_validation_data(folder: Path, form: str) -> None:
    import tensorflow as tf

    from swarmlearning.tf import SwarmCallback

    data: Any = (X, Y, np.ones(len(X)))
    if form == "dataset":
        data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    if form == "generator":  # is used up after one round
        data = ((X[at : at + 16], Y[at : at + 16]) for at in range(0, len(X), 16))
    learner = FakeLearner(folder)
    model = build(tf.keras)
    model.fit(X, Y, verbose=0, callbacks=[SwarmCallback(9, 1, adsValData=data)])
    reports = [message for message in learner.join() if message["type"] == "report"]
    assert float(reports[-1]["loss"]) == pytest.approx(model.evaluate(X, Y, verbose=0)[0], rel=1e-4)


def test_a_loss_without_metrics(folder: Path) -> None:
    import tensorflow as tf

    from swarmlearning.tf import SwarmCallback

    learner = FakeLearner(folder)
    model = build(tf.keras, metrics=())
    model.fit(X, Y, verbose=0, callbacks=[SwarmCallback(9, 1, adsValData=(X, Y))])
    assert [m["metric"] for m in learner.join() if m["type"] == "report"] == ["0", "0"]


def test_bfloat16_weights_travel_as_they_are(folder: Path) -> None:
    import tensorflow as tf

    from swarmlearning.tf import SwarmCallback

    learner = FakeLearner(folder)
    model = tf.keras.Sequential(
        [tf.keras.layers.Input((6,)), tf.keras.layers.Dense(2, dtype="bfloat16")]
    )
    model.compile("sgd", "mse")
    model.fit(X, X[:, :2], verbose=0, callbacks=[SwarmCallback(9, 1)])
    learner.join()
    sent = learner.handed_in[-1]["0000/kernel"]
    assert sent.dtype.name == "bfloat16"
    np.testing.assert_array_equal(model.get_weights()[0], sent)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ml_platform": "TF"}, "tf and sess params are must"),
        ({"ml_platform": "TF", "tf": 1, "sess": 1}, "TensorFlow 1 are not supported"),
        ({"adsValData": (X,)}, "has 1 parts"),
        ({"adsValData": (x for x in ())}, "it gave no batch"),
        ({"adsValData": ((X, Y) for _ in itertools.count())}, "more than 1000 batches"),
    ],
)
def test_complaints_of_this_framework(options: dict[str, Any], said: str) -> None:
    from swarmlearning.tf import SwarmCallback

    with pytest.raises(SwarmError, match=said):
        SwarmCallback(9, 1, **options)


def test_a_program_of_keras_2_saves_into_a_directory(tmp_path: Path) -> None:
    import tensorflow as tf

    import swarmlearning.tf  # noqa: F401 - what such a program imports

    model = build(tf.keras)
    target = tmp_path / "saved_models" / "mnist"
    model.save(target, save_format="tf")
    loaded = tf.saved_model.load(str(target))  # its variables live as long as it does
    served = loaded.serve(X)
    np.testing.assert_allclose(served, model.predict(X, verbose=0), rtol=1e-4, atol=1e-6)
    again = tf.keras.models.load_model(target / "model.keras")
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])
    model.save(tmp_path / "one.keras")
    model.save(tmp_path / "two.h5", save_format="h5")
    assert (tmp_path / "one.keras").is_file()
    assert (tmp_path / "two.h5").is_file()


def test_a_program_of_keras_2_as_a_whole(folder: Path) -> None:
    """Positional parameters, arguments and formats as they were written then."""
    import tensorflow as tf

    from swarmlearning.tf import SwarmCallback

    learner = FakeLearner(folder)
    model = tf.keras.models.Sequential()
    model.add(tf.keras.layers.Dense(1, input_shape=(6,), activation="sigmoid"))
    optimizer = tf.keras.optimizers.SGD(learning_rate=0.01, decay=1e-6, momentum=0.9, nesterov=True)
    model.compile(loss="binary_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    swarm = SwarmCallback(
        4, 1, "defaultbb.cqdb.sml.hpe", mergeMethod="mean", nodeWeightage=50, adsValData=(X, Y),
        adsValBatchSize=32, checkinModelOnTrainEnd="active", mlPlatform="KERAS",
    )  # fmt: skip
    model.fit(X, Y, batch_size=8, verbose=0, validation_data=(X, Y), callbacks=[swarm])
    assert learner.join()[0]["mode"] == "active"
    model.save(os.path.join(folder, "fraud"))  # noqa: PTH118 - as such programs do
    assert (folder / "fraud" / "saved_model.pb").is_file()


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Nadam"])
def test_optimizers_with_arguments_of_keras_2(keras: Any, name: str) -> None:
    keras_compat.install(keras)
    keras_compat.install(keras)  # once is enough
    optimizer = getattr(keras.optimizers, name)(lr=0.1, decay=0.5)
    model = keras.Sequential([keras.layers.Input(shape=(6,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    model.fit(X, X[:, :1], batch_size=16, epochs=1, verbose=0)
    # In Keras 2: rate / (1 + decay * steps). tf_keras shows the rate of the last step.
    steps = 4 if "tf_keras" not in keras.Model.__module__ else 3
    assert float(optimizer.learning_rate) == pytest.approx(0.1 / (1 + 0.5 * steps))
    make = getattr(keras.optimizers, name)
    assert float(make(decay=0.0).learning_rate) == pytest.approx(0.001, rel=10)
    assert float(make(0.25).learning_rate) == 0.25
    schedule = keras.optimizers.schedules.InverseTimeDecay(0.5, 1, 1.0)
    assert float(make(schedule, decay=0.1).learning_rate) == 0.5
    with pytest.raises((TypeError, ValueError), match="nonsense"):
        make(nonsense=1)


def test_the_switch_leaves_keras_alone() -> None:
    class Untouched:
        Model = None  # nothing is asked of it

    keras_compat.install(Untouched, {"SWARM_KERAS_COMPAT": "False"})


def test_legacy_keras_as_the_only_keras(folder: Path) -> None:
    """TF_USE_LEGACY_KERAS turns tf.keras into tf_keras; the callback's base class is another."""
    pytest.importorskip("tf_keras")
    learner = FakeLearner(folder)
    program = (
        "import numpy as np, tensorflow as tf\n"
        "from swarmlearning.tf import SwarmCallback\n"
        "assert 'tf_keras' in tf.keras.Model.__module__\n"
        "x = np.ones((8, 3), 'float32')\n"
        "model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(3,))])\n"
        "optimizer = tf.keras.optimizers.SGD(learning_rate=0.01, decay=1e-6, nesterov=True)\n"
        "model.compile(optimizer, 'mse')\n"
        "model.fit(x, x[:, :1], verbose=0, callbacks=[SwarmCallback(2, 1)])\n"
        f"model.save({str(folder / 'saved')!r})\n"
    )
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "SWARM_LINK": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    learner.join()
    assert (folder / "saved" / "saved_model.pb").is_file()
    assert done.stdout.rstrip().endswith(
        "SwarmCallback : INFO : All peers and Swarm training rounds finished. "
        "Final Swarm model was loaded."
    )
