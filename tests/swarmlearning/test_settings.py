"""Parameters of the callback: defaults, casts, and the texts of the complaints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.merge.methods import BUILT_IN
from swarmlearning import SwarmError
from swarmlearning.settings import (
    KNOWN,
    MERGE_ARGS,
    CheckinModel,
    HFMode,
    Settings,
    SLMergeMethod,
    SLPlatforms,
)


def read(sync: Any = 128, peers: Any = 2, contract: Any = "c", **options: Any) -> Settings:
    return Settings.read(sync, peers, contract, options, (SLPlatforms.KERAS, SLPlatforms.TF))


def test_defaults() -> None:
    settings = read()
    assert settings == Settings(sync_frequency=128, min_peers=2, contract="c")
    assert settings.mode is CheckinModel.snapshot
    assert settings.weightage == 1
    assert settings.total_epochs == 0


def test_what_can_be_cast_is_cast() -> None:
    settings = read("128", 2.0, totalEpochs="3", nodeWeightage="100")
    assert (settings.sync_frequency, settings.min_peers) == (128, 2)
    assert (settings.total_epochs, settings.weightage) == (3, 100)


def test_names_are_taken_in_any_case_and_as_members() -> None:
    assert read(mergeMethod="MEAN", checkinModelOnTrainEnd="Active").mode is CheckinModel.active
    assert read(checkinModelOnTrainEnd=CheckinModel.inactive).mode is CheckinModel.inactive
    assert read(ml_platform="KERAS").platform is SLPlatforms.KERAS


def test_methods_and_their_arguments() -> None:
    assert read().merge_method == "mean"
    assert read(mergeMethod="GeoMedian").merge_method == "geomedian"
    assert read(mergeMethod=SLMergeMethod.krum).merge_method == "krum"
    assert read(mergeMethod="mine@1.2.0+local").merge_method == "mine@1.2.0+local"
    assert read(mergeArgs=None).merge_args == {}
    given = read(mergeMethod="multikrum", mergeArgs={"f": np.int64(2), "m": 3.0}).merge_args
    assert given == {"f": 2, "m": 3}
    assert all(type(value) is int for value in given.values())
    # No float takes part in what the contract's members agree on.
    clipped = read(mergeMethod="centeredclip", mergeArgs={"tau": 0.1, "iterations": 5})
    assert clipped.merge_args == {"tau": "0.1", "iterations": 5}
    own = {"a": 1, "b": 0.25, "c": "text", "d": True, "e": 1e30}
    wanted = {"a": 1, "b": "0.25", "c": "text", "d": True, "e": "1e+30"}
    assert read(mergeMethod="mine@1", mergeArgs=own).merge_args == wanted


def test_arguments_are_those_of_the_methods() -> None:
    """The learner's methods know them better; a program hears of a slip without a learner."""
    for method in SLMergeMethod:
        known = {
            name: (arg.kind is int, arg.least) for name, arg in BUILT_IN[method.name].ARGS.items()
        }
        assert set(known) == set(MERGE_ARGS.get(method, {}))
        for name, (whole, least) in MERGE_ARGS.get(method, {}).items():
            assert whole == known[name][0]
            assert least <= known[name][1]
    assert {method.name for method in SLMergeMethod} == set(BUILT_IN)


def test_the_narrower_type_travels_with_the_arguments() -> None:
    assert read(transferDtype="bfloat16").merge_args == {"transferDtype": "bfloat16"}
    assert read(transferDtype=None).merge_args == {}


def test_adaptive_sync() -> None:
    assert not read().adaptive
    assert read(useAdaptiveSync=True, adsValData=object()).adaptive
    assert read(useAdaptiveSync=True, adsValData=([1], [1]), adsValBatchSize=8).adaptive


