"""A model's weights are found in its files, in the order in which the callback exchanged them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarm.audit import model
from swarm.errors import LocalError
from tests.audit.history import model as weights_of
from tests.audit.history import root_of, vector


def told(arrays: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What a record says of a model with these tensors."""
    layout, _ = vector(arrays)
    return {"tensors": layout.schema_lines(), "size": layout.size, **changes}


def test_the_right_weights_and_others() -> None:
    arrays = weights_of(1)
    result = root_of(vector(arrays)[1]).hex()
    right = list(arrays.values())
    assert model.difference(right, told(arrays), result) == ""
    assert model.difference(right, told(arrays, tensors=[]), result) == ""
    one_bit = [array.copy() for array in right]
    one_bit[3].view(np.uint32)[0] ^= 1
    swapped = [*right[:2], right[4], right[3], right[2], right[5]]  # of equal shape
    for wrong in (one_bit, swapped):
        assert "its digest is" in model.difference(wrong, told(arrays), result)
    assert "its tensor 0 is" in model.difference(right[::-1], told(arrays), result)
    assert "it has 5 tensors" in model.difference(right[:5], told(arrays), result)
    assert "take 64 bytes" in model.difference(right[:1], told(arrays, tensors=[]), result)
    with pytest.raises(LocalError, match="SW3205"):
        model.difference([np.array(["text"])], told(arrays), result)


def test_npz_files_are_read_in_order(tmp_path: Path) -> None:
    arrays = [np.full(3, number, np.float32) for number in range(12)]
    np.savez(tmp_path / "unnamed.npz", *arrays)
    np.savez(tmp_path / "named.npz", **{f"{n:04d}/bias": a for n, a in enumerate(arrays)})
    for name in ("unnamed.npz", "named.npz"):
        found = model.read_npz(tmp_path / name)
        assert [array[0] for array in found] == list(range(12))


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "trap.npz").write_bytes(pickle.dumps(Trap()))
    np.savez(tmp_path / "array.npz", np.array([Trap()], dtype=object))
    with zipfile.ZipFile(tmp_path / "config.keras", "w") as archive:
        archive.writestr("config.json", '{"module": "os", "class_name": "system", "config": "id"}')
    for name in ("trap.npz", "array.npz", "config.keras"):
        read = model.read_keras if name.endswith("keras") else model.read_npz
        with pytest.raises(LocalError) as caught:
            read(tmp_path / name)
        assert caught.value.code == "SW3205"
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY", b"{}"])
def test_files_of_other_kinds(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    for read in (model.read_npz, model.read_keras):
        with pytest.raises(LocalError, match="SW3205"):
            read(path)
        with pytest.raises(LocalError, match="SW3205"):
            read(tmp_path / "absent")


def keras_models() -> dict[str, Any]:
    """Structures whose order is easy to get wrong."""
    import tensorflow as tf

    layers, inputs = tf.keras.layers, tf.keras.Input
    dense = layers.Dense
    plain = tf.keras.Sequential(
        [inputs((4,)), dense(4), layers.Dropout(0.5), dense(4, name="odd"), dense(4), dense(2)]
    )
    convolution = tf.keras.Sequential(
        [
            inputs((8, 8, 1)), layers.Conv2D(2, 3), layers.BatchNormalization(),
            layers.Conv2D(2, 3), layers.BatchNormalization(), layers.Flatten(), dense(2),
        ]
    )  # fmt: skip
    entry = inputs((4,))
    left, right = dense(4)(entry), dense(4)(entry)
    branches = tf.keras.Model(entry, dense(4)(layers.Add()([right, left])))
    inner = tf.keras.Sequential([inputs((4,)), dense(4), dense(4)])
    nested = tf.keras.Sequential([inputs((4,)), dense(4), inner, dense(4)])
    recurrent = tf.keras.Sequential(
        [inputs((5, 4)), layers.Bidirectional(layers.LSTM(2)), layers.LayerNormalization()]
    )
    words = inputs((5, 4))
    attention = layers.MultiHeadAttention(2, 2)(words, words)
    return {
        "plain": plain,
        "convolution": convolution,
        "branches": branches,
        "nested": nested,
        "recurrent": recurrent,
        "attention": tf.keras.Model(words, dense(2)(attention)),
    }


def test_keras_files_of_narrow_types(tmp_path: Path) -> None:
    """A model with layers of several types, of which the swarm exchanged bfloat16 numbers."""
    import tensorflow as tf

    dense = tf.keras.layers.Dense
    made = tf.keras.Sequential(
        [tf.keras.Input((4,)), dense(3, dtype="bfloat16"), dense(3, dtype="float64"), dense(2)]
    )
    arrays = {str(n): np.asarray(w) for n, w in enumerate(made.get_weights())}
    layout, data = vector(arrays, "bfloat16")
    decided = [tensor.get(memoryview(data)) for tensor in layout.tensors]
    made.set_weights(
        [one.view(own.dtype) for one, own in zip(decided, arrays.values(), strict=True)]
    )
    made.save(tmp_path / "model.keras")
    about = {"tensors": layout.schema_lines(), "size": layout.size}, root_of(data).hex()
    found = model.read_keras(tmp_path / "model.keras")
    assert model.difference(found, *about, "bfloat16") == ""
    assert "the record has" in model.difference(found, *about)
    made.layers[1].kernel.assign_add(tf.fill((3, 3), tf.constant(1e-12, tf.float64)))
    made.save(tmp_path / "model.keras")
    text = model.difference(model.read_keras(tmp_path / "model.keras"), *about, "bfloat16")
    assert text == "its tensor 2 is not exactly bfloat16, which the record's is"


def test_keras_files_give_the_order_of_the_callback(tmp_path: Path) -> None:
    """Against Keras itself; all weights are different, so any exchange would show."""
    for name, made in keras_models().items():
        rng = np.random.default_rng(1)
        made.set_weights([rng.normal(size=w.shape).astype(w.dtype) for w in made.get_weights()])
        made.save(tmp_path / f"{name}.keras")
        found = model.read_keras(tmp_path / f"{name}.keras")
        expected = made.get_weights()
        assert [a.tobytes() for a in found] == [a.tobytes() for a in expected], name
