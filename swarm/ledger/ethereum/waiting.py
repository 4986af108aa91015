"""Why the ledger does not go on, in one sentence, where a network gives the order."""

from __future__ import annotations

import trio

from swarm.ledger.ethereum.follower import Follower
from swarm.ledger.ethereum.sender import Sender

PATIENCE = 5.0  # seconds; a block of most networks takes less, or up to 12
BEHIND = 2  # blocks that may be missing between two looks


class Situation:
    """What is known about the way to the network; the orderer keeps it up to date."""

    def __init__(self, account: str, contract: str) -> None:
        self.account = account
        self.contract = contract
        self.network = "the network has not answered yet"  # why nothing can be read; "": it can
        self.registered = False  # whether the account may write, as far as is known
        self.refusal = ""  # why the last transaction was not taken
        self.look = trio.Event()  # set: look whether the account is registered


def explain(
    situation: Situation,
    follower: Follower,
    sender: Sender,
    oldest: float | None,
    count: int,
) -> str:
    """Return the reason, or "". `oldest`: seconds since the first of `count` transactions came."""
    if situation.network:
        return situation.network
    missing = follower.final - follower.position.number
    if missing > BEHIND:
        done = follower.position.number
        return f"fetching blocks: the network's block {done} of {follower.final} is read"
    if not situation.registered:
        return (
            f"account {situation.account} is not registered with the contract "
            f"{situation.contract} (SW3106); waiting for a member that does it"
        )
    if oldest is None:
        return ""
    if situation.refusal:
        return f"{count} transactions wait: {situation.refusal}"
    if oldest < PATIENCE:
        return ""
    flight = sender.oldest
    if flight is not None:
        return f"{count} transactions wait {oldest:.0f} s for a block of the network"
    return (
        f"{count} transactions wait {oldest:.0f} s to become final, "
        f"{follower.confirmations} blocks deep in the network"
    )
