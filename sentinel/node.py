"""The network node: ledger, mesh and API in one process, and its life from start to leaving.

Order of a start, chosen so that clients are answered as early as it makes sense:

1. The API listens. Until the node is ready it answers 503 with the reason.
2. The ledger: the one on disk, else a new one (sentinel), else the one of the network that the
   sentinel belongs to.
3. A node that has a ledger of its own is ready now. Loading the mesh takes more than a second, and
   goes on behind. One that joins needs the mesh first, fetches all blocks, and is ready when the
   ledger lists it.

Everything runs in one trio nursery. A signal makes the node leave the validators, so that the
others need not wait for it, and then cancels the nursery.
"""

from __future__ import annotations

import gc
import importlib
import logging
import signal
from collections.abc import Mapping
from typing import Any

import trio

from sentinel import members
from sentinel.app import Refusal, Services, make_app
from sentinel.bootstrap import Origin, found, join, write_origin
from sentinel.housekeeping import Housekeeper
from sentinel.late_mesh import LateMesh
from sentinel.limits import Limits
from sentinel.metrics import Metrics
from sentinel.ordering import founding_order, open_orderer
from sentinel.ports import CommittedView, StateView
from sentinel.presence import Presence
from sentinel.refusals import Refusals
from sentinel.server import ApiServer
from sentinel.settings import Settings
from sentinel.streams import Pulse
from sentinel.threads import in_thread
from sentinel.version import VERSION
from sentinel.vigil import Vigil
from sentinel.writer import Writer
from swarm import pulse
from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, node_uid
from swarm.ledger.consensus.quorum import quorum
from swarm.ledger.orderer import Orderer
from swarm.ledger.replica import Replica
from swarm.ledger.state.evictions import BARRED
from swarm.ledger.state.operation import holder_of
from swarm.mesh.port import PeerInfo

log = logging.getLogger("swarm.node")
ready_log = logging.getLogger("swarm.blCnt")

LEAVE_LIMIT = 3.0  # seconds for leaving the validators
FAREWELL_LIMIT = 1.0  # seconds in which the others commit the block that lets us go
MESH_LIMIT = 10.0  # seconds that a joiner's question waits for our own mesh
MESH_MODULE = "swarm.mesh.mesh"  # takes more than a second to import
SN_TYPES = ("SENTINEL", "SN")


