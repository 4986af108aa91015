"""Keeps a network node's certificate and trust up to date while it runs.

Files are looked at every second. What has changed counts at once: new connections are made with it,
and those who are connected are judged again. That is also done every two seconds without a change,
as certificates expire. A key that the ledger has barred is one that nobody lets in any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from sentinel.threads import in_thread
from swarm.identity import Identity
from swarm.identity.live import AUDIT_EVERY, LOOK_EVERY, Watch


class Vigil:
    """`changed` hears that something is other than before, `audit` when to judge who is here."""

    def __init__(
        self, identity: Identity, changed: Callable[[], None], audit: Callable[[], None]
    ) -> None:
        self._identity = identity
        self._changed = changed
        self._audit = audit
        self._watch = Watch(identity)
        self._barred: Mapping[str, str] = {}
        self._audit_at = 0.0

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            if await in_thread(self._watch.look):
                self._changed()
                self._audit_at = 0.0
            if trio.current_time() >= self._audit_at:
                self._audit()
                self._audit_at = trio.current_time() + AUDIT_EVERY
            await trio.sleep(LOOK_EVERY)

    def bar(self, barred: Mapping[str, str]) -> None:
        """Let those with these keys (fingerprint to reason) in no more, and put out who is here.

        Clients get a second, in which their event streams tell them what has happened.
        """
        if barred is not self._barred and self._identity.trust.bar(barred):
            self._changed()
            self._audit_at = 0.0
        self._barred = barred

    def status(self) -> dict[str, object]:
        """The certificate's state, for people."""
        return {
            "not_after": f"{self._identity.not_after:%Y-%m-%dT%H:%M:%SZ}",
            "days_left": round(self._watch.days_left, 1),
            "problem": self._watch.problem(),
            "warning": self._watch.warning(),
        }

    @property
    def days_left(self) -> float:
        """Days until the certificate expires; negative afterwards."""
        return self._watch.days_left
