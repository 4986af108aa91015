"""The orderer that takes its order from an Ethereum-compatible network.

Three trio tasks share one store and one state. `_follow` reads what has become final and applies
it; `_write` sends what clients have submitted; `_get_registered` has the node's account admitted to
the contract by another member. All decisions are in `follower`, `sender` and `entries`; here is the
I/O around them. Requests to the network run in worker threads, one at a time for each task.

Latency is the network's. While something of ours is under way the newest block is asked for every
few hundredths of a second; else once a second, and at once when a peer tells over the mesh that it
has seen an entry of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import trio

from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, node_uid
from swarm.ledger import directory
from swarm.ledger.application import LedgerApplication, Ticket
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus.statement import Statement
from swarm.ledger.ethereum import contract, entries
from swarm.ledger.ethereum.account import Account, keccak
from swarm.ledger.ethereum.client import Client, EndPoint, Refusal, TooMuch
from swarm.ledger.ethereum.deploy import account_of, check_contract, is_writer, transaction
from swarm.ledger.ethereum.entries import ChainBlock
from swarm.ledger.ethereum.follower import Follower, Page, Position
from swarm.ledger.ethereum.sender import FUNDS, LOST, REFUSED, Fee, Flight, Job, Sender, Transmit
from swarm.ledger.ethereum.waiting import Situation, explain
from swarm.ledger.genesis import Genesis
from swarm.ledger.log import Log
from swarm.ledger.mempool import Mempool
from swarm.ledger.recovery import Name
from swarm.ledger.state.operation import holder_of
from swarm.mesh.port import MeshPort, PeerInfo

log = logging.getLogger("swarm.ledger")

T = TypeVar("T")

METHOD = "ethereum"  # a cast: "I have read an entry of mine in this block"
ADMIT = "ethereum.admit"  # a call: "register this account for me"
IDLE_SECONDS = 1.0  # between two looks at the network
HURRY_SECONDS, HURRIES = 0.03, 0.3  # while an entry of ours is young, and for how long
BUSY_SECONDS = 0.15  # while an entry of ours is on its way
STANDING_SECONDS = 0.5  # between two looks at our account while something is under way
RETRY_SECONDS = 1.0  # after an end point failed
ASK_FIRST, ASK_MOST = 0.5, 10.0  # seconds between two requests for registration
PROMISED_SECONDS, PROMISE = 0.15, 60  # between two looks whether one was granted, and their number
WRITE = 64  # blocks that share one write
IDLE_BLOCKS = 1000  # of the network without entries, before the position is written anyway
SPONSOR_SECONDS = 60.0  # between two registrations for one member, as each costs gas
MAX_SPONSORED = 1000


class EthereumOrderer(Log):
    """An `Orderer`. Make it, register callbacks, then `run` it."""

    def __init__(
        self,
        data_dir: Path,
        genesis: Genesis,
        identity: Identity,
        mesh: MeshPort,
        client: Client,
        account: Account,
    ) -> None:
        """Open the ledger in `data_dir`. Raises LocalError SW3010, 3011, 3015."""
        assert genesis.order is not None, "the genesis says who orders"
        self.uid = node_uid(identity.fingerprint)
        self.recoveries: tuple[Name, ...] = ()
        self._order = genesis.order
        self._chain = genesis.chain_id
        self._mesh = mesh
        self._client = client
        self._account = account
        store, app = directory.open_store(data_dir, genesis, self.uid)
        super().__init__(store, app)
        kept = self._store.position()
        position = Position.before(self._order.start) if kept is None else Position.decode(kept)
        self._written = position.number
        self._follower = Follower(position, self._order.confirmations, keccak)
        self._sender = Sender()
        self._pool = Mempool()
        self._pending: dict[bytes, bytes] = {}  # by id, oldest first: what is in the pool
        self._since: dict[bytes, float] = {}
        self._look_now = trio.Event()
        self._send_now = trio.Event()
        self._sponsored: dict[str, float] = {}  # fingerprint: when we sent its registration
        self._asked = 0
        self._standing_at = -STANDING_SECONDS
        self._counts = (0, 0)
        self._quote: Fee | None = None
        self._last_sent = self._hinted = -HURRIES
        self._situation = Situation(account.address, self._order.contract)
        self._stop = trio.CancelScope()
        mesh.on_cast(METHOD, self._on_cast)
        mesh.handle(ADMIT, self._on_admit)
        mesh.on_peer(self._on_peer)

    # ------------------------------------------------------------------ Orderer

    def _accept(self, ticket: Ticket, tx: bytes) -> None:
        if ticket.id in self._pending:  # from a client that went away
            return
        self._pool.add(tx, ticket)
        self._pending[ticket.id] = tx
        self._since[ticket.id] = trio.current_time()
        self._send_now.set()

    def _halt(self) -> None:
        self._stop.cancel()

    def waiting(self) -> str:
        """See `Orderer.waiting`."""
        if self._failure is not None:
            return self._stopped()
        now = trio.current_time()
        oldest = next(iter(self._since.values()), None)
        return explain(
            self._situation,
            self._follower,
            self._sender,
            None if oldest is None else now - oldest,
            len(self._pending),
        )

    def evidence(self) -> list[tuple[Statement, Statement]]:
        """See `Orderer.evidence`: nobody votes here."""
        return []

    @property
    def dropped(self) -> Mapping[str, int]:
        """Nothing that peers send here is worth counting."""
        return {}

    # ------------------------------------------------------------------ running

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled.

        Raises LocalError: SW3102 and SW3104 for a wrong network or contract, SW3108 when a final
        block has changed, SW3011 and SW3012 for a bad disk.
        """
        try:
            task_status.started()
            with self._stop:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._audit)
                    await self._meet()
                    nursery.start_soon(self._follow)
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._get_registered)
            # Raised out here, where no nursery wraps it in a group.
            if self._failure is not None:
                raise self._failure
        finally:
            self._close()
            self._client.close()

    async def _meet(self) -> None:
        """Make sure that it is the right network and the right contract; waits for an answer."""
        while self._failure is None:
            try:
                await _thread(self._client.chain_id)
                await _thread(check_contract, self._client, self._order.contract)
                self._situation.network = ""
                return
            except LocalError as error:
                self._fail(error)
            except RemoteError as error:
                self._situation.network = error.cause
                await trio.sleep(RETRY_SECONDS)

    # ------------------------------------------------------------------ following

    async def _follow(self) -> None:
        while True:
            pause = self._pause()
            self._look_now = trio.Event()  # before the look: what comes during it needs another
            try:
                page = await _thread(self._client.run, self._read)
                self._situation.network = ""
                if page is not None:
                    await self._take(page)
                if self._follower.position.number < self._follower.final:
                    continue
                self.synced.set()
            except TooMuch:
                self._follower.too_much()
                continue
            except LocalError as error:
                self._fail(error)
                return
            except RemoteError as error:
                if error.code == contract.MALFORMED:
                    log.warning("RPC end point %d: %s", self._client.current, error)
                    self._client.skip()
                self._situation.network = error.cause
                pause = RETRY_SECONDS
            with trio.move_on_after(pause):
                await self._look_now.wait()

    def _pause(self) -> float:
        """Seconds until the next look at the network."""
        if trio.current_time() - max(self._last_sent, self._hinted) < HURRIES:
            return HURRY_SECONDS
        return BUSY_SECONDS if self._sender.busy else IDLE_SECONDS

    def _read(self, point: EndPoint) -> Page | None:
        """In a worker thread: ask for the next page, if there is one."""
        newest = point.newest()
        self._quote = self._client.quote(point, newest)
        question = self._follower.question(newest)
        if question is None:
            return None
        first, last = question
        at = self._follower.position
        before = newest if last == newest.number else None
        return point.page(self._order.contract, first, last, at.number if at.hash else -1, before)

    async def _take(self, page: Page) -> None:
        """Apply what an answer holds."""
        position, blocks = self._follower.take(page)
        commits: list[fx.Commit] = []
        for number, block in enumerate(blocks, 1):
            app = commits[-1].application if commits else self._app
            assert isinstance(app, LedgerApplication), "the store was given one"
            previous = commits[-1].block.id if commits else self._last_id()
            commits += entries.commits(app, self._chain, previous, block)
            if len(commits) >= WRITE and number < len(blocks):
                self._commit(commits, _after(block))
                commits = []
            await trio.lowlevel.checkpoint()
        self._commit(commits, position)
        self._follower.position = position
        for block in blocks:
            self._note_own(block)
        self._sender.followed(position.number)
        self._send_now.set()

    def _last_id(self) -> bytes:
        if not self._app.height:
            return self._chain
        found = self._store.block(self._app.height)
        assert found is not None, "it is the last one"
        return found[0].id

    def _commit(self, commits: list[fx.Commit], position: Position) -> None:
        """Make blocks and position durable, then tell everybody. LocalError SW3012."""
        if not commits and position.number - self._written < IDLE_BLOCKS:
            return
        self._store.write([*commits, fx.WritePosition(position.encode())])
        self._written = position.number
        for commit in commits:
            for tx_id in commit.ids:
                self._drop(tx_id)
            self._sender.settle(commit.ids)
            self._advance(commit)
            self._announce(commit)

    def _drop(self, tx_id: bytes) -> None:
        self._pool.remove(tx_id)
        self._pending.pop(tx_id, None)
        self._since.pop(tx_id, None)

    def _note_own(self, block: ChainBlock) -> None:
        """Our entries are there: their flights are over, and the peers may look, too."""
        own = [entry for entry in block.entries if entry.author == self._account.address]
        for entry in own:
            self._sender.executed(contract.append_call(entry.data))
        if own:
            self._mesh.cast(METHOD, block.number)

    # ------------------------------------------------------------------ writing

    async def _write(self) -> None:
        while True:
            with trio.move_on_after(self._write_pause()):
                await self._send_now.wait()
            self._send_now = trio.Event()
            self._feed()
            if not self._sender.busy or not self._situation.registered:
                continue
            try:
                await self._look_at_account()
                await self._transmit(self._plan())
            except RemoteError as error:
                self._situation.network = error.cause
                await trio.sleep(RETRY_SECONDS)

    def _write_pause(self) -> float:
        return STANDING_SECONDS if self._sender.busy else float("inf")

    def _feed(self) -> None:
        """Pack what waits and is not under way; drop what cannot be included any more."""
        if self._sender.room <= 0:
            return
        fresh = []
        for tx_id, tx in list(self._pending.items()):
            if self._sender.carries(tx_id):
                continue
            try:
                self._app.check(tx)
            except RemoteError as error:
                self._drop(tx_id)
                self._answer(tx_id, error)
                continue
            fresh.append((tx_id, tx))
        for ids, data in entries.pack(fresh):
            if self._sender.room <= 0:
                break
            self._sender.add(Job(ids, contract.append_call(data), contract.gas_limit(len(data))))

    async def _look_at_account(self) -> None:
        """Read nonces and receipts, when it is time."""
        now = trio.current_time()
        sender = self._sender
        fresh = now - self._standing_at < STANDING_SECONDS
        if sender.nonce is not None and (fresh or not sender.flights):
            return
        standing = await _thread(self._client.standing, self._account.address)
        self._counts = (standing.used, standing.pending)
        self._standing_at = now
        for flight in self._sender.unproven():
            await self._look_at_receipt(flight)

    async def _look_at_receipt(self, flight: Flight) -> None:
        now = trio.current_time()
        for tx_hash in list(flight.hashes):
            receipt = await _thread(self._client.run, lambda point, one=tx_hash: point.receipt(one))
            if receipt is not None:
                self._sender.receipt(flight.nonce, receipt.block, receipt.ok, now)
                if not receipt.ok and flight.job.ids:
                    self._situation.refusal = "the contract refuses what this account sends"
                    self._situation.registered = False  # until it was looked at again
                    self._situation.look.set()
                return
        self._sender.no_receipt(flight.nonce, now)

    def _plan(self) -> list[Transmit]:
        if self._quote is None:
            return []  # the follower has not seen a block yet
        return self._sender.plan(trio.current_time(), *self._counts, self._quote)

    async def _transmit(self, plan: Iterable[Transmit]) -> None:
        for one in plan:
            go_on = await self._send_one(one)
            self._last_sent = trio.current_time()
            self._look_now.set()
            if not go_on:
                return

    async def _send_one(self, one: Transmit) -> bool:
        """Sign and hand over. Returns whether the rest of the plan may follow."""
        job = one.job
        to = self._order.contract if job.data else self._account.address
        fields = transaction(self._order.chain_id, one.nonce, to, job.data, job.gas, one.fee)

        def work() -> str:
            raw, tx_hash = self._account.sign(fields)
            self._client.run(lambda point: point.send(raw))
            return tx_hash

        try:
            tx_hash = await _thread(work)
        except Refusal as refusal:
            self._note_refusal(refusal, one)
            return self._sender.failed(one.nonce, refusal.kind, trio.current_time())
        except RemoteError:
            self._sender.failed(one.nonce, LOST, trio.current_time())
            raise
        self._sender.sent(one.nonce, tx_hash)
        self._situation.refusal = ""
        return True

    def _note_refusal(self, refusal: Refusal, one: Transmit) -> None:
        if refusal.kind == FUNDS:
            self._situation.refusal = "its account cannot pay for gas (SW3107)"
        elif refusal.kind == REFUSED:
            self._situation.refusal = f"a node refuses it: {refusal}"
            log.warning("SW3110: transaction %d of our account: %s", one.nonce, refusal)

    # ------------------------------------------------------------------ registration

    async def _get_registered(self) -> None:
        """See to it that our account may write; look again when the contract has refused it."""
        pause, promised = ASK_FIRST, 0
        writer = (self._client, self._order.contract, self._account.address)
        while True:
            look = self._situation.look = trio.Event()
            try:
                if await _thread(is_writer, *writer):
                    self._situation.registered = True
                    self._send_now.set()
                    await look.wait()
                    pause, promised = ASK_FIRST, 0
                    continue
                if not promised and await self._ask_a_member():
                    promised = PROMISE
            except RemoteError as error:
                self._situation.network = error.cause
            # A promise is kept within a block or two; without one, ask when a peer comes.
            with trio.move_on_after(PROMISED_SECONDS if promised else pause):
                await look.wait()
            if promised:
                promised -= 1
            else:
                pause = min(2 * pause, ASK_MOST)

    async def _ask_a_member(self) -> bool:
        """Ask the peers, one after the other, to register our account; whether one promises it.

        One is enough, as each request costs gas; another one each time, as one may fail to do it.
        """
        peers = sorted(self._mesh.peers(), key=lambda peer: peer.uid)
        self._asked += 1
        for number in range(len(peers)):
            peer = peers[(self._asked + number) % len(peers)]
            try:
                if await self._mesh.call(peer.peer_id, ADMIT, self._account.address) is True:
                    return True
            except RemoteError as error:
                log.info("%s does not register our account: %s", peer.common_name, error)
        return False

    def _on_peer(self, _peer: PeerInfo, up: bool, _why: str) -> None:
        if up and not self._situation.registered:
            self._situation.look.set()

    async def _on_admit(self, peer: PeerInfo, address: Any) -> bool:
        """A peer asks us to register its account. The mesh knows whose certificate it has."""
        if not isinstance(address, str) or not self._situation.registered:
            return False
        try:
            who = contract.address_word(address.lower())
        except ValueError as error:
            raise RemoteError("SW3106", str(error)) from None
        state = self._app.state
        if peer.organisation not in state.cas():
            raise RemoteError("SW3106", "the ledger has not admitted your CA yet")
        node = state.get("nodes", peer.uid)
        holder = holder_of(node) if node is not None else peer.fingerprint
        if (barred := state.bar(holder)) is not None:
            raise RemoteError("SW3106", barred)
        fingerprint = bytes.fromhex(peer.fingerprint)
        account = await _thread(account_of, self._client, self._order.contract, fingerprint)
        if account not in (contract.NOBODY, address.lower()):
            why = f"your key has the account {account} already; the administrator can replace it"
            raise RemoteError("SW3106", why)
        now = trio.current_time()
        last = self._sponsored.get(peer.fingerprint, -SPONSOR_SECONDS)
        if account == contract.NOBODY and now - last >= SPONSOR_SECONDS:
            log.info("registering account %s of %s", address, peer.common_name)
            if len(self._sponsored) >= MAX_SPONSORED:
                self._sponsored.clear()
            self._sponsored[peer.fingerprint] = now
            data = contract.call("register(address,bytes32)", who, fingerprint)
            self._sender.add(Job((), data, contract.gas_limit(len(data))))
            self._send_now.set()
        return True

    def _on_cast(self, peer: PeerInfo, number: Any) -> None:
        """A peer has seen something in that block; look, unless we have read it already."""
        if type(number) is int and number > self._follower.position.number:
            now = trio.current_time()
            if now - self._hinted >= HURRY_SECONDS:  # however often it says so
                self._look_now.set()
            self._hinted = now


def _after(block: ChainBlock) -> Position:
    last = block.entries[-1]
    return Position(block.number, block.hash, last.number + 1, last.head)


async def _thread(call: Callable[..., T], *args: Any) -> T:
    """Run a blocking call in a worker thread; when cancelled, leave it to itself: it is bounded."""
    run: Any = trio.to_thread.run_sync  # its stubs lag behind its parameters
    result: T = await run(call, *args, abandon_on_cancel=True)
    return result
