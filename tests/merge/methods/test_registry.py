"""Methods by name, and what may be in mergeArgs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import LocalError
from swarm.ledger.state import methods as state
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


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@pytest.mark.parametrize("name", methods.BUILT_IN)
@given(
    args=st.dictionaries(
        st.sampled_from([*(key for one in methods.BUILT_IN.values() for key in one.ARGS), "x"]),
        ANYTHING | st.sampled_from([10**400, -(10**400), "1e999", "9" * 5000, "nan"]),
        max_size=2,
    ),
    min_peers=st.integers(1, 256),
)
@settings(max_examples=40, deadline=None)
def test_whatever_a_program_sends_is_accepted_or_refused_in_few_words(
    name: str, args: dict[str, Any], min_peers: int
) -> None:
    try:
        full, settled = methods.agreed(name, args, min_peers)
    except LocalError as fault:
        assert fault.code in ("SW6013", "SW4045") and len(fault.cause) < 300
    else:
        assert full == name
        assert methods.agreed(full, settled, min_peers) == (full, settled)
        assert (
            state.problem({"merge_method": full, "merge_args": settled, "min_peers": min_peers})
            == ""
        )
