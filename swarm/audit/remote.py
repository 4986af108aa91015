"""A ledger read from a running network node, through its API."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Iterator
from typing import Any

from swarm.api.models import Endpoint
from swarm.api.transport import Transport, code_of
from swarm.audit.sources import Pair
from swarm.errors import RemoteError
from swarm.identity import Identity
from swarm.ledger.block import MAX_BLOCK, MAX_CERTIFICATE
from swarm.ledger.genesis import Genesis
from swarm.ledger.recovery import Name

TIMEOUT = 30.0  # seconds for one answer
PATIENCE = 20  # times that a busy node is asked


class Remote:
    """The ledger up to the height that the node had when it was asked first.

    Every method may raise RemoteError: SW5001 no answer, SW5002 our certificate is refused, SW5003
    not a network node that we trust, SW5004 a strange answer.
    """

    def __init__(
        self,
        identity: Identity,
        host: str,
        port: int,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._pause = pause
        self._transport = Transport(identity, Endpoint(host, port), TIMEOUT)
        try:
            first = self._ask(0)
            try:
                self.genesis = Genesis.decode(_bytes(first["genesis"]))
                self.recoveries = tuple(Name.parse(str(name)) for name in first["recoveries"])
                self._height = _height(first)
            except (KeyError, TypeError, ValueError, binascii.Error) as fault:
                raise RemoteError("SW5004", f"malformed answer about blocks ({fault!r})") from fault
        except BaseException:
            self._transport.close()
            raise

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def refresh(self) -> int:
        """Ask how many blocks there are by now; `pairs` goes up to there."""
        try:
            self._height = _height(self._ask(self._height))
        except (KeyError, TypeError, ValueError) as fault:
            raise RemoteError("SW5004", f"malformed answer about blocks ({fault!r})") from fault
        return self._height

    def pairs(self, after: int = 0) -> Iterator[Pair]:
        """All blocks behind a height; what is in them is not checked."""
        height = after
        while height < self._height:
            try:
                batch = [Pair(_bytes(b), _bytes(c)) for b, c in self._ask(height)["blocks"]]
            except (KeyError, TypeError, ValueError, binascii.Error) as fault:
                raise RemoteError("SW5004", f"malformed answer about blocks ({fault!r})") from fault
            if not batch:
                raise RemoteError("SW5004", f"no blocks behind height {height}")
            for pair in batch[: self._height - height]:
                if len(pair.block) > MAX_BLOCK or len(pair.certificate) > MAX_CERTIFICATE:
                    raise RemoteError("SW5004", f"an oversized block behind height {height}")
                yield pair
            height += len(batch)

    def _ask(self, after: int) -> dict[str, Any]:
        for _ in range(PATIENCE):
            answer = self._transport.exchange("GET", f"/v1/blocks?after={after}")
            if answer.status not in (429, 503):
                break
            # Members have a share of the node's time each, and a long ledger takes more of it.
            self._pause(max(1.0, answer.retry_after))
        if answer.status != 200:
            why = answer.text or f"status {answer.status}"
            raise RemoteError("SW5006" if code_of(answer) else "SW5004", why)
        if not isinstance(answer.value, dict):
            raise RemoteError("SW5004", "the answer about blocks is no object")
        return answer.value


def _height(answer: dict[str, Any]) -> int:
    if type(answer["height"]) is not int:
        raise TypeError("a height that is no number")
    return answer["height"]


def _bytes(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)
