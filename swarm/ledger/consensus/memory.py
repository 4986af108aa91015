"""Does this node remember all that it has signed?

A directory that was restored from a backup, or a virtual machine from a snapshot, looks like that
of a node that was down for a while. But its key has signed more than it knows of, and signing the
same heights again would make it a liar. No node can see that alone: the others can.

So a node that starts on an existing store signs nothing new before quorum - 1 other validators of
its height have answered. Nothing could be decided without that many anyway, so waiting for them
costs no progress, however many start at the same time. Each of them, asked, first passes on what it
holds of the asking node's votes, and then answers with its height; what it sends arrives in order.
An answer counts when this node has reached its height and has seen those votes.

There is proof that this node forgot something when it meets its own signature on what it does not
remember: in one of those votes, or in the certificate of a block that it fetches. Then it behaves
as one whose store is empty (`amnesia.py`): it signs again from a height that its former self cannot
have reached. The same happens, and ends the contradictions, where two processes use one key.

What remains: votes that reached none of those who answer; a store from the time when this node was
the only validator, which needs nobody's answer; more nodes restored than the fault model tolerates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Memory:
    """What others have answered since the start on an existing store."""

    confirmed: bool
    lost: bool = False  # met an own signature that this node does not remember
    _heard: dict[str, int] = field(default_factory=dict)

    def hear(self, source: str, height: int, own: int) -> None:
        """`source` has passed on our votes for `height` + 1, while we stood at `own`.

        From further ahead they were not kept: ask again later.
        """
        if height <= own + 1:
            self._heard[source] = height

    def enough(self, others: Iterable[str], height: int, quorum: int) -> bool:
        """Whether quorum - 1 of `others` have told what they hold of us at our `height` + 1."""
        told = sum(uid in self._heard and self._heard[uid] <= height for uid in others)
        return told >= quorum - 1
