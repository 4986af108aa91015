"""Methods by name, and what may be in mergeArgs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from swarm.errors import LocalError
from swarm.merge import methods
from swarm.merge.mean import Segment


def layout(count: int) -> list[Segment]:
    return [Segment(0, 4 * count, "float32")]


def test_the_mean_reduces_and_names_whose_values_are_not_finite() -> None:
    one, two = np.arange(16, dtype="<f4"), np.full(16, 4, "<f4")
    two[3] = np.inf
    out = bytearray(64)
    method = methods.make("mean", {}, layout(16), [0, 1, 1])
    method.reduce([one, two], memoryview(out), 0)  # type: ignore[list-item]
    assert method.contributors == [1, 2] and not method.excludes
    assert method.rejected == {2: "NaN or infinity in its weights"}
    assert np.frombuffer(out, "<f4")[0] == 2


def test_an_overflow_of_finite_values_is_nobodys_fault() -> None:
    big = np.full(16, 3e38, "<f4")
    method = methods.make("mean", {}, layout(16), [1, 1])
    method.reduce([big.tobytes()] * 2, memoryview(bytearray(64)), 0)
    assert method.rejected == {}


@pytest.mark.parametrize(
    ("name", "args", "code", "text"),
    [
        ("median", {}, "SW6006", "no merge method 'median' is installed"),
        ("mean@1.0", {}, "SW6006", "no merge method 'mean@1.0' is installed"),
        ("mean", {"f": 1}, "SW6013", "mean knows no 'f'; it has no entries"),
    ],
)
def test_what_cannot_be_is_refused(name: str, args: dict[str, Any], code: str, text: str) -> None:
    with pytest.raises(LocalError) as fault:
        methods.agreed(name, args, 2)
    assert fault.value.code == code and text in fault.value.cause


def test_entries_for_all_methods_stay_in_the_rules() -> None:
    assert methods.agreed("mean", {"transferDtype": "float16"}, 2) == (
        "mean",
        {"transferDtype": "float16"},
    )
    assert methods.parse_args("mean", {"transferDtype": "float16"}) == {}
    for wrong in ("float64", 16, ["float16"]):
        with pytest.raises(LocalError, match=r"SW6013: .*not one of float32"):
            methods.agreed("mean", {"transferDtype": wrong}, 2)


def test_all_but_the_mean_leave_out_what_is_not_finite() -> None:
    assert [name for name in methods.BUILT_IN if not methods.excludes(name)] == ["mean"]
