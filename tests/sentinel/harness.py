"""The real API server over a fake ledger, in a thread of the test process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import trio

from sentinel.app import Refusal, Services, make_app
from sentinel.limits import Limits
from sentinel.metrics import Metrics
from sentinel.presence import Presence
from sentinel.refusals import Refusals
from sentinel.server import ApiServer
from sentinel.streams import Pulse
from sentinel.vigil import Vigil
from swarm.identity import Identity
from tests.sentinel.fakes import CHAIN, FakeLedger


class LiveApi:
    """`with LiveApi(identity) as api:` serves on `api.port`; `api.do(f)` runs f in its thread."""

    def __init__(self, identity: Identity, *, port: int = 0) -> None:
        self.ledger = FakeLedger()
        self.moves: list[tuple[str, bool]] = []
        self.starting = ""
        self.port = port
        self._identity = identity
        self._ready = threading.Event()
        self._token: Any = None
        self._scope: Any = None
        self._thread = threading.Thread(target=lambda: trio.run(self._main), daemon=True)

    def __enter__(self) -> LiveApi:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.do(self._end)
            self._thread.join(10)
            assert not self._thread.is_alive()

    def do(self, call: Callable[[], Any]) -> Any:
        return trio.from_thread.run_sync(call, trio_token=self._token)

    def _end(self) -> None:
        self._scope.cancel()
        self.server.abort()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        pulse = Pulse()
        self.refusals = Refusals(trio.current_time)
        self.presence = Presence(trio.current_time)
        self.limits = Limits(trio.current_time)

        self.ledger.on_block.append(pulse.beat)
        services = Services(
            ledger=self._ledger,
            status=lambda: {
                "version": "0",
                "chain": CHAIN,
                "name": "sn",
                "uid": "0" * 32,
                "height": self.ledger.state.height,
                "digest": self.ledger.state.digest(),
                "validators": [],
                "quorum": 1,
                "fault_model": "byzantine",
                "peers": [],
                "waiting": self.ledger.reason,
                "limited": {},
            },
            bootstrap=self._bootstrap,
            presence=self.presence,
            ages=self.presence.ages,
            moved=lambda uid, came: self.moves.append((uid, came)),
            pulse=pulse,
            refusals=self.refusals,
            metrics=Metrics(lambda: {"height": 0.0}, self.refusals.counts, self.limits.refused()),
            limits=self.limits,
        )
        self.server = ApiServer(make_app(services), self._identity, self.refusals)
        self.vigil = Vigil(self._identity, self.server.renew, self.server.audit)
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            self.port = await nursery.start(self.server.serve, "127.0.0.1", self.port)
            nursery.start_soon(self.vigil.run)
            self._ready.set()

    def _ledger(self) -> FakeLedger:
        if self.starting:
            raise Refusal(503, "SW5104", self.starting)
        return self.ledger

    async def _bootstrap(self) -> dict[str, Any]:
        return {"chain": CHAIN, "genesis": "", "peers": []}


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
