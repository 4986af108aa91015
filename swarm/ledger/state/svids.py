"""SPIFFE certificates on the ledger: which ones are too old to speak with.

Whether a certificate has expired is asked at the doors, which have clocks. The state has none, and
so takes what an ordinary certificate has signed for ever; nothing but an eviction ends that. The
keys of SPIFFE certificates are given up by the hour, and perhaps less well kept for it. So the
state remembers, for each trust domain, when the newest certificate that it has seen was issued, and
takes nothing more by one that had expired by then. These dates are the word of that domain's own
CAs: with false ones it can shut out its own members, and nobody else's.
"""

from __future__ import annotations

from swarm.identity import Peer
from swarm.ledger.state.draft import Draft
from swarm.ledger.state.verdict import Refused

STALE = "SW1229"
TABLE = "meta"


def check(draft: Draft, sender: Peer) -> None:
    """Note the sender's certificate, if it is a SPIFFE one. Raises Refused when it is too old."""
    vouched = sender.vouched
    if vouched is None:
        return
    key = f"svids/{vouched.domain}"
    known = draft.get(TABLE, key)
    newest = known["begins"] if known is not None else 0
    if vouched.ends < newest:
        raise Refused(
            STALE,
            f"the certificate of {vouched.spiffe_id[:200]} had expired when a newer one of its "
            "trust domain was issued",
        )
    if vouched.begins > newest:
        draft.put(TABLE, key, {"begins": vouched.begins})
