"""What the rules of a contract must hold for each merge method: arguments, and contributors.

The methods themselves are in `swarm.merge.methods`, which no node of the ledger needs; a test holds
that both say the same. A method of an installed package is `name@version`; only the learners know
what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from swarm.ledger.state.records import Contract

# Entries of mergeArgs that belong to every method, and their values.
COMMON: Mapping[str, tuple[str, ...]] = {"transferDtype": ("float32", "float16", "bfloat16")}


class Argument(NamedTuple):
    """An entry of mergeArgs: a whole number, or any number, which travels as text."""

    whole: bool
    least: float
    most: float
    default: int | None = None

    def problem(self, value: Any) -> str:
        """Why `value` cannot be; "" if it can."""
        number: float | None = None
        if self.whole:
            number = value if type(value) is int else None
        elif type(value) in (int, str):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                number = None
        if number is None or number != number:  # NaN alone is unequal to itself
            return f"{str(value)[:40]!r} is not a {'whole ' * self.whole}number"
        if not self.least <= number <= self.most:
            return f"{value} is not from {self.least} to {self.most}"
        return ""


class Law(NamedTuple):
    """Arguments of a method, and how many contributors it needs with them."""

    arguments: Mapping[str, Argument]
    needed: Callable[[Mapping[str, Any]], int]


def _one(args: Mapping[str, Any]) -> int:
    return 1


LAWS: Mapping[str, Law] = {
    "mean": Law({}, _one),
    "coordmedian": Law({}, _one),
    "geomedian": Law({}, _one),
    "trimmedmean": Law({"f": Argument(True, 1, 127, 1)}, lambda args: 2 * args["f"] + 1),
    "krum": Law({"f": Argument(True, 1, 126, 1)}, lambda args: 2 * args["f"] + 3),
    "multikrum": Law(
        {"f": Argument(True, 1, 126, 1), "m": Argument(True, 1, 252)},
        lambda args: max(2 * args["f"] + 3, (args["m"] or 0) + args["f"]),
    ),
    "centeredclip": Law(
        {"tau": Argument(False, 1e-30, 1e30), "iterations": Argument(True, 1, 1000, 10)}, _one
    ),
}


def problem(rules: Mapping[str, Any]) -> str:
    """Why a contract cannot have these rules; "" if it can."""
    method, args, least = rules["merge_method"], rules["merge_args"], rules["min_peers"]
    for key, allowed in COMMON.items():
        if args.get(key, allowed[0]) not in allowed:
            return f"merge_args: {key}: {str(args[key])[:40]!r} is not one of {', '.join(allowed)}"
    if "@" in method:
        return ""
    law = LAWS.get(method)
    if law is None:
        return f"merge_method {method!r} is not one of {', '.join(LAWS)}, nor name@version"
    for key in sorted(set(args) - set(COMMON)):
        argument = law.arguments.get(key)
        wrong = f"{method} knows no such entry" if not argument else argument.problem(args[key])
        if wrong:
            return f"merge_args: {key}: {wrong}"
    count = law.needed(_settled(law, args))
    if least < count:
        return f"{_described(method, args)} needs {count} members, and min_peers is {least}"
    return ""


def shortage(contract: Contract, uids: Iterable[str]) -> str:
    """Why the method cannot merge what these have checked in with; "" if it can.

    Members of weight 0 do not contribute. When none contributes there is nothing to merge, and no
    method is needed.
    """
    rules = contract["rules"]
    assert rules is not None, "a contract with members has rules"
    law = LAWS.get(rules["merge_method"])
    count = sum(contract["checkins"][uid]["weight"] > 0 for uid in uids)
    if law is None or count == 0:
        return ""
    needed = law.needed(_settled(law, rules["merge_args"]))
    if count >= needed:
        return ""
    return (
        f"{_described(rules['merge_method'], rules['merge_args'])} needs {needed} contributing"
        f" members, {count} {'is' if count == 1 else 'are'} here"
    )


def _settled(law: Law, args: Mapping[str, Any]) -> dict[str, Any]:
    return {key: args.get(key, argument.default) for key, argument in law.arguments.items()}


def _described(method: str, args: Mapping[str, Any]) -> str:
    """As people call it: krum with f = 1."""
    settled = _settled(LAWS[method], args)
    given = ", ".join(f"{key} = {value}" for key, value in settled.items() if value is not None)
    return f"{method} with {given}" if given else method
