"""Certificates and trust that change while a node runs.

`Watch.look`, called every second or so, notices changed files by their status, and what a SPIFFE
agent has sent by its number. New CAs and
revocation lists count from then on. A new certificate is taken over when it is valid, of the same
key and of the same role: it is then the same member (see `swarm.identity.uid`). Anything else
leaves the former identity in use, and is logged once: files that are being replaced are looked at
again when they have stopped changing, so that a half-written one is not reported.

It also says when the certificate will expire: 30, 7 and 1 days ahead, and afterwards, once each.

`follow` does the looking in a thread, for programs that have no loop of their own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from swarm.errors import LocalError, RemoteError
from swarm.identity.identity import Identity, lifetime_of

log = logging.getLogger("swarm.identity")

LOOK_EVERY = 1.0  # seconds
AUDIT_EVERY = 2.0  # seconds between two judgements of those who are connected: certificates expire
_DAY = timedelta(days=1)


class News(NamedTuple):
    """What `look` found: whether own certificate or trusted CAs and lists are others now."""

    certificate: bool
    trust: bool

    def __bool__(self) -> bool:
        return self.certificate or self.trust


def utc_now() -> datetime:
    """The clock; tests give another one."""
    return datetime.now(timezone.utc)


class Watch:
    """Keeps an identity up to date. One for each process; called by one thread or task."""

    def __init__(self, identity: Identity, clock: Callable[[], datetime] = utc_now) -> None:
        self._identity = identity
        self._clock = clock
        self._trust_version = identity.trust.version
        # Not that of now: the files may have changed since the identity was loaded.
        self._used: object = None
        self._seen: object = None
        self._refused: object = None
        self._said = ""
        # `Identity.load` has warned of what was near then.
        self._told = self._warnings_due()
        self._troubled = ""

    @property
    def days_left(self) -> float:
        """Days until the certificate expires; negative afterwards."""
        return (self._identity.not_after - self._clock()) / _DAY

    def problem(self) -> str:
        """Why peers may refuse this node's certificate now, or "" when they should not."""
        try:
            self._identity.trust.verify(self._identity.chain_der, at=self._clock())
        except RemoteError as fault:
            return f"this node's own certificate is not valid: {fault.cause}"
        return ""

    def warning(self) -> str:
        """What has to be done before long, or "" while there is time."""
        return self._identity.warning(self._clock()) or self._identity.source.trouble()

    def _left(self) -> timedelta:
        return self._identity.not_after - self._clock()

    def _steps(self) -> tuple[timedelta, ...]:
        return self._identity.source.warn_at(lifetime_of(self._identity.certificate))

    def _warnings_due(self) -> frozenset[timedelta]:
        left = self._left()
        return frozenset(step for step in self._steps() if left < step)

    def look(self) -> News:
        """Take over what has changed on disk. Reads files; never raises for what is in them."""
        self._identity.trust.reload()
        trust = self._trust_version != self._identity.trust.version
        if trust:
            self._trust_version = self._identity.trust.version
            log.info("trusted CAs, revocations or barred keys have changed")
        certificate = self._look_at_certificate()
        self._say_what_is_wrong()
        self._warn_of_expiry()
        return News(certificate, trust)

    def _look_at_certificate(self) -> bool:
        stamp = self._identity.source.stamp()
        settled, self._seen = stamp == self._seen, stamp
        if stamp == self._used:
            return False
        try:
            renewed = self._identity.renew(self._clock())
        except LocalError as fault:
            # Tried again each time: its CA may be added yet, or its time may come.
            if settled and self._refused != (stamp, fault.code):
                self._refused = (stamp, fault.code)
                log.error("%s; the certificate in use stays in use until %s", fault, self._until())
            return False
        self._used = stamp
        if renewed:
            self._told = frozenset()
            log.info("going on with the renewed certificate, valid until %s", self._until())
        return renewed

    def _until(self) -> str:
        return f"{self._identity.not_after:%Y-%m-%d %H:%M} UTC"

    def _say_what_is_wrong(self) -> None:
        problem = self.problem()
        if problem != self._said:
            self._said = problem
            if problem:
                log.error("%s", problem)
            else:
                log.info("this node's own certificate is valid again")

    def _warn_of_expiry(self) -> None:
        due = self._warnings_due()
        if due - self._told and (warning := self._identity.warning(self._clock())):
            log.warning("%s", warning)
        self._told |= due
        trouble = self._identity.source.trouble()
        if bool(trouble) != bool(self._troubled):
            if trouble:
                log.warning(
                    "%s; going on with the certificate in use until %s", trouble, self._until()
                )
            else:
                log.info("%s answers again", self._identity.source.where)
        self._troubled = trouble


def follow(identity: Identity, *audits: Callable[[], None]) -> threading.Event:
    """Look every second in a thread, until the returned event is set or the program ends.

    The `audits`, which judge those who are connected, are called in that thread when there is news,
    and every AUDIT_EVERY without.
    """
    stop = threading.Event()

    watch = Watch(identity)

    def run() -> None:
        since = 0.0
        while not stop.wait(LOOK_EVERY):
            since += LOOK_EVERY
            try:
                if watch.look() or since >= AUDIT_EVERY:
                    since = 0.0
                    for audit in audits:
                        audit()
            except Exception:
                log.exception("certificates could not be looked at")

    threading.Thread(target=run, name="identity", daemon=True).start()
    return stop
