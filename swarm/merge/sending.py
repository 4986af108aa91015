"""One attempt's way out: what one other member is due, over as many connections as it takes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable
from typing import Any

from swarm.errors import RemoteError
from swarm.merge.agreement import Agreement
from swarm.merge.attempt import Attempt
from swarm.merge.dial import HANDSHAKE, Dialler
from swarm.merge.wire import PROTOCOL, Channel, ConnectionGone, Kind, WireError

log = logging.getLogger("swarm.merge")

WAIT_EVERY = 1.0  # seconds between two WAIT frames
MOST_NAMED = 100  # members in one of them: all 255 others would be too long for a frame
RETRY_FIRST, RETRY_MOST = 0.05, 1.0  # seconds between two attempts to connect
# Reasons that are not about this conversation, and what to tell people.
UNWELCOME, FOREIGN = "certificate", "protocol"
LASTING = {UNWELCOME: "it refuses our certificate", FOREIGN: "it is of another version"}


class Refused(RemoteError):
    """The other side does not take part (yet): SW6105. `reason` is its word for it."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__("SW6105", text)
        self.reason = reason


class Sender:
    """Delivers to member `j`; `run` is a thread's work."""

    def __init__(self, attempt: Attempt, dialler: Dialler, j: int) -> None:
        self._attempt = attempt
        self._dialler = dialler
        self._j = j
        self._member = attempt.members[j]

    def run(self) -> None:
        """Deliver all that the member is due, or until the attempt is aborted."""
        attempt = self._attempt
        pause = RETRY_FIRST
        while not attempt.aborted:
            kept = self._dialler.kept(self._member)
            try:
                channel = kept or self._dialler.dial(self._member)
            except RemoteError as fault:
                attempt.not_reached(self._j, fault.cause)
            else:
                if self._deliver(channel, fresh=kept is None):
                    return
                if kept is not None:
                    continue  # an idle connection had died; that says nothing about the member
            with attempt.changed:
                attempt.changed.wait_for(lambda: attempt.aborted, pause)
            pause = min(2 * pause, RETRY_MOST)

    def _deliver(self, channel: Channel, fresh: bool) -> bool:
        """Hold one conversation; tells whether the member has everything now."""
        attempt, j = self._attempt, self._j
        with attempt.changed:
            if attempt.aborted:
                channel.close()
                return True
            attempt.outgoing[j] = channel
        before = channel.sent
        try:
            answer = self._greet(channel)
            with attempt.changed:
                attempt.links[j].reached()
            self.stream(channel, answer)
        except Refused as fault:
            log.debug("%s: %s", self._member.name, fault.cause)
            if fault.reason in LASTING:
                channel.close()
                attempt.not_reached(j, f"{LASTING[fault.reason]}: {fault.cause}")
            else:
                self._dialler.keep(self._member, channel)
            return False
        except ConnectionGone as fault:
            channel.close()
            if fresh:
                attempt.not_reached(j, fault.cause)
            return False
        except WireError as fault:
            channel.close()
            attempt.blame(j, fault.cause)
            return False
        finally:
            with attempt.changed:
                attempt.outgoing.pop(j, None)
                attempt.changed.notify_all()
                attempt.bytes_sent += channel.sent - before
        self._dialler.keep(self._member, channel)
        return True

    def _greet(self, channel: Channel) -> dict[str, Any]:
        attempt = self._attempt
        channel.sock.settimeout(HANDSHAKE)
        hello = {"protocol": PROTOCOL, "want": "merge", "uid": attempt.uids[attempt.me]}
        channel.send_json(Kind.HELLO, {**hello, **attempt.key._asdict()})
        answer = channel.expect_json(Kind.ANSWER)
        if answer.get("ok") is not True:
            raise Refused(str(answer.get("reason"))[:40], str(answer.get("text"))[:400])
        channel.sock.settimeout(None)  # progress is watched from outside; abort ends a blocked call
        return answer

    def stream(self, channel: Channel, answer: dict[str, Any]) -> None:
        """Send everything from where `answer` says that the member is. Raises RemoteError."""
        attempt = self._attempt
        start, reduced = answer.get("contrib"), answer.get("reduced")
        if not isinstance(start, int) or not isinstance(reduced, int) or min(start, reduced) < 0:
            raise WireError("ANSWER without positions")
        with channel.together():
            if answer.get("leaves") is True:
                channel.send(Kind.DIGESTS, b"".join(attempt.buffers.leaves))
            if attempt.me in attempt.contributors:
                self._contribute(channel, start)
        if attempt.agreement is not None:
            self._agree(channel, attempt.agreement, answer)
        with channel.together():
            for number in range(reduced, attempt.mine):
                self._send_reduced(channel, number)
            channel.send(Kind.END)
        channel.expect_raw(Kind.END, 0)

    def _contribute(self, channel: Channel, start: int) -> None:
        plan, contribution = self._attempt.plan, self._attempt.buffers.contribution
        for number in range(start, plan.chunk_count(self._j)):
            chunk = plan.chunk(self._j, number)
            channel.send_chunk(Kind.CONTRIB, number, contribution[chunk.start : chunk.stop])

    def _agree(self, channel: Channel, agreement: Agreement, answer: dict[str, Any]) -> None:
        attempt = self._attempt
        if answer.get("distances") is True:
            self._await(channel, lambda: attempt.me in agreement.statements, self._not_measured)
            channel.send(Kind.DISTANCES, agreement.statements[attempt.me].frame())
        if answer.get("witness") is True:
            self._await(channel, agreement.complete, agreement.missing)
            channel.send_json(Kind.WITNESS, agreement.witness())

    def _not_measured(self) -> list[int]:
        attempt = self._attempt
        return [i for i, ready in attempt.ready.items() if ready <= attempt.measured]

    def _send_reduced(self, channel: Channel, number: int) -> None:
        attempt = self._attempt

        def late() -> Iterable[int]:
            return [i for i, ready in attempt.ready.items() if ready <= attempt.reduced]

        if attempt.reduced <= number:
            channel.flush()
            self._await(channel, lambda: attempt.reduced > number, late)
        chunk = attempt.plan.chunk(attempt.me, number)
        channel.send_chunk(Kind.REDUCED, number, attempt.buffers.output[chunk.start : chunk.stop])

    def _await(
        self, channel: Channel, there: Callable[[], bool], late: Callable[[], Iterable[int]]
    ) -> None:
        """Wait until it is `there`, and let the member know now and then whom we wait for."""
        attempt = self._attempt
        while True:
            with attempt.changed:
                attempt.changed.wait_for(lambda: attempt.aborted or there(), WAIT_EVERY)
                if attempt.aborted:
                    raise ConnectionGone("the exchange ended")
                if there():
                    return
                some = itertools.islice(late(), MOST_NAMED)
                counts = {attempt.uids[i]: attempt.progress_of(i) for i in some}
                counts[attempt.uids[attempt.me]] = attempt.own_progress()
            channel.send_json(Kind.WAIT, {"for": counts})
            channel.flush()
