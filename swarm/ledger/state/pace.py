"""Adaptive sync: how many batches lie between two merges of a contract.

The interval belongs to the contract, not to a member: a round waits for all of its members, so one
that merges more often than the others would only wait for them. Therefore the law is applied here,
when a round is decided, and everybody reads the same number from the ledger.

The law. Each member reports the loss of the merged model on its own validation data. The loss of a
round is the median of the reports about it that are on the ledger when the next round is decided.
The mean over the losses of the last WINDOW rounds is compared with that mean one round earlier:

    it falls                   the interval grows by a quarter, at least by one batch
    it stays or rises          the interval shrinks by a quarter, at least by one batch
    nobody has reported yet    the interval stays

It starts at syncFrequency and stays between an SPAN-th and the SPAN-fold of it. As long as merging
often brings nothing more than merging rarely does, traffic falls; as soon as the nodes drift apart,
they meet more often. The median keeps a minority that reports nonsense from setting the pace.
"""

from __future__ import annotations

import re

from swarm.ledger.state.records import Contract

WINDOW = 10  # rounds
SPAN = 8
UNIT = 10**9  # losses are kept as whole numbers of this part of one: no float decides anything
LARGEST = 10**9  # a loss of more says nothing about progress

_DECIMAL = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


def start(contract: Contract) -> None:
    """The first learner has set the rules."""
    rules = contract["rules"]
    assert rules is not None, "it has just set them"
    contract["interval"] = rules["sync_frequency"]


def adapt(contract: Contract) -> None:
    """A round is being decided; `last` is still the one before, about which members reported."""
    rules, last = contract["rules"], contract["last"]
    if rules is None or not rules["adaptive"] or last is None:
        return
    reported = [
        parse(member["loss"])
        for member in contract["members"].values()
        if member["reported_round"] == last["round"] and member["state"] == "active"
    ]
    losses = sorted(loss for loss in reported if loss is not None)
    if not losses:
        return
    median = (losses[(len(losses) - 1) // 2] + losses[len(losses) // 2]) // 2
    before = contract["losses"]
    after = contract["losses"] = [*before, median][-WINDOW:]
    if before:
        falls = sum(after) * len(before) < sum(before) * len(after)
        contract["interval"] = following(contract["interval"], falls, rules["sync_frequency"])


def following(interval: int, falls: bool, frequency: int) -> int:
    """The interval after one of `interval` batches, when the mean loss falls or does not."""
    step = max(1, interval // 4)
    wanted = interval + step if falls else interval - step
    return min(max(wanted, frequency // SPAN, 1), frequency * SPAN)


def parse(loss: str) -> int | None:
    """A reported loss in units of 1/UNIT, rounded towards zero; None for one without meaning."""
    found = _DECIMAL.fullmatch(loss)
    if found is None:
        return None  # empty, infinite, or not a number
    sign, whole, fraction, exponent = found.groups(default="")
    digits = (whole + fraction).lstrip("0")
    # The value is 0.digits × 10^magnitude.
    magnitude = len(digits) - len(fraction) + int(exponent or 0)
    if not digits or magnitude < -len(str(UNIT)):
        return 0
    if magnitude > len(str(LARGEST)):
        return None
    shift = magnitude - len(digits) + len(str(UNIT)) - 1
    value = int(digits) * 10**shift if shift >= 0 else int(digits) // 10**-shift
    return None if value > LARGEST * UNIT else -value if sign else value
