"""What a validator has signed, without what it signed it about: small enough for the ledger.

Votes and proposals sign the id of a block, not its bytes. Two statements of one voter about one
step that name different blocks prove that its key signed what no correct validator signs.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.ledger import codec
from swarm.ledger.block import (
    MAX_ROUND,
    MAX_SIGNATURE,
    MAX_UID,
    NIL,
    PRECOMMIT,
    PREVOTE,
    proposal_bytes,
    vote_bytes,
)
from swarm.ledger.consensus import messages as msg

TAG = "statement"
CODE = "SW3005"
MAX_STATEMENT = 2048
PROPOSAL = 0
KINDS = {PROPOSAL: "proposal", PREVOTE: "prevote", PRECOMMIT: "precommit"}


@dataclass(frozen=True)
class Statement:
    """`voter` signed `block_id` (`NIL` for none) as `kind` in this height and round."""

    kind: int
    height: int
    round: int
    valid_round: int  # of a proposal; -1 in votes
    block_id: bytes
    voter: str
    signature: bytes

    @classmethod
    def of(cls, message: msg.Signed) -> Statement:
        """The statement in a signed message."""
        if isinstance(message, msg.Vote):
            m = message
            return cls(m.kind, m.height, m.round, -1, m.block_id, m.voter, m.signature)
        p = message
        return cls(PROPOSAL, p.height, p.round, p.valid_round, p.block.id, p.voter, p.signature)

    def signed_bytes(self, chain: bytes) -> bytes:
        """The bytes that the signature is over."""
        if self.kind == PROPOSAL:
            return proposal_bytes(chain, self.height, self.round, self.valid_round, self.block_id)
        return vote_bytes(chain, self.kind, self.height, self.round, self.block_id)

    @property
    def step(self) -> tuple[str, int, int, int]:
        """What a correct validator signs once: voter, height, round and kind."""
        return self.voter, self.height, self.round, self.kind

    def encode(self) -> bytes:
        head = [TAG, self.kind, self.height, self.round, self.valid_round]
        return codec.encode([*head, self.block_id, self.voter, self.signature])

    @classmethod
    def decode(cls, data: bytes) -> Statement:
        """Parse. Raises RemoteError SW3005."""
        value = codec.decode(data, limit=MAX_STATEMENT, what=TAG, code=CODE)
        kinds = (int, int, int, int, bytes, str, bytes)
        found = cls(*codec.fields(value, TAG, kinds, TAG, CODE))
        proposal = found.kind == PROPOSAL
        codec.require(
            found.kind in KINDS
            and 0 < found.height < 1 << 62
            and 0 <= found.round < MAX_ROUND
            and (-1 <= found.valid_round < found.round if proposal else found.valid_round == -1)
            and (len(found.block_id) == 32 or (found.block_id == NIL and not proposal))
            and len(found.voter) <= MAX_UID
            and len(found.signature) <= MAX_SIGNATURE,
            "a statement is out of range",
            CODE,
        )
        return found
