"""Parameters of the callback: defaults, casts, and the texts of the complaints."""

from __future__ import annotations

from typing import Any

import pytest

from swarmlearning import SwarmError
from swarmlearning.settings import CheckinModel, Settings, SLPlatforms


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
            "Invalid value mergeMethod: sum. Allowed values: ['mean', 'coordmedian', 'geomedian']",
        ),
        (
            {"mergeMethod": "GeoMedian"},
            "mergeMethod 'geomedian' is not available in this version; "
            "it comes with a later one. Use 'mean'",
        ),
        (
            {"useAdaptiveSync": True},
            "For adaptive sync, valid adsValData is mandatory and a positive adsValBatchSize "
            "if applicable",
        ),
        (
            {"useAdaptiveSync": True, "adsValData": ([1], [1])},
            "Adaptive sync is not available in this version; it comes with a later one. "
            "Leave useAdaptiveSync out to merge every syncFrequency batches",
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
    assert str(caught.value) == text


def test_unknown_parameters_are_kept_for_the_log() -> None:
    assert read(mlPlatform="KERAS", hfMode="full", zeta=1).unknown == ("mlPlatform", "zeta")
