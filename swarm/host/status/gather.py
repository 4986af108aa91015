"""Asks the network nodes for all that the screen shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from swarm.api.client import ApiClient
from swarm.errors import RemoteError
from swarm.host.status.overview import SnAnswer, Snapshot
from swarm.identity import Identity

ASK_SECONDS = 4.0  # for one answer
MAX_SNS = 25


class Network:
    """The network as one member sees it; asked again and again."""

    def __init__(
        self,
        identity: Identity,
        places: Sequence[tuple[str, int]],
        now: Callable[[], datetime],
    ) -> None:
        self._identity = identity
        self._now = now
        self._given = tuple(dict.fromkeys(places))
        self._client = ApiClient(identity, self._given, timeout=ASK_SECONDS)
        self._single: dict[tuple[str, int], ApiClient] = {}

    def look(self) -> Snapshot:
        """Everything as it is now."""
        own = self._identity.warning(self._now())
        try:
            tables = [self._client.table(name) for name in ("nodes", "taskrunners", "contracts")]
            ages = self._client.presence()
        except RemoteError as fault:
            return Snapshot(self._now(), self._ask(self._given), own_warning=own,
                            problem=fault.cause)  # fmt: skip
        nodes, runners, contracts = tables
        answers = self._ask(self._places(nodes))
        return Snapshot(self._now(), answers, ages, nodes, runners, contracts, own)

    def close(self) -> None:
        """Close all connections."""
        for client in (self._client, *self._single.values()):
            client.close()

    def _places(self, nodes: dict[str, dict[str, Any]]) -> list[tuple[str, int]]:
        """Network nodes that the ledger lists; those given, where it lists none."""
        listed = [
            (str(record.get("host")), record["port"])
            for record in nodes.values()
            if isinstance(record, dict)
            and record.get("type") in ("SN", "SENTINEL")
            and record.get("active")
            and record.get("host")
            and isinstance(record.get("port"), int)
        ]
        return list(dict.fromkeys(listed or self._given))[:MAX_SNS]

    def _ask(self, places: Sequence[tuple[str, int]]) -> tuple[SnAnswer, ...]:
        """The status of each network node, asked at the same time."""
        for place in self._single.keys() - set(places):
            self._single.pop(place).close()
        for place in places:
            if place not in self._single:
                self._single[place] = ApiClient(
                    self._identity, [place], timeout=ASK_SECONDS, learn=False
                )
        with ThreadPoolExecutor(max_workers=max(1, len(places))) as pool:
            return tuple(pool.map(self._status_of, places))

    def _status_of(self, place: tuple[str, int]) -> SnAnswer:
        shown = f"{place[0]}:{place[1]}"
        try:
            return SnAnswer(shown, self._single[place].status())
        except RemoteError as fault:
            return SnAnswer(shown, None, fault.cause)
