"""When may a node vote whose store is empty?

Its key may be a validator's that voted before the disk was lost. Voting again at the same height
would make it a liar: it no longer knows its lock. So an empty store votes for nothing until it can
show that its former self signed nothing at the heights and rounds that it will sign.

Notation: the node has synced to height H, so it knows the n validators of H + 1 and their quorum q.
The others answer with `reach`, the last height in which they precommitted a block (or committed).
Nodes that may not vote themselves answer -1 and are not counted.

**Rule 1.** q of the *others* answered a reach of at most H. Then no quorum of precommits for a
block at H + 1 existed before they answered: it would share an honest validator with those q, which
had signed one. So the former self had not committed H + 1, and signed at heights up to H + 1 only.
Vote from H + 2. (Precommits for nothing decide nothing, so they do not count as reaching.)

**Rule 2.** All n validators are needed (q = n ≥ 2, so none may fail or lie, and rule 1 cannot
apply). All others answered, all have committed exactly H, and the last round of H + 1 in which
any of them signed, or holds something of ours, is r (-1 for none). Whatever H + 1 was decided to
be, all of them precommitted it and hold the lock, so nothing else can be decided. The former self
was in round r + 1 at most: it got there by precommits of all for the round before, or by a message
from there (line 55), or began with round 0. Vote from round r + 2 of H + 1.

A newcomer passes rule 1 before it enrolls, so it votes from the height that its enrollment takes
effect at. What remains impossible: the only validator has lost its store.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from swarm.ledger.consensus.messages import Answer


@dataclass
class Amnesia:
    """Answers of others, collected since the start with an empty store."""

    answers: dict[str, Answer] = field(default_factory=dict)

    def hear(self, source: str, answer: Answer) -> None:
        """Keep the first reach of a node (all later ones are higher) and its latest height."""
        known = self.answers.get(source)
        if answer.reach < 0:
            self.answers.pop(source, None)
        elif known is None or known.reach < 0:
            self.answers[source] = answer
        else:
            self.answers[source] = Answer(answer.height, known.reach, answer.last_round)

    def vote_from(
        self, me: str, height: int, uids: Collection[str], quorum: int
    ) -> tuple[int, int] | None:
        """Height and round from which to vote, or None while that is not known.

        `height` is H; `uids` and `quorum` are those of H + 1.
        """
        others = [uid for uid in uids if uid != me]
        heard = [self.answers[uid] for uid in others if uid in self.answers]
        if sum(answer.reach <= height for answer in heard) >= quorum:
            return height + 2, 0
        needed = me in uids and quorum == len(uids) > 1
        if needed and len(heard) == len(others) and all(a.height == height for a in heard):
            return height + 1, max(answer.last_round for answer in heard) + 2
        return None
