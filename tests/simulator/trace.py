"""Words for the event log of a world (`python -m tests.simulator --trace SEED`)."""

from __future__ import annotations

from typing import Any

from swarm.ledger.block import PREVOTE
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg


def _id(block_id: bytes) -> str:
    return block_id.hex()[:6] or "nothing"


def describe_message(message: msg.Message) -> str:
    """One message in a few words; `h/r` are height and round."""
    if isinstance(message, msg.Vote):
        kind = "prevote" if message.kind == PREVOTE else "precommit"
        return f"{kind} {message.height}/{message.round} {message.voter}: {_id(message.block_id)}"
    if isinstance(message, msg.Proposal):
        valid = f" valid since round {message.valid_round}" if message.valid_round >= 0 else ""
        block = f"{_id(message.block.id)} of {len(message.block.transactions)} tx"
        return f"proposal {message.height}/{message.round} {message.voter}: {block}{valid}"
    if isinstance(message, msg.Transactions):
        return f"{len(message.items)} transactions"
    if isinstance(message, msg.Blocks):
        return f"{len(message.items)} certified blocks"
    return str(message)


def describe_event(name: str, args: tuple[Any, ...]) -> str:
    """What a core is given."""
    if name == "receive":
        return f"<- {args[0]}: {describe_message(args[1])}"
    if name == "timeout":
        return f"time-out {args[0].kind} {args[0].height}/{args[0].round}"
    return name


def describe_effect(effect: fx.Effect) -> str:
    """What a core asks for."""
    if isinstance(effect, fx.Send):
        return f"-> {effect.to or 'all'}: {describe_message(effect.message)}"
    if isinstance(effect, fx.WriteVote):
        kind = ("proposal", "prevote", "precommit")[effect.kind]
        return f"writes its {kind} {effect.height}/{effect.round}"
    if isinstance(effect, fx.WriteLock):
        locked = f"{_id(effect.locked_id)} since round {effect.locked_round}"
        return f"writes its lock at {effect.height}: {locked}, valid round {effect.valid_round}"
    if isinstance(effect, fx.WriteVoting):
        return f"may vote from {effect.height}/{effect.round}"
    if isinstance(effect, fx.WriteEvidence):
        return f"has evidence against {effect.voter} at {effect.height}"
    if isinstance(effect, fx.Commit):
        return f"COMMITS {effect.block.height}: {_id(effect.block.id)}"
    return str(effect)
