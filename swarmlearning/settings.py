"""The parameters of a SwarmCallback: names, defaults, and what is wrong with a bad value.

Pure: nothing is opened, nothing is logged. The parameter names are those that users' programs
already carry, so they keep their spelling.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np

from swarmlearning.errors import SwarmError

DEFAULT_CONTRACT = "defaultbb.cqdb.sml.hpe"


class CheckinModel(IntEnum):
    """What a node contributes between the end of its own training and the end of the swarm's."""

    inactive = 1  # takes part with weight 0
    active = 2  # hands the latest merged model in again
    snapshot = 3  # the weights that it had when it finished


class SLPlatforms(IntEnum):
    """Frameworks."""

    TF = 1
    KERAS = 2
    PYTORCH = 3
    HF_TRANSFORMER = 4
    SKLEARN = 5
    NUMPY = 6


class SLMergeMethod(IntEnum):
    """How the nodes' weights become one model; beside these, methods that users install."""

    mean = 1
    coordmedian = 2
    geomedian = 3
    trimmedmean = 4
    krum = 5
    multikrum = 6
    centeredclip = 7


class HFMode(IntEnum):
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
        "mergeArgs",
        "transferDtype",
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
        "initData",
        "classes",
        "weight_attrs",
        "tf",
        "sess",
        "logger",
    }
)

TRANSFER_TYPES = ("float32", "float16", "bfloat16")
MAX_MERGE_ARGS = 15  # the rules of a contract hold 16, transferDtype among them
MAX_TEXT_ARG = 64  # characters

# Arguments of the methods that come with the product: name -> (whole number, smallest value).
MERGE_ARGS: Mapping[SLMergeMethod, Mapping[str, tuple[bool, int]]] = {
    SLMergeMethod.trimmedmean: {"f": (True, 1)},
    SLMergeMethod.krum: {"f": (True, 1)},
    SLMergeMethod.multikrum: {"f": (True, 1), "m": (True, 1)},
    SLMergeMethod.centeredclip: {"tau": (False, 0), "iterations": (True, 1)},
}
# A user's method: the name of its entry point, and the version of the package that brings it.
_OWN_METHOD = re.compile(r"[a-z][a-z0-9_]{0,31}@[0-9A-Za-z][0-9A-Za-z.+!_-]{0,31}")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")


@dataclass(frozen=True)
class Settings:
    """Checked parameters of one callback."""

    sync_frequency: int  # batches between two merges
    min_peers: int
    contract: str = DEFAULT_CONTRACT
    total_epochs: int = 0  # 0: not told
    mode: CheckinModel = CheckinModel.snapshot
    weightage: int = 1
    merge_method: str = SLMergeMethod.mean.name  # a user's own as name@version
    merge_args: Mapping[str, int | str] = field(default_factory=dict)
    adaptive: bool = False  # the swarm sets the batches between two merges
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
        method = _method(options.get("mergeMethod", SLMergeMethod.mean))
        return cls(
            sync_frequency=_positive(sync_frequency, "syncFrequency has to be a positive integer"),
            min_peers=_positive(min_peers, "minPeers have to be a positive integer"),
            contract=_contract(contract),
            total_epochs=0
            if total is None
            else _positive(total, "totalEpochs value is not a positive integer"),
            mode=_choice(CheckinModel, options, "checkinModelOnTrainEnd", CheckinModel.snapshot),
            weightage=_weightage(options.get("nodeWeightage", 1)),
            merge_method=method,
            merge_args=_merge_args(method, options),
            adaptive=_adaptive(options),
            platform=_platform(options.get("ml_platform", platforms[0]), platforms),
            validation_data=options.get("adsValData"),
            validation_batch=_validation_batch(options.get("adsValBatchSize")),
            unknown=tuple(sorted(set(options) - KNOWN)),
        )


_Choice = TypeVar("_Choice", bound=IntEnum)


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


def _method(value: object) -> str:
    """A built-in method's name, or a user's own as name@version."""
    if isinstance(value, str) and _OWN_METHOD.fullmatch(value):
        return value
    return _choice(SLMergeMethod, {"mergeMethod": value}, "mergeMethod", SLMergeMethod.mean).name


def _merge_args(method: str, options: Mapping[str, Any]) -> dict[str, int | str]:
    """mergeArgs and transferDtype as the contract's rules keep them: no number with a fraction."""
    given = options.get("mergeArgs") or {}
    if not isinstance(given, Mapping) or len(given) > MAX_MERGE_ARGS:
        raise SwarmError(f"mergeArgs has to be a dictionary of at most {MAX_MERGE_ARGS} arguments")
    known = MERGE_ARGS.get(SLMergeMethod[method], {}) if "@" not in method else None
    args: dict[str, int | str] = {}
    for name, value in given.items():
        if not isinstance(name, str) or not _ARGUMENT.fullmatch(name):
            raise SwarmError(f"mergeArgs: {name!r} is not a name")
        if known is not None and name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none"
            raise SwarmError(f"mergeArgs: {method} has no argument {name!r}; it {takes}")
        args[name] = _merge_arg(name, value, known[name] if known is not None else None)
    transfer = options.get("transferDtype")
    if transfer is not None:
        if not isinstance(transfer, str) or transfer not in TRANSFER_TYPES:
            raise SwarmError(
                f"Invalid value transferDtype: {transfer}. Allowed values: {list(TRANSFER_TYPES)}"
            )
        args["transferDtype"] = transfer
    return args


def _merge_arg(name: str, value: object, kind: tuple[bool, int] | None) -> int | str:
    if kind is None and isinstance(value, (bool, str)) and len(str(value)) <= MAX_TEXT_ARG:
        return value
    whole, least = kind or (False, None)
    number: object = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise SwarmError(f"mergeArgs: {name} has to be a number, not {value!r}")
    if not math.isfinite(number) or (whole and number != int(number)):
        raise SwarmError(f"mergeArgs: {name} has to be a {'whole' if whole else 'finite'} number")
    if least is not None and (number < least or (not whole and number == least)):
        bound = f"at least {least}" if whole else f"above {least}"
        raise SwarmError(f"mergeArgs: {name} has to be {bound}, not {value!r}")
    if isinstance(number, int) and abs(number) >= 1 << 62:
        raise SwarmError(f"mergeArgs: {name} is too large")
    # A number with a fraction travels as text, since no float may take part in a decision.
    return int(number) if number == int(number) and abs(number) < 1 << 62 else repr(number)


def _adaptive(options: Mapping[str, Any]) -> bool:
    if not options.get("useAdaptiveSync", False):
        return False
    batch = options.get("adsValBatchSize")
    if options.get("adsValData") is None or (
        batch is not None and _validation_batch(batch) is None
    ):
        raise SwarmError(
            "For adaptive sync, valid adsValData is mandatory and a positive "
            "adsValBatchSize if applicable"
        )
    return True
