"""Methods of installed packages, and the page that tells how to write one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarm.errors import LocalError
from swarm.merge import methods
from swarm.merge.mean import Segment
from swarmlearning.settings import Settings, SLPlatforms

PAGE = Path(__file__).resolve().parents[3] / "docs/how-to/own-merge-method.md"
LAYOUT = [Segment(0, 64, "float32")]
SOURCE = """
import numpy as np
from swarm.merge.methods import Arg, MixingWeights, PerCoordinate

class Largest(PerCoordinate):
    ARGS = {"scale": Arg(float, 0, 10, 1.0)}
    def combine(self, values, weights):
        return self.args["scale"] * np.where(weights > 0, values, -np.inf).max(axis=0)

class Second(MixingWeights):
    @classmethod
    def needed(cls, args):
        return 2
    def mix(self, distances, weights):
        return [0.0, 5.0] + [0.0] * (len(weights) - 2)

class Raises(PerCoordinate):
    def combine(self, values, weights):
        return values[99]

class Wide(PerCoordinate):
    def combine(self, values, weights):
        return values

class Negative(MixingWeights):
    def mix(self, distances, weights):
        return [-1.0] * len(weights)

class Few(MixingWeights):
    def mix(self, distances, weights):
        return [1.0]

class Words(MixingWeights):
    def mix(self, distances, weights):
        return ["much"] * len(weights)

something = 5
"""
NAMES = ["Largest", "Second", "Raises", "Wide", "Negative", "Few", "Words", "something", "missing"]


def installed(folder: Path, module: str, version: str, names: dict[str, str], source: str) -> None:
    """What an installer leaves behind of a package with entry points."""
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n")
    lines = [f"{name} = {module}:{attribute}" for name, attribute in names.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{methods.GROUP}]", *lines]) + "\n")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with methods of all kinds, on the path."""
    names = {name.lower(): name for name in NAMES}
    installed(tmp_path, "own_methods", "2.1.0", {**names, "mean": "Largest"}, SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_methods", raising=False)
    return tmp_path


def merged(name: str, args: dict[str, Any], *rows: float) -> float:
    method = methods.make(name, args, LAYOUT, [1] * len(rows))
    if isinstance(method, methods.MixingWeights):
        method.settle(1.0 - np.eye(len(rows)))
    out = bytearray(64)
    method.reduce([np.full(16, row, "<f4").tobytes() for row in rows], memoryview(out), 0)
    return float(np.frombuffer(out, "<f4")[0])


@pytest.mark.usefixtures("package")
def test_a_package_brings_methods_of_both_kinds() -> None:
    assert methods.agreed("largest", {}, 1) == ("largest@2.1.0", {"scale": "1.0"})
    assert methods.agreed("largest@2.1.0", {"scale": 2}, 1)[1] == {"scale": "2.0"}
    assert merged("largest@2.1.0", {"scale": "2.0"}, 1, 5, 3) == 10
    assert merged("largest@2.1.0", {}, 1, np.nan, 3) == 3  # as all that is not finite
    assert merged("second@2.1.0", {}, 1, 5, 3) == 5
    assert "needs 2 contributing" in methods.check("second@2.1.0", {}, 1)
    assert methods.excludes("second@2.1.0")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "args", "code", "text"),
    [
        ("largest@2.0.0", {}, "SW6006", "largest is version 2.0.0 in the contract, 2.1.0 here"),
        ("smallest@1.0", {}, "SW6006", "no merge method 'smallest@1.0' is installed"),
        ("smallest", {}, "SW6006", "krum, largest, "),
        ("something", {}, "SW6006", "own_methods:something is not a Method"),
        ("missing", {}, "SW6006", "own_methods:missing: module 'own_methods' has no attribute"),
        ("largest", {"scale": 11}, "SW6013", "scale is 11.0, not from 0 to 10"),
        ("largest", {"scale": "big"}, "SW6013", "scale is 'big', not a number"),
        ("largest", {"size": 1}, "SW6013", "largest knows no 'size'; it has scale"),
        ("second", {}, "SW4045", "second needs 2 members, and minPeers is 1"),
    ],
)
def test_what_a_package_does_not_offer_is_refused(
    name: str, args: dict[str, Any], code: str, text: str
) -> None:
    with pytest.raises(LocalError) as fault:
        methods.agreed(name, args, 1)
    assert fault.value.code == code and text in fault.value.cause


@pytest.mark.usefixtures("package")
def test_the_products_own_names_cannot_be_taken() -> None:
    assert methods.agreed("mean", {}, 1) == ("mean", {})
    assert merged("mean", {}, 1, 3) == 2


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("raises", "raises: IndexError"),
        ("wide", "wide: shape (2, 16), not (16,)"),
        ("negative", "negative: [-1.0, -1.0] are not shares of 2 members"),
        ("few", "few: [1.0] are not shares of 2 members"),
        ("words", "words: ValueError"),
    ],
)
def test_a_method_that_fails_is_named(name: str, text: str) -> None:
    with pytest.raises(LocalError) as fault:
        merged(name, {}, 1, 2)
    assert fault.value.code == "SW6012" and text in fault.value.cause


def test_two_packages_with_the_same_method(package: Path) -> None:
    """The version says which is meant; without it nobody can know."""
    installed(package, "more_methods", "3.0", {"largest": "Largest"}, SOURCE)
    with pytest.raises(LocalError, match="several installed packages offer merge method largest"):
        methods.agreed("largest", {}, 1)
    assert methods.agreed("largest@3.0", {}, 1)[0] == "largest@3.0"


def test_a_package_that_cannot_be_imported(package: Path) -> None:
    installed(package, "broken_methods", "1", {"broken": "Law"}, "import nothing_of_this_name\n")
    with pytest.raises(LocalError, match=r"SW6006: merge method broken: .*nothing_of_this_name"):
        methods.agreed("broken", {}, 1)


def snippets() -> tuple[list[str], dict[str, str]]:
    """The page's Python code, and its other blocks by kind."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    python = [block for kind, block in found if kind == "python"]
    return python, {kind: block for kind, block in found if kind != "python"}


def test_a_program_asks_for_it_as_on_the_page() -> None:
    given: dict[str, Any] = {}
    exec(snippets()[0][2], {"SwarmCallback": given.update})
    settings = Settings.read(
        given.pop("syncFrequency"), given.pop("minPeers"), "c", given, [SLPlatforms.KERAS]
    )
    assert settings.merge_method == "damped@1.0.0" and settings.merge_args == {"power": 2}


@pytest.mark.slow
def test_the_page_on_own_methods(tmp_path: Path) -> None:
    """Its package is built, installed and tried with its own commands."""
    code, blocks = snippets()
    folder = tmp_path / "damped-merge"
    folder.mkdir()
    (folder / "damped_merge.py").write_text(code[0])
    (folder / "pyproject.toml").write_text(blocks["toml"])
    (folder / "try_it.py").write_text(code[1])
    target = str(tmp_path / "site")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", blocks["sh"]],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            # Beside this test's environment, and with its build tools: nothing is downloaded.
            "PIP_TARGET": target,
            "PIP_NO_BUILD_ISOLATION": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONPATH": target,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    shares, damped, near = done.stdout.splitlines()[-2], *done.stdout.splitlines()[-3::2]
    assert shares.startswith("shares (")
    assert 2 < float(damped.split()[1]) < 24  # the mean
    assert 1 < float(near.split()[1]) < 3
