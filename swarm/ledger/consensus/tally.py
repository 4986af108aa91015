"""Verified votes and proposals of one height, counted once and bounded.

A validator that votes twice in a step is counted for *each* value it signed. That is safe, since
any two quorums share an honest validator anyway, and it is needed: if every node kept only the
first vote that reached it, nodes could miss the quorum of prevotes that a later proposal refers to
(line 28) and wait for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from swarm.ledger.block import NIL, PRECOMMIT, PREVOTE, Block
from swarm.ledger.consensus.messages import Proposal, Signed, Vote

VALUES = 3  # different values of one validator in one step that are counted
WINDOW = 20  # rounds around the present one that are kept

Step = tuple[int, int]  # kind, round


@dataclass(frozen=True)
class Evidence:
    """Two messages of one validator that no correct validator signs together."""

    first: Signed
    second: Signed


class Tally:
    """Only messages with a good signature of a validator of this height may be added."""

    def __init__(self, keys: Mapping[str, bytes], quorum: int) -> None:
        self.keys = keys
        self.quorum = quorum
        self.highest: dict[str, int] = {}  # last round in which a validator signed anything
        self.proposals: dict[int, list[Proposal]] = {}  # by round; the first one is the proposal
        self._votes: dict[Step, dict[tuple[str, bytes], Vote]] = defaultdict(dict)
        self._voters: dict[Step, set[str]] = defaultdict(set)
        self._counts: dict[tuple[int, int, bytes], int] = defaultdict(int)
        self._reached: list[tuple[int, bytes]] = []  # precommit quorums: round, block id
        self._referred: set[int] = set()  # rounds outside the window that are needed still

    def blocks(self) -> Iterator[tuple[int, Proposal]]:
        """All proposals that are held, with their round."""
        for round_, proposals in self.proposals.items():
            for proposal in proposals:
                yield round_, proposal

    def block(self, block_id: bytes) -> Block | None:
        """A proposed block by its id, whichever round it came in."""
        for _, proposal in self.blocks():
            if proposal.block.id == block_id:
                return proposal.block
        return None

    def wanted(self, message: Signed, present: int) -> bool:
        """Whether it could tell anything new: ask before paying for the signature check."""
        if message.voter not in self.keys:
            return False
        if not self._kept(message.round, present):
            return message.round > self.highest.get(message.voter, -1)
        if isinstance(message, Vote):
            held = self._values(message)
            if message.block_id in held:
                return False
            return len(held) < VALUES or self._claimed(message)
        proposals = self.proposals.get(message.round, [])
        known = any(p.block.id == message.block.id for p in proposals)
        return not known and len(proposals) < VALUES

    def _claimed(self, vote: Vote) -> bool:
        """Whether a proposal says that this prevote's value had a quorum in this prevote's round.

        A liar that signs more than VALUES values could otherwise keep some nodes from ever seeing
        a quorum that it was part of, and so from unlocking.
        """
        return vote.kind == PREVOTE and any(
            proposal.valid_round == vote.round and proposal.block.id == vote.block_id
            for _, proposal in self.blocks()
        )

    def _kept(self, round_: int, present: int) -> bool:
        return abs(round_ - present) <= WINDOW or round_ in self._referred

    def _values(self, vote: Vote) -> list[bytes]:
        step = (vote.kind, vote.round)
        if vote.voter not in self._voters.get(step, ()):
            return []
        # At most VALUES entries of one voter exist, and those that proposals refer to.
        return [value for voter, value in self._votes[step] if voter == vote.voter]

    def add(self, message: Signed, present: int) -> Evidence | None:
        """Count a verified message that was `wanted`, once. Returns proof of a double vote."""
        voter = message.voter
        self.highest[voter] = max(self.highest.get(voter, -1), message.round)
        if not self._kept(message.round, present):
            return None
        if isinstance(message, Proposal):
            proposals = self.proposals.setdefault(message.round, [])
            if any(p.block.id == message.block.id for p in proposals):
                return None
            proposals.append(message)
            if message.valid_round >= 0:
                self._referred.add(message.valid_round)  # line 28 needs the prevotes of then
            return Evidence(proposals[0], message) if len(proposals) > 1 else None
        step = (message.kind, message.round)
        before = self._values(message)
        if message.block_id in before:
            return None
        self._votes[step][voter, message.block_id] = message
        self._voters[step].add(voter)
        place = (message.kind, message.round, message.block_id)
        self._counts[place] += 1
        if (
            message.kind == PRECOMMIT
            and message.block_id != NIL
            and self._counts[place] == self.quorum
        ):
            self._reached.append((message.round, message.block_id))
        return Evidence(self._votes[step][voter, before[0]], message) if before else None

    def has_quorum(self, kind: int, round_: int, block_id: bytes) -> bool:
        """The paper's "2f + 1 votes for id(v)"."""
        return self._counts.get((kind, round_, block_id), 0) >= self.quorum

    def has_any_quorum(self, kind: int, round_: int) -> bool:
        """The paper's "2f + 1 votes for *": each voter counts once."""
        return len(self.voters(kind, round_)) >= self.quorum

    def voters(self, kind: int, round_: int) -> Collection[str]:
        """Who voted at all in a step."""
        return self._voters.get((kind, round_), ())

    def decided(self) -> list[tuple[int, bytes]]:
        """Rounds and ids with a quorum of precommits."""
        return self._reached

    def votes_for(self, kind: int, round_: int, block_id: bytes) -> list[Vote]:
        """The votes for a block in a step, sorted by voter."""
        held = self._votes.get((kind, round_), {})
        return sorted(
            (vote for (_, value), vote in held.items() if value == block_id), key=lambda v: v.voter
        )

    def skip_to(self, present: int, honest: int) -> int | None:
        """Line 55: a round beyond `present` that at least `honest` validators have reached."""
        beyond = [round_ for round_ in self.highest.values() if round_ > present]
        return sorted(beyond)[-honest] if len(beyond) >= honest else None

    def messages(self, rounds: set[int]) -> Iterator[Vote]:
        """All votes of some rounds, for passing on."""
        for (_, round_), held in self._votes.items():
            if round_ in rounds:
                yield from held.values()

    def votes_of(self, voter: str) -> Iterator[Vote]:
        """All votes of one validator that are held."""
        for held in self._votes.values():
            for vote in held.values():
                if vote.voter == voter:
                    yield vote

    def refer(self, round_: int) -> None:
        """Keep the votes of a round outside the window, too."""
        self._referred.add(round_)

    def prune(self, present: int, keep: set[int]) -> None:
        """Forget rounds long gone, but for those in `keep` and those that a proposal refers to."""
        self._referred = {p.valid_round for round_, p in self.blocks() if round_ >= present} | keep
        self._referred.update(round_ for round_, _ in self._reached)
        old = present - WINDOW
        for step in [s for s in self._votes if s[1] < old and s[1] not in self._referred]:
            del self._voters[step]
            for _, value in self._votes.pop(step):
                self._counts.pop((*step, value), None)
        for round_ in [r for r in self.proposals if r < old and r not in self._referred]:
            del self.proposals[round_]
