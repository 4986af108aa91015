"""The tensor file: round trips, and a reader that no header can hurt."""

from __future__ import annotations

import fcntl
import json
import os
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from swarmlearning import tensors
from swarmlearning.narrow import TRANSFER
from swarmlearning.tensors import DTYPES, Layout, TensorFileError

shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
transfers = st.sampled_from(["", *TRANSFER])
models = st.dictionaries(
    st.text(min_size=1, max_size=20), st.tuples(st.sampled_from(sorted(DTYPES)), shapes), max_size=8
)
in_a_temporary_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)


def array_of(tag: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    dtype = np.dtype(ml_dtypes.bfloat16) if tag == "bfloat16" else DTYPES[tag]
    return np.random.default_rng(seed).integers(0, 2, size=shape).astype(dtype)


def as_seen(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


@in_a_temporary_folder
@given(models, transfers)
def test_what_is_written_is_read(tmp_path: Path, model: dict[str, Any], transfer: str) -> None:
    """In the program's types and shapes, whatever it travels in (small integers fit all)."""
    arrays = {name: array_of(tag, shape) for name, (tag, shape) in model.items()}
    layout = Layout.of(arrays, transfer)
    path = tmp_path / "weights.bin"
    with tensors.allocate(layout) as memory:
        memory.write(arrays)
        tensors.save(path, layout, memory.data)
        shared = tensors.attach(os.dup(memory.descriptor))
    for file in (shared, tensors.open(path)):
        with file:
            assert file.layout == layout
            assert len(file.data) == layout.size
            for name, array in file.arrays().items():
                assert array.shape == arrays[name].shape
                assert array.dtype == as_seen(arrays[name]).dtype
                np.testing.assert_array_equal(array, as_seen(arrays[name]))
                del array


@given(models)
def test_tensors_are_aligned_ascending_and_apart(model: dict[str, Any]) -> None:
    layout = Layout([(name, tag, shape) for name, (tag, shape) in model.items()])
    end = 0
    for tensor in layout.tensors:
        assert tensor.offset % 64 == 0
        assert end <= tensor.offset < end + 64
        end = tensor.offset + tensor.nbytes
    assert layout.size % 64 == 0
    assert end <= layout.size < end + 64


@given(models, transfers)
def test_a_header_describes_exactly_its_layout(model: dict[str, Any], transfer: str) -> None:
    layout = Layout([(name, tag, shape) for name, (tag, shape) in model.items()], transfer)
    head = layout.header()
    assert len(head) % 4096 == 0
    (length,) = struct.unpack_from("<I", head, 12)
    assert Layout.parse(head[16 : 16 + length]) == layout
    assert layout.narrowed(transfer) == layout


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
four_parts = (
    st.text(max_size=3) | json_values,
    st.sampled_from([*DTYPES, "object"]) | json_values,
    st.lists(st.integers(-1, 1 << 62), max_size=40) | json_values,
    st.sampled_from([0, 64, 128]) | json_values,
)
entries = st.lists(
    st.tuples(*four_parts).map(list)
    | st.tuples(*four_parts, st.sampled_from(["float64", "float32"]) | json_values).map(list)
    | json_values,
    max_size=4,
)


@in_a_temporary_folder
@given(st.fixed_dictionaries({"tensors": entries, "size": st.integers(0, 512)}) | json_values)
@example({"tensors": [["a", "float32", [1 << 40, 1 << 40], 0]], "size": 0})
@example({"tensors": [["a", "float32", [0, 1 << 62], 0]], "size": 0})
@example({"tensors": [["a", "float32", [True], 0]], "size": 64})
@example({"tensors": [["a", "float32", [1], 0], ["b", "float32", [1], 0]], "size": 64})
def test_no_header_hurts_the_reader(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "hostile.bin"
    head = b"SWRMTNSR" + struct.pack("<II", 1, len(text)) + text
    path.write_bytes(head + bytes(-len(head) % 4096 + 64))
    try:
        with tensors.open(path) as file:
            views = file.views()
            assert sum(view.nbytes for view in views.values()) <= 64
            views.clear()
    except TensorFileError:
        pass


@in_a_temporary_folder
@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_hurt_the_reader(tmp_path: Path, data: bytes, with_magic: bool) -> None:
    path = tmp_path / "hostile.bin"
    path.write_bytes((b"SWRMTNSR" if with_magic else b"") + data)
    with pytest.raises(TensorFileError):
        tensors.open(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" * 100_000, "not JSON"),
        (b'{"tensors":[],"size":0,"more":1}', "nothing else"),
        (b'{"tensors":[["a","object",[1],0]],"size":64}', "unknown type"),
        (b'{"tensors":[["a","int8",[1],0],["a","int8",[1],64]],"size":128}', "twice"),
        (b'{"tensors":[["a","int8",[1],64]],"size":128}', "expected 0"),
        (b'{"tensors":[["a","int8",[1],0]],"size":1}', "expected 64"),
        (b'{"tensors":[["a","int8",[1,1.0],0]],"size":64}', "whole number"),
        (b'{"tensors":[["","int8",[1],0]],"size":64}', "1 to 1024"),
        (b'{"tensors":[["a","int8",[-1],0]],"size":0}', "whole number"),
        (b'{"tensors":[["a","int8",[],0,"float32"]],"size":64}', "'int8' is not a type to"),
        (b'{"tensors":[["a",{},[],0,"float32"]],"size":64}', "not a text"),
        (b'{"tensors":[["a","float32",[],0,"float32"]],"size":64}', "stored as 'float32'"),
        (b'{"tensors":[["a","float32",[],0,"float16"]],"size":64}', "expected float16"),
        (
            b'{"tensors":[["a","float16",[],0,"float32"],["b","float32",[],64]],"size":128}',
            "'b' is stored as 'float32', expected float16",
        ),
    ],
)
def test_the_error_says_what_is_wrong(text: bytes, said: str) -> None:
    with pytest.raises(TensorFileError, match=said):
        Layout.parse(text)


def test_limits_of_count_and_rank() -> None:
    with pytest.raises(TensorFileError, match="100001 tensors"):
        Layout([(str(i), "int8", ()) for i in range(100_001)])
    with pytest.raises(TensorFileError, match="32 dimensions"):
        Layout([("a", "int8", (1,) * 33)])


def test_an_array_of_objects_is_refused_by_name() -> None:
    with pytest.raises(TensorFileError, match="'odd' has type object"):
        Layout.of({"odd": np.array([object()])})


def test_a_file_that_is_cut_or_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    layout = Layout([("a", "float32", (100,))])
    tensors.save(path, layout, memoryview(bytes(layout.size)))
    length = path.stat().st_size
    for wrong in (length - 1, length + 1, 20, 3):
        os.truncate(path, wrong)
        with pytest.raises(TensorFileError):
            tensors.open(path)


def test_what_is_written_need_not_lie_in_one_piece() -> None:
    arrays = {
        "columns": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        "every other": np.arange(10, dtype=np.int64)[::2],
        "big-endian": np.arange(3, dtype=">f8"),
    }
    for transfer in ("", "bfloat16"):
        with tensors.allocate(Layout.of(arrays, transfer)) as memory:
            memory.write(arrays)
            for name, array in memory.arrays().items():
                np.testing.assert_array_equal(array, arrays[name])
                del array


def test_what_lies_between_tensors_becomes_zero() -> None:
    """A member may have sent anything for it; the same weights have to give the same bytes."""
    arrays = {"a": np.ones(3, np.int8), "b": np.ones((2, 3)), "c": np.ones((), np.float16)}
    for transfer in ("", "float16"):
        layout = Layout.of(arrays, transfer)
        with tensors.allocate(layout) as fresh, tensors.allocate(layout) as used:
            used.data[:] = b"\xff" * layout.size
            for memory in (fresh, used):
                memory.write(arrays)
            assert bytes(used.data) == bytes(fresh.data)


def test_nobody_changes_the_size_of_shared_memory() -> None:
    """Whoever reads it would be killed otherwise, by a signal."""
    with tensors.allocate(Layout([("a", "float32", (2000,))])) as memory:
        for size in (0, 4096, 1 << 20):
            with pytest.raises(PermissionError):
                os.truncate(memory.descriptor, size)


def test_memory_whose_size_may_change_is_refused(tmp_path: Path) -> None:
    layout = Layout([("a", "float32", (2,))])
    content = layout.header() + bytes(layout.size)
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(TensorFileError, match="not memory"):
        tensors.attach(os.open(path, os.O_RDWR))
    unsealed = os.memfd_create("weights", os.MFD_ALLOW_SEALING)
    os.write(unsealed, content)
    with pytest.raises(TensorFileError, match="not sealed"):
        tensors.attach(os.dup(unsealed))
    fcntl.fcntl(unsealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    with pytest.raises(TensorFileError, match="not sealed"):
        tensors.attach(unsealed)


def test_memory_comes_from_an_old_python_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was built with a C library which had no name for it."""
    monkeypatch.delattr(os, "memfd_create")
    layout = Layout([("a", "float32", (2,))])
    with tensors.allocate(layout) as memory:
        memory.write({"a": np.ones(2, np.float32)})
        with tensors.attach(os.dup(memory.descriptor)) as other:
            assert bytes(other.data) == bytes(memory.data)


def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(TensorFileError, match="regular"):
        tensors.open(fifo)
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    with pytest.raises(OSError):
        tensors.open(link)


def test_writing_names_the_tensor_that_does_not_fit() -> None:
    with tensors.allocate(Layout([("a", "float32", (2,))])) as file:
        with pytest.raises(TensorFileError, match=r"'a' is float64 \(2,\)"):
            file.write({"a": np.zeros(2)})
        with pytest.raises(TensorFileError, match="'b' is not in both"):
            file.write({"a": np.zeros(2, np.float32), "b": np.zeros(1)})


def test_a_file_opened_for_reading_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    layout = Layout([("a", "float32", (2,))])
    tensors.save(path, layout, memoryview(bytes(layout.size)))
    file = tensors.open(path)
    with pytest.raises(ValueError, match="read-only"):
        file.views()["a"][0] = 1
    with tensors.allocate(layout) as memory, pytest.raises(ValueError, match="read-only"):
        memory.arrays()["a"][...] = 1  # a program's arrays, not the learner's


def test_the_schema_digest_sees_names_types_and_shapes() -> None:
    def digest(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
        return Layout([(name, dtype, shape)]).schema_digest()

    base = digest("a", "float32", (2, 3))
    assert base == digest("a", "float32", (2, 3))
    changed = [("b", "float32", (2, 3)), ("a", "float64", (2, 3)), ("a", "float32", (3, 2))]
    assert len({base, *(digest(*other) for other in changed)}) == 4
    assert Layout([("a", "float32", (2, 3)), ("b", "bool", ())]).schema_lines() == [
        "a float32 2x3",
        "b bool scalar",
    ]


def test_the_schema_tells_narrowed_tensors_from_others() -> None:
    model = [("a", "float32", (2, 3)), ("b", "int64", ()), ("c", "float16", (1,))]
    layouts = [Layout(model, transfer) for transfer in ("", *TRANSFER)]
    assert layouts[0] == layouts[1], "float32 is no narrower than what is there"
    assert len({layout.schema_digest() for layout in layouts}) == 3
    assert layouts[3].schema_lines() == ["a float32>bfloat16 2x3", "b int64 scalar", "c float16 1"]
    narrow = Layout([("a", "float16", (2, 3))])
    assert narrow.schema_digest() != Layout([("a", "float32", (2, 3))], "float16").schema_digest()


def test_an_unknown_transfer_type_is_refused() -> None:
    for wrong in ("float64", "int8", "fp16"):
        with pytest.raises(TensorFileError, match=wrong):
            Layout([], wrong)
