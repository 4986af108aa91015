"""The consensus core: events and the time in, effects out.

`algorithm.py` has the theory of operation and the rules; here is everything between the rules and
the outside: events, what neighbours say and ask, blocks that were missed, and repetition of what
was lost. The same two rules hold for this file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from swarm.errors import RemoteError
from swarm.ledger import recovery
from swarm.ledger.application import Application
from swarm.ledger.block import NIL, PRECOMMIT, PREVOTE, Block, Certificate
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.algorithm import (
    IDLE,
    PROPOSE,
    Algorithm,
    Config,
    Lock,
    Now,
    Pending,
    Resume,
)
from swarm.ledger.consensus.amnesia import Amnesia
from swarm.ledger.consensus.memory import Memory
from swarm.ledger.consensus.statement import Statement
from swarm.ledger.consensus.sync import Sync
from swarm.ledger.genesis import CRASH

__all__ = ["IDLE", "PROPOSE", "Config", "Core", "Lock", "Now", "Pending", "Resume"]

IDLE_TICK = 5.0  # seconds between questions to neighbours when nothing is to be done
FUTURE_MESSAGES = 256  # of the next height, for each neighbour
FUTURE_BYTES = 2 << 20
RELAY_TRANSACTIONS = 50
RELAY_BYTES = 256 * 1024
_FORGED = ("SW3001", "SW3002")  # malformed, or not signed by its sender: nothing that can change


class Core(Algorithm):
    """One replica's consensus."""

    def __init__(self, config: Config, app: Application, resume: Resume) -> None:
        super().__init__(config, app, resume)
        self.sync = Sync()
        self._future: dict[str, deque[tuple[msg.Signed, int]]] = {}
        self._tick = 0
        self._asked = 0
        self._elsewhere: set[str] = set()  # neighbours that go on from another last block
        self.left_behind = ""  # why the others have gone on without this node, if they have
        self._stalled = (-1, -1, -1)  # height, round and step at the last tick

    def caught_up(self) -> bool:
        """Whether this node has what its neighbours have, as far as it was told.

        As many of the highest claims are left out as may be lies.
        """
        claims = sorted(self.sync.heights.values(), reverse=True)
        return bool(claims) and self.app.height >= claims[min(self._honest, len(claims)) - 1]

    # ------------------------------------------------------------------ events

    def start(self, now: Now) -> list[fx.Effect]:
        """Begin, or go on after a crash: stored messages are sent again, never signed anew."""
        self._begin(now)
        if self._signed:
            self._round = max(round_ for round_, _ in self._signed)
            self.step = max(kind for round_, kind in self._signed if round_ == self._round)
            self._tally.refer(self._lock.valid_round)
            for message in self._signed.values():
                self._tally.add(message, self._round)
                self._out.append(fx.Send(message))
            for vote in self._lock.proof:
                if self._tally.wanted(vote, self._round):
                    self._tally.add(vote, self._round)
            if self.step == PROPOSE:
                self._timer("propose")
        self._confirm()
        self._ask()
        self._restart_tick()
        return self._run()

    def submit(self, tx: bytes, now: Now) -> list[fx.Effect]:
        """Accept a client's transaction and tell the others.

        Raises RemoteError when it cannot be included or too many wait.
        """
        self._begin(now)
        if self.halted is None and not self.mempool.holds(tx):
            self.mempool.add(tx, self.app.check(tx))
            self._out.append(fx.Send(msg.Transactions((tx,))))
        return self._run()

    def submit_all(self, items: Sequence[tuple[bytes, bytes]], now: Now) -> list[fx.Effect]:
        """Accept several transactions, each with its id, that came in at the same time.

        They share a message to the others, and the next block. Those that cannot be included or
        find no room come back as `Dropped`.
        """
        self._begin(now)
        fresh: list[bytes] = []
        for tx_id, tx in items:
            if self.halted is not None or self.mempool.holds(tx):
                continue
            try:
                self.mempool.add(tx, self.app.check(tx))
            except RemoteError as error:
                self._out.append(fx.Dropped(tx_id, error))
                continue
            fresh.append(tx)
        self._out.extend(fx.Send(message) for message in msg.transactions(fresh, RELAY_BYTES))
        return self._run()

    def receive(self, source: str, message: msg.Message, now: Now) -> list[fx.Effect]:
        """Take a neighbour's message. Nothing it may contain raises."""
        self._begin(now)
        if self.halted is None:
            if isinstance(message, msg.Vote | msg.Proposal):
                if not self._on_signed(source, message):
                    return self._out  # most are repetitions: no rule applies that did not before
            elif isinstance(message, msg.Transactions):
                self._on_transactions(source, message)
            elif isinstance(message, msg.Ask):
                self._on_ask(source, message)
                return self._out
            elif isinstance(message, msg.Answer):
                self._on_answer(source, message)
            elif isinstance(message, msg.Fetch):
                if message.height < self.app.height and self.sync.allow(source, now.seconds):
                    self._out.append(fx.Serve(source, message.height))
            else:
                self._on_blocks(source, message)
        return self._run()

    def timeout(self, timer: fx.Timer, now: Now) -> list[fx.Effect]:
        """A timer is due. Those of heights, rounds and steps gone by do nothing."""
        self._begin(now)
        if timer.kind == "tick":
            if timer.height == self._tick:
                self._on_tick()
        elif timer.height == self.app.height + 1:
            if timer.kind == "again":
                self._take_future()
                self._confirm()
            elif timer.round == self._round:
                if timer.kind == "propose" and self.step == PROPOSE:  # line 57
                    self._vote(PREVOTE, NIL)
                elif timer.kind == "prevote" and self.step == PREVOTE:  # line 61
                    self._vote(PRECOMMIT, NIL)
                elif timer.kind == "precommit" and self.step != IDLE:  # line 65
                    self._start_round(self._round + 1)
        return self._run()

    def peer_up(self, uid: str, now: Now) -> list[fx.Effect]:
        """A neighbour is (again) connected: compare heights, and repeat what it may have missed."""
        self._begin(now)
        self._ask(to=uid)
        for message in self._signed.values():
            self._out.append(fx.Send(message, uid))
        return self._run()

    def peer_down(self, uid: str) -> None:
        """A neighbour is gone: fetch from others."""
        self.sync.forget(uid)
        self._future.pop(uid, None)

    def _begin(self, now: Now) -> None:
        self._now = now
        self._out = []

    def _run(self) -> list[fx.Effect]:
        """Apply rules until none applies, or a block was decided."""
        before = self.app.height
        was_idle = self.step == IDLE
        while self.halted is None and self.app.height == before and self._rule():
            pass
        if was_idle and self.step != IDLE:
            self._restart_tick()
        if self.halted is not None:
            # What was signed or decided in this very step stays unsaid; the evidence is kept.
            kept = (fx.WriteEvidence, fx.Halt)
            return [effect for effect in self._out if isinstance(effect, kept)]
        return self._out

    # ------------------------------------------------------------------ proposals and votes

    def _on_signed(self, source: str, message: msg.Signed) -> bool:
        """Count it; False when it changes nothing for the rules."""
        height = self.app.height + 1
        if message.height != height:
            if message.height == height + 1:
                self._keep_for_later(source, message)
            if message.height > height:
                # Somebody has committed our height: find out who can give the block.
                self._ask_once(source)
            return False
        if not self._tally.wanted(message, self._round):
            return False
        if isinstance(message, msg.Proposal) and self._proposer(message.round) != message.voter:
            self._blame(source, f"proposal of {message.voter}, whose turn it is not")
            return False
        key = self._tally.keys[message.voter]
        if not self.config.verify(key, message.signed_bytes(self.config.chain), message.signature):
            self._blame(source, f"signature of {message.voter} does not fit its message")
            return False
        if message.voter == self.config.uid:
            self._recall(msg.kind_of(message), height, message.round, _value(message))
        proof = self._tally.add(message, self._round)
        if proof is not None:
            first, second = Statement.of(proof.first), Statement.of(proof.second)
            self._out.append(fx.WriteEvidence(first, second))
            if self.app.fault_model == CRASH:
                self._halt("SW3014", f"{message.voter} signed two values at height {height}")
        return True

    def _keep_for_later(self, source: str, message: msg.Signed) -> None:
        """Hold a message of the next height, unchecked, within the share of its source."""
        size = len(message.block.encoded) if isinstance(message, msg.Proposal) else 256
        held = self._future.setdefault(source, deque())
        while held and (
            len(held) >= FUTURE_MESSAGES or sum(s for _, s in held) + size > FUTURE_BYTES
        ):
            held.popleft()
        held.append((message, size))

    def _take_future(self) -> None:
        held, self._future = self._future, {}
        for source, queue in held.items():
            for message, _ in queue:
                if self.halted is None:
                    self._on_signed(source, message)

    # ------------------------------------------------------------------ neighbours

    def _on_transactions(self, source: str, message: msg.Transactions) -> None:
        for tx in message.items:
            if self.mempool.holds(tx):
                continue
            try:
                self.mempool.add(tx, self.app.check(tx))
            except RemoteError as error:
                if error.code in _FORGED:
                    # Nobody passes on what it has not checked; the rest is not worth the time.
                    self._out.append(fx.Blame(source, error))
                    return
                # Included already, or not includable here yet, or its sender's share is full:
                # all normal between nodes of different heights. Its client is told by its own node.
                continue

    def _on_blocks(self, source: str, message: msg.Blocks) -> None:
        """Take certified blocks, each checked against the validators of its own height."""
        before = self.app.height
        more = False
        for raw, raw_certificate in message.items:
            try:
                block = Block.decode(raw)
                if block.height <= self.app.height:
                    continue
                if block.height != self.app.height + 1:
                    break
                if block.header.previous != self._last_id:
                    self._note_another_chain(source)
                certificate = Certificate.decode(raw_certificate)
                self._check_certificate(block, certificate)
            except RemoteError as error:
                if error.code == recovery.REFUSED:
                    self.left_behind = error.cause
                self._out.append(fx.Blame(source, error))
                self.sync.forget(source)
                break
            agreed = block.id in self.config.recoveries
            wrong = (
                recovery.problem(self.app, self._last_id, block) if agreed else self._problem(block)
            )
            if wrong:
                self._halt("SW3013", f"block {block.height} is certified, but {wrong}")
                return
            if not agreed and self.config.uid in dict(certificate.signatures):
                self._recall(PRECOMMIT, block.height, certificate.round, block.id)
            self._commit(block, certificate)
            self._elsewhere.clear()
            more = True
        self.sync.received(source, self._now.seconds, more)
        if self.app.height > before:
            self._out.append(fx.StartTimer(0.0, fx.Timer("again", self.app.height + 1, 0)))
            if not self.memory.confirmed:
                self._ask()
        self._fetch()

    def _note_another_chain(self, source: str) -> None:
        """A neighbour has another last block than this node. One may lie, f + 1 do not."""
        self._elsewhere.add(source)
        if len(self._elsewhere.intersection(self._tally.keys)) >= self._honest:
            self.left_behind = (
                f"the others have another block at height {self.app.height} than this node: one "
                "side was recovered without the other, or more validators lied than the fault "
                "model allows; this node can only rejoin with a fresh data directory"
            )

    def _check_certificate(self, block: Block, certificate: Certificate) -> None:
        keys, needed, config = self._tally.keys, self._tally.quorum, self.config
        recovery.check_certificate(
            block, certificate, keys, needed, config.verify, config.recoveries
        )

    def _on_ask(self, source: str, message: msg.Ask) -> None:
        if not self.sync.allow(source, self._now.seconds):
            return
        for vote in self._tally.votes_of(source):
            self._out.append(fx.Send(vote, source))  # before the answer: see `memory.py`
        self._out.append(
            fx.Send(
                msg.Answer(self.app.height, self._own_reach(), self._last_round(source)), source
            )
        )
        if message.height > self.app.height:
            self.sync.hear(source, msg.Answer(message.height, -1, -1))
            self._fetch()
        elif message.height == self.app.height and message.round >= 0:
            self._repeat_for(source, message)

    def _own_reach(self) -> int:
        return -1 if self.vote_from is None or not self.memory.confirmed else self._reach

    def _last_round(self, uid: str) -> int:
        own = max((round_ for round_, _ in self._signed), default=-1)
        return max(own, self._tally.highest.get(uid, -1))

    def _repeat_for(self, source: str, ask: msg.Ask) -> None:
        """Pass on what is held of the height that the asking node is in."""
        rounds = {ask.round, self._round, self._lock.locked_round, self._lock.valid_round}
        rounds |= {p.valid_round for p in self._tally.proposals.get(self._round, ())}
        for vote in self._tally.messages(rounds):
            # Its own votes too: if it lost its store, it needs them to see old quorums.
            self._out.append(fx.Send(vote, source))
        if ask.wants_block:
            wanted = {ask.round, self._round, self._lock.valid_round}
            wanted |= {round_ for round_, _ in self._tally.decided()}
            for round_, proposal in self._tally.blocks():
                if round_ in wanted:
                    self._out.append(fx.Send(proposal, source))

    def _on_answer(self, source: str, message: msg.Answer) -> None:
        self.sync.hear(source, message)
        if self.vote_from is None:
            self.amnesia.hear(source, message)
            self._resolve()
        if not self.memory.confirmed:
            self._take_future()
            self.memory.hear(source, message.height, self.app.height)
            self._confirm()
        self._fetch()

    def _confirm(self) -> None:
        """Begin to sign when enough others have told what they hold of us."""
        others = [uid for uid in self._tally.keys if uid != self.config.uid]
        if self.memory.confirmed or not self.memory.enough(
            others, self.app.height, self._tally.quorum
        ):
            return
        self.memory.confirmed = True
        self._speak_up()

    def _recall(self, kind: int, height: int, round_: int, value: bytes) -> None:
        """Our key has signed this. If we do not remember it, our store is not to be trusted."""
        if self.vote_from is None or (height, round_) < self.vote_from:
            return  # that is known, and not signed again
        mine = self._signed.get((round_, kind))
        if mine is None or _value(mine) != value:
            self.vote_from = None
            self.memory = Memory(confirmed=True, lost=True)
            self.amnesia = Amnesia()
            cause = f"this node's key has signed what it does not remember, at height {height}"
            self._out.append(fx.Blame(self.config.uid, RemoteError("SW3017", cause)))
            self._ask()

    def _fetch(self) -> None:
        source = self.sync.next_source(self.app.height, self._now.seconds)
        if source is not None:
            self._out.append(fx.Send(msg.Fetch(self.app.height), source))

    def _ask(self, to: str | None = None, wants_block: bool = False) -> None:
        self._out.append(fx.Send(msg.Ask(self.app.height, self.round, wants_block), to))

    def _ask_once(self, source: str) -> None:
        """Ask whoever is ahead, once a height."""
        if self._asked <= self.app.height:
            self._asked = self.app.height + 1
            self._ask(to=source)

    def _blame(self, source: str, text: str) -> None:
        self._out.append(fx.Blame(source, RemoteError("SW3005", text)))

    # ------------------------------------------------------------------ time

    def _restart_tick(self) -> None:
        self._tick += 1
        delay = IDLE_TICK if self.step == IDLE else self.config.timing.base_ms * 2 / 1000
        self._out.append(fx.StartTimer(delay, fx.Timer("tick", self._tick, 0)))

    def _on_tick(self) -> None:
        """Nothing moved since the last tick: repeat and ask. Messages do get lost on reconnects."""
        before, self._stalled = self._stalled, (self.app.height, self._round, self.step)
        stalled = before == self._stalled
        self._fetch()
        silent = self.vote_from is None or not self.memory.confirmed
        if self.step == IDLE or (silent and not stalled):
            # This node needs the others' answers, though they may go from round to round.
            self._ask()
        elif stalled:
            for (round_, _), message in self._signed.items():
                if round_ == self._round:
                    self._out.append(fx.Send(message))
            self._ask()
            others = [uid for uid in self._tally.keys if uid != self.config.uid]
            if others and self._lacks_block():
                self._ask(to=others[self._tick % len(others)], wants_block=True)
        if self.step != IDLE and before[0] == self.app.height:
            # Rounds may pass because nobody else knows these.
            waiting = tuple(self.mempool.oldest(RELAY_TRANSACTIONS, RELAY_BYTES))
            if waiting:
                self._out.append(fx.Send(msg.Transactions(waiting)))
        self._restart_tick()

    def _lacks_block(self) -> bool:
        undecided = any(self._tally.block(b) is None for _, b in self._tally.decided())
        return undecided or not self._tally.proposals.get(self._round)


def _value(message: msg.Signed) -> bytes:
    """The block id that a vote or a proposal is for."""
    return message.block_id if isinstance(message, msg.Vote) else message.block.id
