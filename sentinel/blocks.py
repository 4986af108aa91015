"""Blocks as they are, for those that check the ledger themselves."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from sentinel.ports import Ledger

BATCH_BYTES = 2 << 20  # an answer stops growing here
BATCH_BLOCKS = 50  # read from disk one by one, while nothing else of this node runs


def answer_blocks(ledger: Ledger, origin: Mapping[str, Any], after: int) -> dict[str, Any]:
    """The answer of `/v1/blocks`: blocks behind a height, as many as fit one answer.

    `origin` is what `/v1/bootstrap` answers; genesis and accepted recoveries come along with the
    first blocks.
    """
    blocks: list[list[str]] = []
    size = 0
    while size < BATCH_BYTES and len(blocks) < BATCH_BLOCKS:
        found = ledger.block(after + len(blocks) + 1)
        if found is None:
            break
        pair = [found.block.encoded, found.certificate.encode()]
        size += sum(map(len, pair))
        blocks.append([base64.b64encode(raw).decode() for raw in pair])
    answer = {"height": ledger.state.height, "blocks": blocks}
    if after == 0:
        answer["genesis"] = origin["genesis"]
        answer["recoveries"] = origin.get("recoveries", [])
    return answer
