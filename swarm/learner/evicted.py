"""Which members of our contract the network has evicted.

The contract's record tells that a member has left, not why. So the node's record of each one that
is not active is read, from the network node that we talk to: once when it leaves, and again when it
comes here. A learner that was evicted gets no connection from us any more, nor to us.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from swarm.errors import RemoteError

log = logging.getLogger("swarm.learner")


class Records(Protocol):
    """What is used of `swarm.api.client.ApiClient`."""

    def record(self, table: str, key: str) -> Mapping[str, Any] | None: ...


class Evicted:
    """`look` now and then, `ask` about somebody who comes. Several threads may."""

    def __init__(self, client: Records) -> None:
        self._client = client
        self._asked: set[str] = set()  # uids; until they are active again
        self._barred: dict[str, str] = {}

    def look(self, contract: Mapping[str, Any] | None) -> Mapping[str, str]:
        """Fingerprints and reasons of all that are known to be evicted."""
        for uid, member in (contract or {}).get("members", {}).items():
            if member["state"] == "active":
                self._asked.discard(uid)
            elif uid not in self._asked:
                self.ask(uid)
        return dict(self._barred)

    def ask(self, uid: str) -> bool:
        """Whether that node was evicted, as far as can be found out now."""
        try:
            node = self._client.record("nodes", uid)
        except RemoteError as fault:
            log.debug("whether %s was evicted is asked again: %s", uid, fault)
            return False
        self._asked.add(uid)
        if node is None or not node["evicted"]:
            return False
        fingerprint = str(node.get("holder") or node["fingerprint"])
        if fingerprint not in self._barred:
            self._barred[fingerprint] = f"evicted from the network at height {node['evicted']}"
            log.warning("%s was %s", node["name"], self._barred[fingerprint])
        return True
