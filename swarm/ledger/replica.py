"""The embedded orderer: the consensus core with a disk, a mesh and a clock.

One trio task (`run`) owns the core. Messages, clients' transactions and timers queue up; the task
takes what is there, lets the core work on it, has the store make all of it durable at once, and
only then sends, answers clients and tells callbacks. Several messages thus share one write to disk,
and transactions that come in together share one message to the others and one block: the busier a
node is, the less it spends on each.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import trio

from swarm.errors import LocalError, RemoteError, SwarmFault
from swarm.identity import Identity, node_uid, verify_signature
from swarm.ledger import directory
from swarm.ledger.application import Ticket
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Config, Core, Now
from swarm.ledger.consensus.statement import Statement
from swarm.ledger.consensus.waiting import explain
from swarm.ledger.genesis import Genesis
from swarm.ledger.inbox import Inbox
from swarm.ledger.log import Log
from swarm.ledger.recovery import Name
from swarm.ledger.state import State
from swarm.ledger.store import MAX_EVIDENCE
from swarm.mesh.port import MeshPort, PeerInfo

log = logging.getLogger("swarm.ledger")

METHOD = "ledger"
STEP = 64  # messages that share one write, and transactions
FRAME = 1_000_000  # bytes of one cast; the mesh carries 1 MiB
COMPLAIN_EVERY = 10.0  # seconds between log lines about one peer


class Replica(Log):
    """An `Orderer`. Make it, register callbacks, then `run` it.

    `synced` is set once this node has caught up with its peers after the start, and, with a new
    store, knows from when on it may vote.
    """

    def __init__(
        self, data_dir: Path, genesis: Genesis, identity: Identity, mesh: MeshPort
    ) -> None:
        """Open the ledger in `data_dir`, made by `create`. Raises LocalError SW3010, 3011, 3015."""
        self.uid = node_uid(identity.fingerprint)
        self._mesh = mesh
        self._chain = genesis.chain_id
        store, app = directory.open_store(data_dir, genesis, self.uid)
        super().__init__(store, app)
        resume = self._store.resume()
        self.recoveries = directory.recoveries_of(data_dir)
        accepted = frozenset(name.block_id for name in self.recoveries)
        config = Config(
            self.uid, self._chain, genesis.timing, identity.sign, verify_signature, accepted
        )
        self._core = Core(config, app, resume)
        self._new = resume.vote_from is None
        self._inbox = Inbox()
        self._submitted: deque[tuple[bytes, bytes]] = deque()  # id and bytes
        self._timers: list[tuple[float, int, fx.Timer]] = []
        self._numbers = count()
        self._wake = trio.Event()
        self._peer_ids: dict[str, str] = {}
        self._complained: dict[str, float] = {}
        self._started = 0.0
        self._evidence = self._store.evidence()
        for proof in self._evidence:
            log.warning(
                "%s voted twice at height %d: its key is in use twice", proof.voter, proof.height
            )
        mesh.on_cast(METHOD, self._on_cast)
        mesh.on_peer(self._on_peer)

    # ------------------------------------------------------------------ directories

    @staticmethod
    def create(
        data_dir: Path,
        genesis: Genesis,
        *,
        founder: bool = False,
        recoveries: Iterable[Name] = (),
    ) -> None:
        """Make the ledger of a new node. `founder`: the swarm begins here and now. `recoveries`:
        those that the member has accepted that we join through."""
        directory.create(data_dir, genesis, founder=founder, recoveries=recoveries)

    @staticmethod
    def genesis_of(data_dir: Path) -> Genesis | None:
        """The genesis of the ledger in a directory, or None when there is none."""
        return directory.genesis_of(data_dir)

    # ------------------------------------------------------------------ Orderer

    def _accept(self, ticket: Ticket, tx: bytes) -> None:
        self._submitted.append((ticket.id, tx))
        self._wake.set()

    def _halt(self) -> None:
        self._wake.set()

    def waiting(self) -> str:
        """See `Orderer.waiting`."""
        if self._failure is not None:
            return self._stopped()
        return explain(self._core, trio.current_time(), self._name, self._mesh.last_seen)

    def evidence(self) -> list[tuple[Statement, Statement]]:
        """What validators were seen to sign twice, here; see `state/evidence.py`."""
        return [(proof.first, proof.second) for proof in self._evidence]

    @property
    def dropped(self) -> Mapping[str, int]:
        """Messages of other nodes that were dropped for coming too fast or being wrong, by uid."""
        return self._inbox.dropped

    # ------------------------------------------------------------------ running

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled.

        Raises LocalError: SW3011 and SW3012 for a bad disk, SW3013 when our state differs from what
        the others certified, SW3014 on a double vote under the crash rule.
        """
        self._started = trio.current_time()
        try:
            self._carry_out(self._core.start(self._now()))
            for peer in self._mesh.peers():
                self._on_peer(peer, True, "")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._audit)
                task_status.started()
                await self._serve()
                nursery.cancel_scope.cancel()
            # Raised out here, where no nursery wraps it in a group.
            assert self._failure is not None, "nothing else ends _serve"
            raise self._failure
        finally:
            self._close()

    async def _serve(self) -> None:
        """Work until cancelled or until going on would be wrong."""
        while self._failure is None:
            due = self._timers[0][0] if self._timers else float("inf")
            with trio.move_on_at(due):
                await self._wake.wait()
            # Others get their turn even when messages never end; and what they have for the core
            # already comes into this step instead of causing another one.
            await trio.lowlevel.checkpoint()
            self._wake = trio.Event()
            self._step()
            self._note_synced()

    def _step(self) -> None:
        """Give the core all timers that are due and some messages; one write for all of them."""
        effects: list[fx.Effect] = []
        now = self._now()
        while self._timers and self._timers[0][0] <= trio.current_time():
            effects += self._core.timeout(heapq.heappop(self._timers)[2], now)
        for _ in range(STEP):
            taken = self._inbox.take()
            if taken is None:
                break
            source, raw = taken
            try:
                message = msg.decode(raw)
            except RemoteError as error:
                self._blame(source, error)
                continue
            effects += self._core.receive(source, message, now)
        if self._submitted:
            count = min(STEP, len(self._submitted))
            items = [self._submitted.popleft() for _ in range(count)]
            effects += self._core.submit_all(items, now)
        if self._inbox or self._submitted:
            self._wake.set()
        self._carry_out(effects)

    def _carry_out(self, effects: list[fx.Effect]) -> None:
        """Durable first, then the rest. See `effects.py`."""
        if self._failure is not None:
            return
        try:
            self._store.write(effects)
        except LocalError as error:
            self._fail(error)
            return
        batches: dict[str | None, list[bytes]] = {}
        for effect in effects:
            if isinstance(effect, fx.Send):
                batches.setdefault(effect.to, []).append(msg.encode(effect.message))
            elif isinstance(effect, fx.StartTimer):
                due = trio.current_time() + effect.delay
                heapq.heappush(self._timers, (due, next(self._numbers), effect.timer))
                self._wake.set()
            elif isinstance(effect, fx.Serve):
                items = self._store.batch(effect.height, msg.MAX_BLOCKS, msg.BLOCKS_BYTES)
                if items:
                    batches.setdefault(effect.to, []).append(msg.encode(msg.Blocks(items)))
            else:
                self._report(effect)
        # Votes leave before callbacks run: others wait for them.
        for to, messages in batches.items():
            self._cast(to, messages)
        for effect in effects:
            if isinstance(effect, fx.Commit):
                self._on_committed(effect)

    def _cast(self, to: str | None, messages: list[bytes]) -> None:
        """Send several messages in as few frames as fit."""
        peer_id = None
        if to is not None:
            peer_id = self._peer_ids.get(to)
            if peer_id is None:
                return
        frame: list[bytes] = []
        size = 0
        for raw in messages:
            if frame and size + len(raw) > FRAME:
                self._mesh.cast(METHOD, frame, to=peer_id)
                frame, size = [], 0
            frame.append(raw)
            size += len(raw) + 5
        self._mesh.cast(METHOD, frame, to=peer_id)

    def _report(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.Dropped):
            self._answer(effect.id, effect.error)
        elif isinstance(effect, fx.Blame):
            self._blame(effect.source, effect.error)
        elif isinstance(effect, fx.WriteEvidence):
            if len(self._evidence) < MAX_EVIDENCE:
                self._evidence.append(effect)
            log.error(
                "%s voted twice at height %d: two processes use its certificate, or it lies",
                self._name(effect.voter),
                effect.height,
            )
        elif isinstance(effect, fx.Halt):
            self._fail(LocalError(effect.code, effect.cause))

    def _on_committed(self, effect: fx.Commit) -> None:
        self._advance(effect)
        self._tell_evicted(effect, self._app.state)
        self._announce(effect)

    def _tell_evicted(self, effect: fx.Commit, state: State) -> None:
        """Give an evicted SN the block that says so, as its sessions end with it."""
        for key in effect.outcome.changed:
            table, _, uid = key.partition("/")
            record = state.get(table, uid) if table == "nodes" else None
            if record and record["evicted"] == state.height and uid != self.uid:
                item = (effect.block.encoded, effect.certificate.encode())
                self._cast(uid, [msg.encode(msg.Blocks((item,)))])

    # ------------------------------------------------------------------ mesh

    def _on_cast(self, peer: PeerInfo, arg: Any) -> None:
        """Queue messages of a peer; too many, or no messages at all, are dropped."""
        self._peer_ids[peer.uid] = peer.peer_id
        if type(arg) is not list or any(type(raw) is not bytes for raw in arg):
            self._blame(peer.uid, RemoteError("SW3005", "a cast is no list of messages"))
            return
        why = self._inbox.put(peer.uid, arg, trio.current_time())
        if why:
            self._complain(peer.uid, RemoteError("SW3005", why))
        self._wake.set()

    def _on_peer(self, peer: PeerInfo, up: bool, why: str) -> None:
        if up:
            self._peer_ids[peer.uid] = peer.peer_id
            if self._started:
                self._carry_out(self._core.peer_up(peer.uid, self._now()))
        else:
            self._peer_ids.pop(peer.uid, None)
            self._inbox.forget(peer.uid, trio.current_time())
            self._core.peer_down(peer.uid)

    # ------------------------------------------------------------------ small things

    def _now(self) -> Now:
        return Now(trio.current_time(), int(time.time() * 1000))

    def _name(self, uid: str) -> str:
        record = self._app.state.get("nodes", uid)
        return str(record["name"]) if record and record["name"] else uid

    def _note_synced(self) -> None:
        if self.synced.is_set() or (self._new and self._core.vote_from is None):
            return
        alone = set(self._core.validators) <= {self.uid} and not self._new
        if alone or self._core.caught_up():
            self.synced.set()

    def _blame(self, source: str, error: SwarmFault) -> None:
        """A neighbour sent what no honest one sends: it has little of that."""
        self._inbox.fault(source, trio.current_time())
        self._complain(source, error)

    def _complain(self, source: str, error: SwarmFault) -> None:
        """Log what a peer did wrong, now and then: it must not fill the log."""
        now = trio.current_time()
        if now - self._complained.get(source, -COMPLAIN_EVERY) < COMPLAIN_EVERY:
            return
        if len(self._complained) > 1000:
            self._complained.clear()
        self._complained[source] = now
        log.warning("%s: %s", self._name(source), error)
