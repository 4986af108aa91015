"""docs/how-to/reduce-traffic.md: its snippet runs, and its figures are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarmlearning.narrow import TRANSFER, narrow, widen
from swarmlearning.tensors import Layout
from tests.docs.test_commands import REPOSITORY
from tests.swarmlearning.fake_sl import FakeLearner

PAGE = (REPOSITORY / "docs/how-to/reduce-traffic.md").read_text()
UP = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def rows(kind: str) -> list[list[str]]:
    """The cells of the tables' rows about a type."""
    found = re.findall(rf"^\| `{kind}` \|(.*)\|$", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in found]


def power(text: str) -> float:
    """2⁻⁸ or 3.4·10³⁸ as a number."""
    factor, base, exponent = re.match(r"(?:([\d.]+)·)?(10|2)([⁻⁰-⁹¹²³]+)", text).groups()  # type: ignore[union-attr]
    return float(factor or 1) * float(base) ** int(exponent.translate(UP))


def test_the_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_LINK", str(tmp_path))
    monkeypatch.delenv("SWARM_LOOPBACK", raising=False)
    learner = FakeLearner(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    names["swarm"].on_train_end(names["weights"])
    opened, *_ = learner.join()
    assert opened["mergeArgs"] == {"transferDtype": "bfloat16"}
    assert learner.layout is not None
    assert [t.dtype for t in learner.layout.tensors] == ["bfloat16", "int64"]
    assert [a.dtype for a in names["weights"].values()] == [np.float32, np.int64]


@pytest.mark.parametrize("kind", TRANSFER)
def test_the_figures(kind: str) -> None:
    (of32, of64, _), (relative, absolute, largest) = rows(kind)
    for text, of in ((of32, "float32"), (of64, "float64")):
        sizes = [Layout([("a", of, (6400,))], transfer).size for transfer in ("", kind)]
        above, _, below = text.partition("/")
        assert sizes[1] / sizes[0] == int(above) / int(below or 1)
    bounds = TRANSFER[kind]
    exact, percent = relative.split(", ")
    assert power(exact) == bounds.relative
    assert bounds.relative <= float(percent.rstrip(" %")) / 100 <= 1.1 * bounds.relative
    assert power(absolute) == bounds.absolute
    stated = power(largest) if "10" in largest else float(largest)
    assert stated == pytest.approx(bounds.largest, rel=2e-3)


def test_what_the_page_says_is_lost_in_bfloat16() -> None:
    """From a number of the type on: a change below 0.2 % always, one above 0.4 % never."""
    bits = np.arange(0x3F00, 0x4100, dtype=np.uint16)
    start = widen(bits, "bfloat16", "float32")
    for change, lost in ((0.00195, True), (0.0040, False)):
        out = np.empty(bits.shape, np.uint16)
        narrow(start * np.float32(1 + change), "bfloat16", out)
        assert np.all((out == bits) == lost)


def test_what_the_page_says_of_small_numbers_in_float16() -> None:
    out = np.empty(2, np.float16)
    narrow(np.array([0.0000615, 0.00001], np.float32), "float16", out)
    error = np.abs(out.astype(np.float64) / [0.0000615, 0.00001] - 1)
    assert error[0] <= TRANSFER["float16"].relative < error[1]