def test_values_of_the_enumerations() -> None:
    assert [member.value for member in SLMergeMethod][:3] == [1, 2, 3]
    assert {member.name: member.value for member in CheckinModel} == {
        "inactive": 1, "active": 2, "snapshot": 3,
    }  # fmt: skip
    assert [SLPlatforms[name] for name in ("TF", "KERAS", "PYTORCH", "HF_TRANSFORMER")] == [
        1, 2, 3, 4,
    ]  # fmt: skip
    assert (HFMode.full, HFMode.peft) == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"sync": 0}, "syncFrequency has to be a positive integer"),
        ({"sync": "often"}, "syncFrequency has to be a positive integer"),
        ({"sync": None}, "syncFrequency has to be a positive integer"),
        ({"sync": float("inf")}, "syncFrequency has to be a positive integer"),
        ({"peers": -1}, "minPeers have to be a positive integer"),
        ({"contract": None}, "Invalid Training Contract"),
        ({"contract": ""}, "Invalid Training Contract"),
        ({"totalEpochs": 0}, "totalEpochs value is not a positive integer"),
        ({"totalEpochs": "x"}, "totalEpochs value is not a positive integer"),
        (
            {"checkinModelOnTrainEnd": "never"},
            "Invalid value checkinModelOnTrainEnd: never. "
            "Allowed values: ['inactive', 'active', 'snapshot']",
        ),
        (
            {"nodeWeightage": 101},
            "Node weightage should be a number between 1-100. The value given is 101",
        ),
        (
            {"nodeWeightage": "much"},
            "Node weightage should be a number between 1-100. The value given is 'much'",
        ),
        (
            {"mergeMethod": "sum"},
            "Invalid value mergeMethod: sum. Allowed values: ['mean', 'coordmedian', 'geomedian', "
            "'trimmedmean', 'krum', 'multikrum', 'centeredclip']",
        ),
        ({"mergeMethod": 3.5}, "Invalid value mergeMethod: 3.5. Allowed"),
        ({"mergeMethod": "mine@"}, "Invalid value mergeMethod: mine@. Allowed"),
        ({"mergeArgs": [1]}, "mergeArgs has to be a dictionary of at most 15 arguments"),
        (
            {"mergeArgs": {f"a{i}": 1 for i in range(16)}},
            "mergeArgs has to be a dictionary of at most 15 arguments",
        ),
        ({"mergeArgs": {"f": 1}}, "mergeArgs: mean has no argument 'f'; it takes none"),
        (
            {"mergeMethod": "multikrum", "mergeArgs": {"tau": 1}},
            "mergeArgs: multikrum has no argument 'tau'; it takes f, m",
        ),
        (
            {"mergeMethod": "krum", "mergeArgs": {"f": 0}},
            "mergeArgs: f has to be at least 1, not 0",
        ),
        (
            {"mergeMethod": "krum", "mergeArgs": {"f": 1.5}},
            "mergeArgs: f has to be a whole number",
        ),
        (
            {"mergeMethod": "krum", "mergeArgs": {"f": True}},
            "mergeArgs: f has to be a number, not True",
        ),
        (
            {"mergeMethod": "centeredclip", "mergeArgs": {"tau": 0}},
            "mergeArgs: tau has to be above 0, not 0",
        ),
        (
            {"mergeMethod": "centeredclip", "mergeArgs": {"tau": float("nan")}},
            "mergeArgs: tau has to be a finite number",
        ),
        ({"mergeMethod": "mine@1", "mergeArgs": {"a b": 1}}, "mergeArgs: 'a b' is not a name"),
        (
            {"mergeMethod": "mine@1", "mergeArgs": {"a": "x" * 65}},
            "mergeArgs: a has to be a number",
        ),
        (
            {"transferDtype": "float64"},
            "Invalid value transferDtype: float64. "
            "Allowed values: ['float32', 'float16', 'bfloat16']",
        ),
        (
            {"useAdaptiveSync": True},
            "For adaptive sync, valid adsValData is mandatory and a positive adsValBatchSize "
            "if applicable",
        ),
        (
            {"useAdaptiveSync": True, "adsValData": ([1], [1]), "adsValBatchSize": 0},
            "For adaptive sync, valid adsValData is mandatory and a positive adsValBatchSize "
            "if applicable",
        ),
        (
            {"ml_platform": "PYTORCH"},
            "Invalid ml platform type: PYTORCH. Allowed values: ['KERAS', 'TF']",
        ),
    ],
)
def test_complaints(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(SwarmError) as caught:
        read(**arguments)
    assert str(caught.value).startswith(text)


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=70), st.binary(),
    st.just(np.arange(3)), st.just(np.float32(0.5)), st.just(np.array(2)), st.just(object()),
    st.lists(st.integers(), max_size=3), st.sampled_from(["krum", "mine@1", "centeredclip"]),
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(sorted(KNOWN)), JUNK | st.dictionaries(st.text(), JUNK)),
    st.dictionaries(st.sampled_from(["f", "m", "tau", "iterations", "x"]), JUNK, max_size=3),
    JUNK,
)
def test_nothing_but_a_swarm_error_comes_of_junk(
    options: dict[str, Any], args: dict[str, Any], first: Any
) -> None:
    for junk in (options, {**options, "mergeArgs": args}):
        try:
            settings = read(first, 2, "c", **junk)
        except SwarmError:
            continue
        assert all(type(value) in (int, str, bool) for value in settings.merge_args.values())


def test_unknown_parameters_are_kept_for_the_log() -> None:
    assert read(mlPlatform="KERAS", hfMode="full", zeta=1).unknown == ("mlPlatform", "zeta")
