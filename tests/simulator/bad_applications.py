"""Planted bugs in what is ordered for: the double with one mistake each."""

from __future__ import annotations

import itertools
from dataclasses import replace

from swarm.errors import RemoteError
from swarm.ledger.application import Application, Outcome, Ticket
from swarm.ledger.state import Header, Validator
from tests.simulator.ledgers import Double

_calls = itertools.count()


class Undetermined(Double):
    """What is executed depends on something else than the block: here, on how often it was."""

    def apply(self, header: Header, txs: tuple[bytes, ...]) -> tuple[Application, Outcome]:
        after, outcome = super().apply(header, txs)
        assert isinstance(after, Double)
        return replace(after, entries={**after.entries, "n": str(next(_calls) % 2)}), outcome


class AcceptsReplays(Double):
    """What was included may be included again."""

    def check(self, tx: bytes) -> Ticket:
        try:
            return super().check(tx)
        except RemoteError as error:
            if error.cause != "replayed":
                raise
            return self.identify(tx)


class DependsOnOrder(Double):
    """The order of validators is that in which this process came to know them."""

    def validators(self) -> tuple[Validator, ...]:
        found = super().validators()
        return found if next(_calls) % 7 else found[::-1]
