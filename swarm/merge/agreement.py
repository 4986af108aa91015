"""How the members come to the same shares: everybody's distances, and proof that all have the same.

Each owner measures its shard and sends the matrix of squared distances, signed, to everybody. Then
everybody sends everybody a *witness*: the digests of all matrices that it holds, with the owners'
signatures. Two members that hold different matrices of one owner find that out before either calls
its result whole, and the signatures tell whose fault it is: an owner that has signed two matrices
in one attempt has lied, and so has a member that shows one which its owner has not signed. Without
them a majority could be led to put out the victim instead of the liar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from blake3 import blake3

from swarm.identity.keys import verify_signature
from swarm.merge.blocks import DIGEST
from swarm.merge.methods.base import Matrix
from swarm.merge.methods.distances import problem, total
from swarm.merge.wire import MAX_SIGNATURE, WireError

_DOMAIN = b"swarm merge distances\0"


class Statement(NamedTuple):
    """One owner's matrix, and what proves that it is the owner's."""

    matrix: Matrix  # float64 (contributors, contributors)
    digest: bytes
    signature: bytes
    public_key: bytes  # DER SubjectPublicKeyInfo

    def frame(self) -> bytes:
        """Payload of a DISTANCES frame."""
        return self.matrix.astype("<f8").tobytes() + self.signature


class Agreement:
    """One attempt's matrices and witnesses. The caller guards it with the attempt's lock."""

    def __init__(self, subject: bytes, me: int, names: Sequence[str], contributors: int) -> None:
        """`subject` names the attempt, roster and contributions included."""
        self._subject = subject
        self._me = me
        self._names = names
        self._side = contributors
        self._witnesses: dict[int, list[tuple[bytes, bytes]]] = {}
        self.statements: dict[int, Statement] = {}

    # ------------------------------------------------------------- what we say

    def state(self, matrix: Matrix, sign: Callable[[bytes], bytes]) -> Statement:
        """Our own statement about our shard."""
        digest = _digest(matrix)
        signature = sign(self._signed(self._me, digest))
        return Statement(matrix, digest, signature, b"")

    def witness(self) -> dict[str, list[list[str]]]:
        """What we hold, as a WITNESS frame says it. All statements must be here."""
        return {
            "held": [
                [self.statements[k].digest.hex(), self.statements[k].signature.hex()]
                for k in range(len(self._names))
            ]
        }

    # ---------------------------------------------------------- what others say

    def read(self, i: int, payload: bytes, public_key: bytes) -> Statement:
        """Member `i`'s statement, from a DISTANCES frame. Raises WireError."""
        size = 8 * self._side**2
        if not size <= len(payload) <= size + MAX_SIGNATURE:
            raise WireError(f"distances in {len(payload)} B, expected {size} B and a signature")
        matrix = np.frombuffer(payload[:size], "<f8").astype(np.float64)
        matrix = matrix.reshape(self._side, self._side)
        digest, signature = _digest(matrix), bytes(payload[size:])
        if not verify_signature(public_key, self._signed(i, digest), signature):
            raise WireError("its distances are not signed with its key")
        wrong = problem(matrix)
        if wrong:
            raise WireError(wrong)
        return Statement(matrix, digest, signature, public_key)

    def hear(self, i: int, frame: Mapping[str, Any]) -> None:
        """Take member `i`'s witness. Raises WireError."""
        held = frame.get("held")
        if not isinstance(held, list) or len(held) != len(self._names):
            raise WireError("WITNESS without a statement of each member")
        self._witnesses[i] = [_parsed(one) for one in held]

    def has_heard(self, i: int) -> bool:
        """Member `i`'s witness is here."""
        return i in self._witnesses

    # ------------------------------------------------------------------ verdict

    def complete(self) -> bool:
        """Every member's statement is here."""
        return len(self.statements) == len(self._names)

    def missing(self) -> list[int]:
        """Whose statement is not here."""
        return [k for k in range(len(self._names)) if k not in self.statements]

    def sealed(self) -> bool:
        """All hold the same statements, as far as all say."""
        return self.complete() and len(self._witnesses) == len(self._names) - 1 and not self.liars()

    def liars(self) -> dict[int, str]:
        """Member -> why, from the statements and witnesses that are here."""
        found: dict[int, str] = {}
        for i, held in self._witnesses.items():
            for k, (digest, signature) in enumerate(held):
                mine = self.statements.get(k)
                if mine is None or digest == mine.digest:
                    continue
                signed = self._signed(k, digest)
                # We sign one statement in an attempt, so nobody else's word about it is good.
                if k != self._me and verify_signature(mine.public_key, signed, signature):
                    found[k] = "it sent different distances to different members"
                else:
                    found[i] = f"it shows distances that {self._names[k]} has not signed"
        return found

    def total(self) -> Matrix:
        """Squared distances between the whole contributions; the same bits for everybody."""
        return total([self.statements[k].matrix for k in range(len(self._names))])

    def _signed(self, k: int, digest: bytes) -> bytes:
        return _DOMAIN + self._subject + k.to_bytes(4, "big") + digest


def _digest(matrix: Matrix) -> bytes:
    digest: bytes = blake3(matrix.astype("<f8").tobytes()).digest()
    return digest


def _parsed(entry: object) -> tuple[bytes, bytes]:
    try:
        digest, signature = (bytes.fromhex(text) for text in entry)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise WireError("malformed WITNESS frame") from None
    if len(digest) != DIGEST or len(signature) > MAX_SIGNATURE:
        raise WireError("malformed WITNESS frame")
    return digest, signature