class NetworkNode:
    """One SN. `run` returns after a signal, when it has left in order."""

    def __init__(self, settings: Settings, identity: Identity) -> None:
        self.settings = settings
        self.identity = identity
        self.uid = node_uid(identity.fingerprint)
        self._mesh = LateMesh()
        self._mesh_view = self._mesh.view("presence")
        self._mesh_up = trio.Event()
        self._real_mesh: Any = None
        self._replica: Orderer | None = None
        self._starting = "the ledger is being opened"
        self._pulse = Pulse()
        self._dialled: dict[str, tuple[str, ...]] = {}
        self._evicted = trio.Event()
        self._given_up = trio.Event()  # others went on without this node; see `_return`
        self._leaving = False

    # ------------------------------------------------------------------- life

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises LocalError, possibly inside an exception group."""
        clock = trio.current_time
        self._presence = Presence(clock)
        self._refusals = Refusals(clock)
        self._limits = Limits(clock)
        self._metrics = Metrics(self._gauges, self._refusals.counts, self._limits.refused())
        self._server = ApiServer(make_app(self._services()), self.identity, self._refusals)
        self._vigil = Vigil(self.identity, self._identity_changed, self._server.audit)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_on_signal, signals, nursery.cancel_scope)
                nursery.start_soon(self._end_when_evicted)
                nursery.start_soon(_beat)
                where = (self.settings.listen, self.settings.api_port)
                await nursery.start(self._server.serve, *where)
                nursery.start_soon(self._vigil.run)
                await self._start(nursery)
        log.info("stopped")

    async def _start(self, nursery: trio.Nursery) -> None:
        origin = await self._origin(nursery)
        replica = await open_orderer(
            self.settings, origin.genesis, self.identity, self._mesh.view("ledger")
        )
        replica.on_commit(self._committed)
        await nursery.start(replica.run)
        self._replica = replica
        self._vigil.bar(replica.state.barred())
        self._writer = Writer(self.identity, replica)
        self._wire_mesh(replica)
        self._look_at_own_record()
        if replica.state.get("nodes", self.uid) is None:
            if not origin.peers and self.settings.sentinel_host:
                nursery.start_soon(self._ask_for_peers)  # an earlier start was cut short
            self._starting = "it is joining the network: the mesh is being opened"
            await self._open_mesh(nursery, origin)
            self._starting = "it is joining the network: blocks are being fetched"
            await replica.synced.wait()
            self._starting = "it is joining the network: waiting to be enrolled"
            await self._enroll()
            self._ready()
        else:
            self._ready()
            await self._open_mesh(nursery, origin)
        nursery.start_soon(self._keep_enrolled)
        # What has been imported lives as long as the process: no need to look at it again.
        gc.freeze()
        housekeeper = Housekeeper(
            self.identity, self.uid, replica, self._writer, self._presence, self._mesh,
        )  # fmt: skip
        nursery.start_soon(housekeeper.run)
        accuser = members.Accuser(self.uid, lambda: replica.state, replica.evidence, self._writer)
        nursery.start_soon(accuser.run)
        nursery.start_soon(self._return)

    async def _origin(self, nursery: trio.Nursery) -> Origin:
        """Return what the ledger starts from; there is a ledger in the data directory then."""
        settings = self.settings
        kept = Replica.genesis_of(settings.data_dir)
        if kept is not None:
            log.info("going on with the ledger in %s", settings.data_dir)
            return Origin(kept)
        if settings.is_sentinel:
            order = await founding_order(settings)
            genesis = found(settings, self.identity, order)
            log.info("founding the network %s", genesis.chain_id.hex()[:16])
            Replica.create(settings.data_dir, genesis, founder=True)
            return Origin(genesis)
        if not settings.sentinel_host:
            raise LocalError(
                "SW5101",
                "neither --sentinel nor --sentinel-ip is given, and there is no ledger in "
                f"{settings.data_dir}",
            )
        nursery.start_soon(in_thread, importlib.import_module, MESH_MODULE)
        origin = await join(settings, self.identity, self._say)
        log.info("joining the network %s", origin.genesis.chain_id.hex()[:16])
        for name in origin.recoveries:
            log.warning(
                "the network was recovered without a quorum at height %d (block %s); this node "
                "accepts that, as the one does that it joins through", name.height,
                name.block_id.hex(),
            )  # fmt: skip
        Replica.create(settings.data_dir, origin.genesis, recoveries=origin.recoveries)
        return origin

    async def _ask_for_peers(self) -> None:
        origin = await join(self.settings, self.identity, log.info)
        await self._mesh_up.wait()
        for peer_id, addresses in origin.peers:
            self._dial(peer_id, addresses)

    def _say(self, why: str) -> None:
        self._starting = why
        log.info("%s", why)

    def _ready(self) -> None:
        self._starting = ""
        ready_log.info("Starting SWARM-API-SERVER on port: %d", self.settings.api_port)

    async def _open_mesh(self, nursery: trio.Nursery, origin: Origin) -> None:
        module = await in_thread(importlib.import_module, MESH_MODULE)
        logging.getLogger("libp2p").propagate = True
        self._real_mesh = module.Mesh(
            self.identity,
            listen=(self.settings.listen, self.settings.p2p_port),
            announce=[self.settings.announced],
            book=self.settings.data_dir / "peers.json",
            version=VERSION,
            chain=origin.genesis.chain_id,
        )
        self._mesh.plug(self._real_mesh)
        for peer_id, addresses in origin.peers:
            self._dial(peer_id, addresses)
        await nursery.start(self._real_mesh.run)
        self._dial_members()
        self._mesh_up.set()

    async def _keep_enrolled(self) -> None:
        """Enroll, and again whenever the certificate is one of another organisation."""
        assert self._replica is not None
        while True:
            await self._enroll()
            organisation = self.identity.organisation
            while organisation == self.identity.organisation or not self._admitted():
                await trio.sleep(1.0)

    def _admitted(self) -> bool:
        """Whether the ledger knows our CA, and this node is not about to leave."""
        assert self._replica is not None
        return not self._starting and self.identity.organisation in self._replica.state.cas()

    async def _enroll(self) -> None:
        """Put this node's present addresses on the ledger, and vote from then on."""
        assert self._replica is not None
        settings = self.settings
        wanted = {
            "host": settings.host,
            "port": settings.api_announced,
            "p2p": [settings.announced],
            "peer_id": self._mesh.peer_id,
            "name": settings.name,
            "version": VERSION,
            "organisation": self.identity.organisation,
            "holder": self.identity.holder,
        }
        record = self._replica.state.get("nodes", self.uid)
        listed = record is not None and record["active"] and record["validator"]
        if record and listed and _as_listed(record, wanted):
            return
        del wanted["organisation"], wanted["holder"]  # the certificate tells them
        await self._writer.insist(
            "node.enroll",
            {
                **wanted,
                "uid_name": "",
                "type": "SN",
                "parent": "",
                "validator": True,
                "runner": "",
                "pairs": 0,
                "contract": "",
            },
        )

    # ---------------------------------------------------------------- leaving

    async def _end_on_signal(self, signals: Any, scope: trio.CancelScope) -> None:
        async for number in signals:
            log.info("%s: leaving the network", signal.Signals(number).name)
            break
        self._leaving = True
        self._starting = "it is leaving the network"
        if self._replica is not None:
            with trio.move_on_after(LEAVE_LIMIT):
                await self._leave()
        scope.cancel()
        self._server.abort()

    async def _end_when_evicted(self) -> None:
        """Say why, and end. Raises LocalError SW4015."""
        await self._evicted.wait()
        assert self._replica is not None, "its state says it"
        self._starting = "it was evicted"
        # As after leaving: the others may need our votes for the very block that puts us out.
        height = self._replica.state.height
        await self._mesh.call_all("node.reach", height, timeout=FAREWELL_LIMIT)
        self._server.abort()
        raise LocalError(BARRED, self._replica.state.bar(self.identity.holder) or "evicted")

    def _look_at_own_record(self) -> None:
        if self._replica is None:
            return
        record = self._replica.state.get("nodes", self.uid)
        if self._replica.state.bar(self.identity.holder):
            self._evicted.set()
        elif record is not None and not record["active"] and not self._leaving:
            self._given_up.set()

    async def _return(self) -> None:
        """Enroll again whenever the ledger says that this node is gone, which it is not: a recovery
        went on without it, and its operator has accepted that."""
        while True:
            await self._given_up.wait()
            self._given_up = trio.Event()
            await self._enroll()

    async def _leave(self) -> None:
        assert self._replica is not None
        record = self._replica.state.get("nodes", self.uid)
        if record is None or not record["active"]:
            return
        try:
            verdict = await self._writer.submit("node.leave", {"uid": self.uid})
        except RemoteError as fault:
            log.warning("the ledger still lists this node: %s", fault)
            return
        if verdict.result.get("stays"):
            return  # the last validator: nobody is left to tell
        # The others need our votes for the block that lets us go; after it they need us no more.
        height = self._replica.state.height
        await self._mesh.call_all("node.reach", height, timeout=FAREWELL_LIMIT)

    # --------------------------------------------------------------- services

    def _services(self) -> Services:
        return Services(
            ledger=self._ledger,
            status=self._status,
            bootstrap=self._bootstrap,
            presence=self._presence,
            ages=self._ages,
            moved=self._moved,
            pulse=self._pulse,
            refusals=self._refusals,
            metrics=self._metrics,
            limits=self._limits,
        )

    def _ledger(self) -> Orderer:
        if self._replica is None or self._starting:
            raise Refusal(503, "SW5104", f"this node is not ready: {self._starting}")
        return self._replica

    def _status(self) -> dict[str, Any]:
        replica = self._ledger()
        state = replica.state
        validators = [v.uid for v in state.validators()]
        return {
            "version": VERSION,
            "chain": state.chain,
            "name": self.settings.name,
            "uid": self.uid,
            "height": state.height,
            "digest": state.digest(),
            "validators": [{"uid": uid, "name": self._name_of(uid)} for uid in validators],
            "quorum": quorum(len(validators), state.fault_model),
            "fault_model": state.fault_model,
            "peers": [
                {
                    "uid": peer.uid,
                    "name": self._name_of(peer.uid) or peer.common_name,
                    "age_s": _rounded(self._mesh.last_seen(peer.uid)),
                }
                for peer in self._mesh.peers()
            ],
            "waiting": replica.waiting(),
            **members.summary(state),
            "certificate": self._vigil.status(),
            "limited": self._limited(),
        }

    def _limited(self) -> dict[str, int]:
        """Refusals by member; network nodes whose messages were dropped are members, too."""
        limited = self._limits.by_member()
        for uid, count in self._ledger().dropped.items():
            name = self._name_of(uid) or uid
            limited[name] = limited.get(name, 0) + count
        return limited

    async def _bootstrap(self) -> dict[str, Any]:
        replica = self._ledger()
        with trio.move_on_after(MESH_LIMIT):
            await self._mesh_up.wait()
        if not self._mesh_up.is_set():
            raise Refusal(503, "SW5104", "this node's mesh is still being opened")
        peers = [(self._mesh.peer_id, [self.settings.announced])]
        for record in self._members(replica.state):
            if record["uid"] != self.uid and record["active"]:
                peers.append((record["peer_id"], record["p2p"]))
        genesis = Replica.genesis_of(self.settings.data_dir)
        assert genesis is not None, "a running replica has a genesis"
        return write_origin(genesis, peers, replica.recoveries)

    def _gauges(self) -> Mapping[str, float]:
        gauges = {
            "certificate_days_left": self._vigil.days_left,
            "api_connections": float(self._server.connections),
            "mesh_peers": float(len(self._mesh.peers())),
        }
        if self._replica is not None:
            state = self._replica.state
            gauges["ledger_height"] = float(state.height)
            gauges["ledger_validators"] = float(len(state.validators()))
            gauges["ledger_waiting"] = float(bool(self._replica.waiting()))
        return gauges

    # --------------------------------------------------------------- presence

    def _wire_mesh(self, replica: Orderer) -> None:
        async def reach(_: PeerInfo, height: Any) -> int:
            """Answer when that height is committed here."""
            if type(height) is int and 0 <= height <= replica.state.height + 1:
                with trio.move_on_after(FAREWELL_LIMIT):
                    await replica.wait_for(height)
            return replica.state.height

        def told(peer: PeerInfo, news: Any) -> None:
            self._presence.told(peer.uid, news)

        def heard(peer: PeerInfo, payload: Any) -> None:
            self._presence.heard(peer.uid, payload)

        self._mesh_view.set_beat(self._presence.beat)
        self._mesh_view.on_beat(heard)
        self._mesh_view.on_cast("presence.news", told)
        self._mesh_view.handle("node.reach", reach)

    def _moved(self, uid: str, came: bool) -> None:
        self._mesh_view.cast("presence.news", [uid, came])

    def _ages(self) -> dict[str, float]:
        ages = self._presence.ages()
        ages[self.uid] = 0.0
        for record in self._members(self._ledger().state):
            age = self._mesh.last_seen(record["uid"])
            if age is not None:
                ages[record["uid"]] = age
        return ages

    # ---------------------------------------------------------------- commits

    def _committed(self, committed: CommittedView, state: StateView) -> None:
        self._pulse.beat()
        if self._replica is not None:
            self._vigil.bar(self._replica.state.barred())
        nodes = [key.partition("/")[2] for key in committed.changed if key.startswith("nodes/")]
        if nodes:
            self._dial_members()
        for uid in nodes:
            self._log_member(state.get("nodes", uid), uid)
        for key in sorted(committed.changed):
            members.log_news(state, key)
        self._look_at_own_record()

    def _log_member(self, record: Mapping[str, Any] | None, uid: str) -> None:
        if record is None:
            log.info("node %s gave its place to another one of its certificate", uid)
        else:
            what = "is a member" if record["active"] else "has left"
            what = "was evicted" if record["evicted"] else what
            log.info("%s %s (%s) %s", record["type"], record["name"], uid, what)

    def _dial_members(self) -> None:
        if self._real_mesh is None or self._replica is None:
            return
        for record in self._members(self._replica.state):
            if record["uid"] != self.uid and record["active"]:
                self._dial(record["peer_id"], tuple(record["p2p"]))

    def _dial(self, peer_id: str, addresses: tuple[str, ...]) -> None:
        if peer_id and self._dialled.get(peer_id) != addresses:
            self._dialled[peer_id] = addresses
            self._real_mesh.add(peer_id, addresses)

    def _identity_changed(self) -> None:
        self._server.renew()
        if self._real_mesh is not None:
            self._real_mesh.reload()

    def _members(self, state: StateView) -> list[dict[str, Any]]:
        return [r for r in state.table("nodes").values() if r["type"] in SN_TYPES]

    def _name_of(self, uid: str) -> str:
        record = self._replica.state.get("nodes", uid) if self._replica else None
        return str(record["name"]) if record else ""


def _as_listed(record: Mapping[str, Any], wanted: Mapping[str, object]) -> bool:
    """Whether the ledger has this node as it is."""
    return all(
        (holder_of(record) if key == "holder" else record[key]) == value
        for key, value in wanted.items()
    )


def _rounded(age: float | None) -> float | None:
    return None if age is None else round(age, 3)


async def _beat() -> None:
    """Give a sign of life, for the health check of the image."""
    sign = pulse.Pulse()
    while True:
        sign.beat()
        await trio.sleep(pulse.EVERY)
