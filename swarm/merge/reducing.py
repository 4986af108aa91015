"""One attempt's arithmetic: our shard, chunk by chunk, by the contract's method.

Per coordinate a chunk is reduced as soon as all contributors gave theirs. Mixing takes three steps:
measure each chunk as soon as all gave it, settle the shares when everybody's distances are here,
and reduce.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from swarm.errors import LocalError, RemoteError
from swarm.merge.agreement import Agreement
from swarm.merge.attempt import Attempt
from swarm.merge.methods import MixingWeights
from swarm.merge.methods.distances import Distances
from swarm.merge.store import Store, copy

log = logging.getLogger("swarm.merge")


class Aborted(Exception):
    """The attempt has ended."""


class Reducer:
    """Reduces our shard; `run` is a thread's work."""

    def __init__(self, attempt: Attempt, store: Store, sign: Callable[[bytes], bytes]) -> None:
        self._attempt = attempt
        self._store = store
        self._sign = sign
        self._told: set[int] = set()  # whose values we have spoken about
        # Not straight into the output: that may be where our contribution lies, one of the inputs.
        self._room = memoryview(bytearray(attempt.plan.largest_chunk()))

    def run(self) -> None:
        """Do all of it, unless the attempt is aborted. A failure is noted in the attempt."""
        try:
            if self._attempt.agreement is not None:
                self._agree(self._attempt.agreement)
            for number in range(self._attempt.mine):
                self._reduce(number)
        except Aborted:
            return
        except (LocalError, RemoteError) as fault:
            self._attempt.fail(fault)
        else:
            self._attempt.arrived()

    # ------------------------------------------------------------------ mixing

    def _agree(self, agreement: Agreement) -> None:
        """Measure our shard, and settle the shares when all have measured theirs."""
        attempt = self._attempt
        distances = Distances(attempt.buffers.layout, len(attempt.contributors))
        for number in range(attempt.mine):
            self._wait(lambda number=number: attempt.all_gave(number))  # type: ignore[misc]
            chunk = attempt.plan.chunk(attempt.me, number)
            distances.add(self._inputs(number), chunk.start)
            with attempt.changed:
                attempt.measured = number + 1
        statement = agreement.state(distances.matrix, self._sign)
        with attempt.changed:
            agreement.statements[attempt.me] = statement
            attempt.changed.notify_all()
        self._wait(agreement.complete)
        method = attempt.method
        assert isinstance(method, MixingWeights), "only those have an agreement"
        shares = method.settle(agreement.total())
        names = [attempt.name(i) for i in attempt.contributors]
        text = ", ".join(f"{name} {share:.3g}" for name, share in zip(names, shares, strict=True))
        log.debug("%s: shares %s", method.name, text)
        self._tell_rejected()

    # ---------------------------------------------------------------- reducing

    def _reduce(self, number: int) -> None:
        attempt = self._attempt
        self._wait(lambda: attempt.all_gave(number))
        chunk = attempt.plan.chunk(attempt.me, number)
        out = self._room[: chunk.size]
        attempt.method.reduce(self._inputs(number), out, chunk.start)
        if attempt.method.rejected:
            self._tell_rejected()
        attempt.note_leaves(chunk, out)
        copy(out, attempt.buffers.output[chunk.start : chunk.stop])
        with attempt.changed:
            attempt.reduced = number + 1
            attempt.changed.notify_all()

    def _inputs(self, number: int) -> list[memoryview]:
        """Chunk `number` of our shard, of every contributor in order."""
        attempt = self._attempt
        chunk = attempt.plan.chunk(attempt.me, number)
        own = attempt.buffers.contribution[chunk.start : chunk.stop]
        rows = {i: row for row, i in enumerate(attempt.givers)}
        return [
            own if i == attempt.me else self._store.place(rows[i], number, chunk.size)
            for i in attempt.contributors
        ]

    def _tell_rejected(self) -> None:
        """Name those whose values are not finite, and blame them if the method cannot do without.

        Raises Aborted in that case, when the attempt has failed for it.
        """
        attempt, method = self._attempt, self._attempt.method
        new = [i for i in method.rejected if i not in self._told]
        self._told.update(new)
        for i in new:
            why = method.rejected[i]
            if method.excludes:
                log.warning("%s: %s; left out of this merge", attempt.name(i), why)
            elif i == attempt.me:
                raise LocalError("SW6014", f"{why}; {method.name} cannot leave them out")
            else:
                attempt.blame(i, f"its weights are not finite ({why})")
        if new and not method.excludes:
            self._wait(lambda: False)

    def _wait(self, there: Callable[[], bool]) -> None:
        attempt = self._attempt
        with attempt.changed:
            attempt.changed.wait_for(lambda: attempt.aborted or there())
            if attempt.aborted:
                raise Aborted
