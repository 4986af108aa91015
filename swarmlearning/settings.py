"""The parameters of a SwarmCallback: names, defaults, and what is wrong with a bad value.

Pure: nothing is opened, nothing is logged. The parameter names are those that users' programs
already carry, so they keep their spelling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from swarmlearning.errors import SwarmError

DEFAULT_CONTRACT = "defaultbb.cqdb.sml.hpe"


class CheckinModel(Enum):
    """What a node contributes between the end of its own training and the end of the swarm's."""

    inactive = 1  # takes part with weight 0
    active = 2  # hands the latest merged model in again
    snapshot = 3  # the weights that it had when it finished


class SLPlatforms(Enum):
    """Frameworks."""

    TF = 1
    KERAS = 2
    PYTORCH = 3
    HF_TRANSFORMER = 4


class SLMergeMethod(Enum):
    """How the nodes' weights become one model."""

    mean = 1
    coordmedian = 2
    geomedian = 3


class HFMode(Enum):
    """Which weights of a Hugging Face model are exchanged."""

    full = 1
    peft = 2


# Parameters that one of the frameworks knows; others are ignored, with a line in the log.
KNOWN = frozenset(
    {
        "totalEpochs",
        "checkinModelOnTrainEnd",
        "nodeWeightage",
        "mergeMethod",
        "useAdaptiveSync",
        "adsValData",
        "adsValBatchSize",
        "ml_platform",
        "model",
        "lossFunction",
        "lossFunctionArgs",
        "metricFunction",
        "metricFunctionArgs",
        "hfMode",
        "tf",
        "sess",
        "logger",
    }
)


@dataclass(frozen=True)
class Settings:
    """Checked parameters of one callback."""

    sync_frequency: int  # batches between two merges
    min_peers: int
    contract: str = DEFAULT_CONTRACT
    total_epochs: int = 0  # 0: not told
    mode: CheckinModel = CheckinModel.snapshot
    weightage: int = 1
    merge_method: SLMergeMethod = SLMergeMethod.mean
    platform: SLPlatforms = SLPlatforms.KERAS
    validation_data: Any = None
    validation_batch: int | None = None
    unknown: tuple[str, ...] = field(default=())

    @classmethod
    def read(
        cls,
        sync_frequency: object,
        min_peers: object,
        contract: object,
        options: Mapping[str, Any],
        platforms: Sequence[SLPlatforms],
    ) -> Settings:
        """Check what a program passed to its callback. Raises SwarmError naming the parameter.

        `platforms` are those that the callback class serves, its default first.
        """
        total = options.get("totalEpochs")
        settings = cls(
            sync_frequency=_positive(sync_frequency, "syncFrequency has to be a positive integer"),
            min_peers=_positive(min_peers, "minPeers have to be a positive integer"),
            contract=_contract(contract),
            total_epochs=0
            if total is None
            else _positive(total, "totalEpochs value is not a positive integer"),
            mode=_choice(CheckinModel, options, "checkinModelOnTrainEnd", CheckinModel.snapshot),
            weightage=_weightage(options.get("nodeWeightage", 1)),
            merge_method=_choice(SLMergeMethod, options, "mergeMethod", SLMergeMethod.mean),
            platform=_platform(options.get("ml_platform", platforms[0]), platforms),
            validation_data=options.get("adsValData"),
            validation_batch=_validation_batch(options.get("adsValBatchSize")),
            unknown=tuple(sorted(set(options) - KNOWN)),
        )
        _refuse_what_comes_later(settings, bool(options.get("useAdaptiveSync", False)))
        return settings


_Choice = TypeVar("_Choice", bound=Enum)


def _whole(value: object) -> int | None:
    """`value` as an int where a cast gives one, as in int("128")."""
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError, OverflowError):
        return None


def _positive(value: object, complaint: str) -> int:
    number = _whole(value)
    if number is None or number <= 0:
        raise SwarmError(complaint)
    return number


def _contract(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise SwarmError("Invalid Training Contract")
    return value


def _weightage(value: object) -> int:
    number = _whole(value)
    if number is None or not 1 <= number <= 100:
        raise SwarmError(
            f"Node weightage should be a number between 1-100. The value given is {value!r}"
        )
    return number


def _choice(
    kind: type[_Choice], options: Mapping[str, Any], name: str, default: _Choice
) -> _Choice:
    value = options.get(name, default)
    if isinstance(value, kind):
        return value
    allowed = [member.name for member in kind]
    if isinstance(value, str) and value.lower() in allowed:
        return kind[value.lower()]
    raise SwarmError(f"Invalid value {name}: {value}. Allowed values: {allowed}")


def _platform(value: object, allowed: Sequence[SLPlatforms]) -> SLPlatforms:
    name = value.name if isinstance(value, SLPlatforms) else value
    for platform in allowed:
        if platform.name == name:
            return platform
    raise SwarmError(
        f"Invalid ml platform type: {name}. Allowed values: {[p.name for p in allowed]}"
    )


def _validation_batch(value: object) -> int | None:
    # Checked here, complained about only when adaptive sync needs it; Keras has its own default.
    number = _whole(value)
    return number if number is not None and number > 0 else None


def _refuse_what_comes_later(settings: Settings, adaptive: bool) -> None:
    if adaptive:
        if settings.validation_data is None:
            raise SwarmError(
                "For adaptive sync, valid adsValData is mandatory and a positive "
                "adsValBatchSize if applicable"
            )
        raise SwarmError(
            "Adaptive sync is not available in this version; it comes with a later one. "
            "Leave useAdaptiveSync out to merge every syncFrequency batches"
        )
    if settings.merge_method is not SLMergeMethod.mean:
        raise SwarmError(
            f"mergeMethod {settings.merge_method.name!r} is not available in this version; "
            "it comes with a later one. Use 'mean'"
        )
