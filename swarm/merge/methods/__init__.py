"""The merge methods by name: those of the product, and those of installed packages.

A package offers methods under the entry point group `swarm.merge_methods`. On the ledger such a one
is called `name@version`, the version being that of its distribution, so that members which lack it,
or have another version, are refused instead of computing something else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from swarm.errors import LocalError
from swarm.merge.mean import Segment, contributors
from swarm.merge.methods.base import Arg, Method, PerCoordinate, guarded
from swarm.merge.methods.centeredclip import CenteredClip
from swarm.merge.methods.coordmedian import CoordMedian
from swarm.merge.methods.geomedian import GeoMedian
from swarm.merge.methods.krum import Krum
from swarm.merge.methods.mean import Mean
from swarm.merge.methods.mixing import MixingWeights
from swarm.merge.methods.multikrum import MultiKrum
from swarm.merge.methods.trimmedmean import TrimmedMean
from swarmlearning.narrow import TRANSFER

__all__ = [
    "GROUP",
    "Arg",
    "Method",
    "MixingWeights",
    "PerCoordinate",
    "agreed",
    "check",
    "excludes",
    "make",
    "parse_args",
]

GROUP = "swarm.merge_methods"
UNKNOWN, WRONG = "SW6006", "SW6013"

LONGEST = 10**20  # numbers beyond it are not repeated to people

# Entries of mergeArgs that belong to every method, and are read elsewhere; their values.
COMMON: Mapping[str, Collection[str]] = {"transferDtype": TRANSFER}

BUILT_IN: Mapping[str, type[Method]] = {
    method.name: method
    for method in (Mean, CoordMedian, TrimmedMean, GeoMedian, Krum, MultiKrum, CenteredClip)
}


def agreed(name: str, args: Mapping[str, Any], min_peers: int) -> tuple[str, dict[str, Any]]:
    """`merge_method` and `merge_args` for a contract's rules, from what a program asks for.

    Defaults are written out and floats become text, so that programs which mean the same give the
    same rules. Raises LocalError: SW6006 unknown method, SW6013 unusable mergeArgs, SW4045 when
    `min_peers` members are too few.
    """
    method, version = _find(name)
    needed, text = _needed(name, args)
    if min_peers < needed:
        raise LocalError("SW4045", f"{text} needs {needed} members, and minPeers is {min_peers}")
    settled = {key: value for key, value in parse_args(name, args).items() if value is not None}
    rules = {key: _plain(value) for key, value in settled.items()}
    rules.update({key: args[key] for key in COMMON if key in args})
    full = f"{method.name}@{version}" if version else method.name
    return full, rules


def parse_args(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each entry that the method has, from mergeArgs as given or as on the ledger.

    None where the method derives it from its inputs. Raises LocalError as `agreed`.
    """
    method, _ = _find(name)
    for key in args:
        if key not in method.ARGS and key not in COMMON:
            known = ", ".join(method.ARGS) or "no entries"
            raise LocalError(WRONG, f"mergeArgs: {method.name} knows no {key!r}; it has {known}")
        if key in COMMON and args[key] not in tuple(COMMON[key]):
            allowed, given = ", ".join(COMMON[key]), str(args[key])[:40]
            raise LocalError(WRONG, f"mergeArgs: {key} is {given!r}, not one of {allowed}")
    return {
        key: _value(f"mergeArgs: {key}", arg, args[key]) if key in args else arg.default
        for key, arg in method.ARGS.items()
    }


def excludes(name: str) -> bool:
    """Whether the method leaves out what is not finite; else nobody may bring it."""
    return _find(name)[0].excludes


def check(name: str, args: Mapping[str, Any], count: int) -> str:
    """Why the method cannot hold with `count` contributing members; "" if it can."""
    needed, text = _needed(name, args)
    if count >= needed:
        return ""
    here = f"{count} {'is' if count == 1 else 'are'} here"
    return f"{text} needs {needed} contributing members, {here}"


def _needed(name: str, args: Mapping[str, Any]) -> tuple[int, str]:
    """Contributors that the method needs, and what it is called: krum with f = 1."""
    method, _ = _find(name)
    settled = parse_args(name, args)
    needed = int(guarded(name, lambda: method.needed(settled)))
    given = ", ".join(f"{key} = {value}" for key, value in settled.items() if value is not None)
    return needed, f"{method.name} with {given}" if given else method.name


def make(
    name: str, args: Mapping[str, Any], layout: Sequence[Segment], weights: Sequence[int]
) -> Method:
    """The method for one attempt; `weights` are those of the roster, in its order.

    Raises LocalError: SW6006, SW6013 (also for too few contributors), and SW6012 when a user's
    class cannot be made.
    """
    short = check(name, args, len(contributors(weights)))
    if short:
        raise LocalError(WRONG, short)
    method, _ = _find(name)
    settled = parse_args(name, args)
    made: Method = guarded(name, lambda: method(settled, layout, weights))
    return made


def _find(name: str) -> tuple[type[Method], str]:
    """Class of method `name` or `name@version`, and its version, "" for the product's own."""
    plain, _, version = name.partition("@")
    built_in = BUILT_IN.get(plain)
    if built_in is not None and not version:
        return built_in, ""
    found = [point for point in entry_points(group=GROUP) if point.name == plain]
    here = sorted({_version(point) for point in found})
    fitting = [point for point in found if not version or _version(point) == version]
    if len(fitting) == 1:
        return _load(fitting[0]), _version(fitting[0])
    if fitting:
        raise LocalError(UNKNOWN, f"several installed packages offer merge method {plain}")
    if found:
        text = f"merge method {plain} is version {version} in the contract, {here[0]} here"
        raise LocalError(UNKNOWN, text)
    offered = sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})
    raise LocalError(UNKNOWN, f"no merge method {name[:80]!r} is installed; {', '.join(offered)}")


def _version(point: EntryPoint) -> str:
    return point.dist.version if point.dist is not None else "0"


def _load(point: EntryPoint) -> type[Method]:
    try:
        method = point.load()
    except Exception as error:
        raise LocalError(UNKNOWN, f"merge method {point.name}: {point.value}: {error}") from error
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise LocalError(UNKNOWN, f"merge method {point.name}: {point.value} is not a Method")
    method.name = point.name  # as members know it, whatever its class says
    return method


def _value(what: str, arg: Arg, value: Any) -> float:
    """`value` as the number that `arg` asks for; floats come from the ledger as text."""
    number: float | None = None
    if arg.kind is int:
        number = value if type(value) is int else None
    elif type(value) in (int, float, str):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = None
    if number is None or number != number:
        kind = "a whole number" if arg.kind is int else "a number"
        raise LocalError(WRONG, f"{what} is {str(value)[:40]!r}, not {kind}")
    if not arg.least <= number <= arg.most:
        given = repr(number) if abs(number) < LONGEST else "far out"
        raise LocalError(WRONG, f"{what} is {given}, not from {arg.least} to {arg.most}")
    return number


def _plain(value: float) -> int | str:
    return value if isinstance(value, int) else repr(value)
