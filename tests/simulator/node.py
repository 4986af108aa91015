"""One simulated process: a core, its disk, its clock, and the shell between them."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from swarm.errors import RemoteError
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Config, Core, Now
from swarm.ledger.genesis import Timing
from tests.simulator.disk import Disk
from tests.simulator.judge import Broken

if TYPE_CHECKING:
    from tests.simulator.world import World

TIMING = Timing(300, 150, 8)
EPOCH_MS = 1_700_000_000_000
DAY_MS = 86_400_000
DOUBLE_VOTE = "SW3014"
BATCH = 50  # blocks served at once


class Node:
    """One process with its disk. `twin` tells apart two processes with one liar's key."""

    def __init__(self, world: World, uid: str, twin: int = 0) -> None:
        self.world = world
        self.uid = uid
        self.twin = twin
        self.disk = Disk()
        self.core: Core | None = None
        self.epoch = 0  # of the process: what was meant for an earlier one never arrives
        self.joining = False
        self.honest = uid not in world.liars
        self.held: list[fx.Effect] = []  # effects of earlier events, not yet carried out
        self.rate = 1.0 + world.rng.uniform(-1, 1) * world.profile.drift
        self.since = 0.0
        self.wall_ms = EPOCH_MS

    def now(self) -> Now:
        """The time as this node's clocks tell it."""
        local = self.world.now * self.rate
        return Now(self.since + local, self.wall_ms + int(local * 1000))

    def set_clocks(self) -> None:
        """Clocks that agree with nobody's: the monotonic one starts anywhere, the other is off."""
        rng = self.world.rng
        self.since = rng.uniform(0, 10_000)
        self.wall_ms = EPOCH_MS + rng.randint(-DAY_MS, DAY_MS)

    # ------------------------------------------------------------------ life

    def boot(self) -> None:
        """Start the process on its disk."""
        world = self.world
        self.epoch += 1
        if world.profile.skew:
            self.set_clocks()
        app = self.disk.app or world.genesis
        chain, key = world.ledger.chain, world.ledger.key(self.uid)
        config = Config(self.uid, chain, TIMING, lambda data: world.sign(key, data), world.verify)
        # As the real store says of every file that it opens.
        resume = replace(self.disk.resume(chain), unconfirmed=True)
        self.core = world.make_core(config, app, resume)
        if not self.honest:  # it meets what its twin has signed, and does not mind
            self.core._recall = lambda *_: None  # type: ignore[method-assign]
        self.held = []
        if world.log is not None:
            world.tell(self, f"starts at height {app.height}, may vote from {self.disk.vote_from}")
        self.finish(self.core.start(self.now()))
        for other in world.nodes:
            if other.core is not None and other is not self:
                other.finish(other.core.peer_up(self.uid, other.now()))

    def crash(self, down: float, *, lose_disk: bool = False, lose_steps: int = 0) -> None:
        """End the process; it returns after `down` seconds."""
        if self.core is None:
            return
        world = self.world
        self.core = None
        self.epoch += 1
        self.held = []
        world.stats["crashes"] += 1
        if lose_disk:
            self.disk = Disk(history=None if self.disk.history is None else deque())
            world.judge.forgotten(self)
            world.stats["lost disks"] += 1
        if lose_steps:
            self.disk = self.disk.lose_steps(lose_steps)
            world.stats["rollbacks"] += 1
        if world.log is not None:
            lost = "; its disk is lost" if lose_disk else ""
            lost = f"; its disk loses {lose_steps} steps" if lose_steps else lost
            world.tell(self, f"ends for {down:.2f} s{lost}")
        world.after(down, self._return)

    def _return(self) -> None:
        if self.core is None:
            self.boot()

    # ------------------------------------------------------------------ events and effects

    def event(self, name: str, *args: Any) -> None:
        """Give the core an event, if the process runs."""
        core = self.core
        if core is None:
            return
        if self.world.log is not None:
            self.world.tell_event(self, name, args)
        effects = getattr(core, name)(*args, self.now())
        if effects:
            self.finish(effects)

    def submit(self, tx: bytes) -> None:
        """A client's request; refusals are the client's business."""
        if self.core is not None:
            try:
                self.finish(self.core.submit(tx, self.now()))
            except RemoteError:
                return

    def finish(self, effects: list[fx.Effect]) -> None:
        """Carry effects out, now or together with those of the next events."""
        self.held += effects
        if not self.held:
            return
        if self.world.rng.random() < 0.8:
            self.flush()
        else:
            self.world.at_node(self, 0.0005, self.flush)

    def flush(self) -> None:
        """One step of the shell: all that is durable at once, then the rest in order."""
        held, self.held = self.held, []
        world, core = self.world, self.core
        if not held or core is None:
            return
        durable = [effect for effect in held if isinstance(effect, fx.DURABLE)]
        outward = [effect for effect in held if not isinstance(effect, fx.DURABLE)]
        stop = world.crash_point(self, len(outward))
        if stop == 0 and not (world.profile.torn and durable and world.rng.random() < 0.5):
            self.crash(world.rng.uniform(0.05, 2))
            return
        if durable:
            self._make_durable(durable, core)
        if stop == 0:  # a torn write that turned out whole: durable, but nobody was told
            self.crash(world.rng.uniform(0.05, 2))
            return
        for number, effect in enumerate(outward, 1):
            if number == stop:
                self.crash(world.rng.uniform(0.05, 2))
                return
            self.act(effect)
        world.judge.step(self, core)
        if stop is not None:
            self.crash(world.rng.uniform(0.05, 2))

    def _make_durable(self, effects: list[fx.Durable], core: Core) -> None:
        world = self.world
        try:
            self.disk.write(effects)
        except AssertionError as error:
            raise Broken(f"{self.uid}: {error}") from error
        for effect in effects:
            if world.log is not None:
                world.tell_effect(self, effect)
            if isinstance(effect, fx.Commit):
                world.judge.committed(self, effect)
            elif isinstance(effect, fx.WriteEvidence):
                world.judge.evidence(self, effect)

    def act(self, effect: fx.Outward) -> None:
        """Carry out one effect that leaves the process."""
        world = self.world
        if isinstance(effect, fx.Send):
            message = effect.message
            world.judge.sent(self, message)
            if world.log is not None:
                world.tell_effect(self, effect)
            world.send(self, message, effect.to)
        elif isinstance(effect, fx.StartTimer):
            timer = effect.timer
            delay = effect.delay / self.rate
            world.at_node(self, delay, self.event, "timeout", timer)
        elif isinstance(effect, fx.Serve):
            items = self.disk.batch(effect.height, world.genesis.height, BATCH)
            world.send(self, msg.Blocks(items), effect.to)
        elif isinstance(effect, fx.Halt):
            if not self.honest or (effect.code == DOUBLE_VOTE and world.suspects):
                world.stats["halts"] += 1  # the promise of the rule for crashes: it stops
                return
            raise Broken(f"{self.uid} halted: {effect.code} {effect.cause}")
