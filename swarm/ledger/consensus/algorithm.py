"""Tendermint as a pure state machine: the algorithm.

Source: Buchman, Kwon, Milosevic, "The latest gossip on BFT consensus", arXiv:1807.04938,
Algorithm 1. Rules below carry that algorithm's line numbers.

Theory of operation
-------------------

Two rules about this file and `core.py`, which continues it:

1. Everything that decides is here, and nothing else is: no clock, socket, disk, thread or random
   number. Events and the time come in, a list of effects (`effects.py`) goes out. The same events
   always give the same effects, so a simulator can run years of bad luck.
2. It does not know what it orders. The `Application` says what may be included, who votes, and what
   the state is afterwards.

Events (`core.py`) are `start`, `submit`, `receive`, `timeout` and `peer_up`. Each one records what
it brings and then runs the rules (`_rule`) until none applies. A step commits at most one block
through votes; the next height begins in a step of its own (the timer "again"), so neither the call
stack nor the time that a step takes grows with the backlog.

A height goes through rounds, a round through steps:

    IDLE ── work waits, or a peer has begun ──> PROPOSE ──> PREVOTE ──> PRECOMMIT ─┬─> next height
                                                  ^                               │
                                                  └───────── next round <──────────┘

- PROPOSE: the round's proposer sends a block; everybody prevotes for it, or for nothing.
- PREVOTE: a quorum of prevotes for one block makes a node lock it and precommit.
- PRECOMMIT: a quorum of precommits for one block, of any round, decides.

Why it is safe: a node that precommitted a block is locked on it and prevotes for another one only
when shown a quorum of prevotes from a later round than its lock's. Any two quorums share an honest
node (or, under the crash rule, any node), so two different blocks cannot both be decided.

Why it goes on: time-outs grow with the round; a node that sees others ahead joins them (line 55);
and a block that got a quorum of prevotes is the one that later proposers propose again.

What is added to the paper:

- *Blocks are executed before the vote.* The header says what comes of a block, so a certificate
  proves the state and the next validators, and nodes that differ notice before they commit.
- *No empty blocks.* A height stays IDLE until a transaction that can be included waits here, or a
  validator's signed message for the height arrives. Time-outs grow from the round on in which there
  is something to decide.
- *A sticky, rotating proposer* (`quorum.proposer`), a function of the chain alone.
- *Memory.* `_sign` is the only place that signs. It signs one value for each (height, round, kind),
  and has it written before it is sent; asked again, it returns what is stored. Locks are written
  with the vote that they belong to, and with the prevotes that prove them.
- *An empty store does not vote* until `amnesia.py` can show that this is safe, and one that may be
  an old copy asks the others first (`memory.py`).
- *Evidence.* Two values signed for one step are kept as proof and counted both (`tally.py`). Under
  the crash rule they mean that safety is gone: the core halts.
- *Repair.* When nothing has moved for a tick, own messages are sent again and neighbours are asked;
  they pass on what they hold of others, or the blocks that were missed. Blocks come with
  certificates, checked against the validators of their height.
- *Bounds* on everything that grows by what others send.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from swarm.errors import RemoteError
from swarm.ledger.application import Application, Executed, execute
from swarm.ledger.block import (
    MAX_BLOCK,
    MAX_BLOCK_TRANSACTIONS,
    NIL,
    PRECOMMIT,
    PREVOTE,
    Block,
    Certificate,
    Verify,
)
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus import quorum as q
from swarm.ledger.consensus.amnesia import Amnesia
from swarm.ledger.consensus.memory import Memory
from swarm.ledger.consensus.tally import Tally
from swarm.ledger.genesis import Timing
from swarm.ledger.mempool import Mempool
from swarm.ledger.state.verdict import Header

EXECUTED = 4  # executed blocks kept: of the present round, and those that were locked on
IDLE = -1
PROPOSE = 0  # PREVOTE is 1 and PRECOMMIT is 2: steps and kinds of messages share their numbers
STEPS = {IDLE: "idle", PROPOSE: "propose", PREVOTE: "prevote", PRECOMMIT: "precommit"}
SMOOTH_MS = 60_000  # a clock behind the last block's by less than this follows it


class Now(NamedTuple):
    """The time as the shell sees it."""

    seconds: float  # monotonic, for rates
    wall_ms: int  # Unix time, for display in blocks


@dataclass(frozen=True)
class Lock:
    """The paper's lockedRound, id(lockedValue), validRound and validValue, and what proves it."""

    locked_round: int = -1
    locked_id: bytes = NIL
    valid_round: int = -1
    valid_block: Block | None = None
    proof: tuple[msg.Vote, ...] = ()  # the prevotes of `valid_round`


@dataclass(frozen=True)
class Resume:
    """What a store remembers, beside the application."""

    last_id: bytes  # id of the last block; the chain id at the genesis
    last_proposer: str = ""
    last_time_ms: int = 0
    signed: tuple[msg.Signed, ...] = ()  # own messages of the height in progress
    lock: Lock = field(default_factory=Lock)
    vote_from: tuple[int, int] | None = None  # None: the store is new, see `amnesia.py`
    unconfirmed: bool = False  # ask the others what we have signed before we sign: `memory.py`


@dataclass(frozen=True)
class Config:
    """Who this replica is, and its tools. `sign` must be deterministic or the store be used."""

    uid: str
    chain: bytes
    timing: Timing
    sign: Callable[[bytes], bytes]
    verify: Verify
    recoveries: frozenset[bytes] = frozenset()  # ids of blocks that the operator has accepted


class Pending(NamedTuple):
    """Why a height is not decided yet."""

    height: int
    round: int
    step: str
    have: frozenset[str]
    needed: int
    since: float


def _precommits_a_block(message: msg.Signed) -> bool:
    return isinstance(message, msg.Vote) and message.kind == PRECOMMIT and message.block_id != NIL


class Algorithm:
    """The rules of one replica. `Core` adds events, neighbours and time."""

    _signed: dict[tuple[int, int], msg.Signed]  # by round and kind, of the height in progress
    _once: set[tuple[int, int]]  # (line, round): rules with "for the first time"
    _judged: dict[bytes, str]  # block id -> why it is not valid, or ""
    _executed: dict[tuple[Header, tuple[bytes, ...]], Executed]  # the latest last

    def __init__(self, config: Config, app: Application, resume: Resume) -> None:
        self.config = config
        self.app = app
        self.vote_from = resume.vote_from
        self.memory = Memory(confirmed=not resume.unconfirmed)
        self.halted: fx.Halt | None = None
        self.mempool = Mempool()
        self.amnesia = Amnesia()
        self.refusal = ""  # why the last proposal was not accepted
        self._last_id = resume.last_id
        self._last_proposer = resume.last_proposer
        self._last_time_ms = resume.last_time_ms
        self._out: list[fx.Effect] = []
        self._now = Now(0.0, 0)
        self._new_height()
        self._lock = resume.lock
        self._signed = {(m.round, msg.kind_of(m)): m for m in resume.signed}
        # The last height in which a block was precommitted, or that was committed.
        self._reach = app.height + any(map(_precommits_a_block, resume.signed))

    # ------------------------------------------------------------------ what others may read

    @property
    def height(self) -> int:
        """Height of the last committed block."""
        return self.app.height

    @property
    def validators(self) -> tuple[str, ...]:
        """Validators of the height in progress."""
        return tuple(self._tally.keys)

    @property
    def quorum(self) -> int:
        """Votes needed at the height in progress."""
        return self._tally.quorum

    @property
    def round(self) -> int:
        """Round in progress; -1 when idle."""
        return -1 if self.step == IDLE else self._round

    @property
    def may_vote(self) -> bool:
        """Whether this node is a validator that votes at the present height and round."""
        return (
            self.config.uid in self._tally.keys
            and self.memory.confirmed
            and self.vote_from is not None
            and (self.app.height + 1, self._round) >= self.vote_from
        )

    def pending(self) -> Pending | None:
        """What the height in progress waits for; None when it is idle."""
        if self.step == IDLE:
            return None
        kind = max(self.step, PREVOTE)
        have = frozenset(self._tally.voters(kind, self._round))
        return Pending(
            self.app.height + 1, self._round, STEPS[self.step], have, self.quorum, self._began
        )

    # ------------------------------------------------------------------ rounds and steps

    def _new_height(self) -> None:
        validators = self.app.validators()
        keys = {validator.uid: validator.public_key_der for validator in validators}
        self._tally = Tally(keys, q.quorum(len(keys), self.app.fault_model))
        self._honest = q.one_honest(len(keys), self.app.fault_model)
        self.step = IDLE
        self._round = 0
        self._quiet = 0  # the latest round that began without anything to decide
        self._began = self._now.seconds
        self._lock = Lock()
        self._signed = {}
        self._once = set()
        self._judged = {}
        self._executed = {}

    def _rule(self) -> bool:
        """Apply one rule of Algorithm 1; False when none applies."""
        return (
            self._line_49()
            or self._line_55()
            or self._leave_idle()
            or (
                self.step != IDLE
                and (
                    self._propose()
                    or self._line_22()
                    or self._line_28()
                    or self._line_36()
                    or self._line_44()
                    or self._line_34()
                    or self._line_47()
                )
            )
        )

    def _line_49(self) -> bool:
        """Precommits of a quorum, in any round, for a valid block: decide it."""
        for round_, block_id in self._tally.decided():
            block = self._tally.block(block_id)
            if block is None:
                continue
            if self._problem(block):
                self._halt("SW3013", f"block {block.height} is certified, but {self.refusal}")
                return False
            votes = self._tally.votes_for(PRECOMMIT, round_, block_id)
            signatures = tuple((vote.voter, vote.signature) for vote in votes)
            self._commit(block, Certificate(block.height, round_, block_id, signatures))
            self._out.append(
                fx.StartTimer(0.0, fx.Timer("again", self.app.height + 1, 0)),
            )
            return True
        return False

    def _line_55(self) -> bool:
        """Messages of f + 1 validators from a later round: join them."""
        round_ = self._tally.skip_to(-1 if self.step == IDLE else self._round, self._honest)
        if round_ is None:
            return False
        self._start_round(round_)
        return True

    def _leave_idle(self) -> bool:
        """Begin round 0 (line 10) when there is work, not merely because there is a height."""
        if self.step != IDLE or not (self._tally.highest or self._pick(1)):
            return False
        self._start_round(0)
        return True

    def _start_round(self, round_: int) -> None:
        """Lines 11 to 21; the proposal itself is the next rule."""
        if self.step == IDLE:
            self._began = self._now.seconds
        if self.vote_from is not None and self.vote_from[0] == self.app.height + 1:
            # Rounds in which this node may have voted before it lost its store are not for it.
            round_ = max(round_, self.vote_from[1])
        self._round = round_
        self.step = PROPOSE
        self._tally.prune(round_, {self._lock.locked_round, self._lock.valid_round})
        if not self._has_work():
            self._quiet = round_
        self._timer("propose")

    def _has_work(self) -> bool:
        """Whether this height can be decided, as far as this node knows."""
        return (
            self._lock.valid_block is not None
            or bool(self._pick(1))
            or any(not self._problem(held[0].block) for held in self._tally.proposals.values())
        )

    def _proposer(self, round_: int) -> str:
        uids = list(self._tally.keys)
        rotate = self.config.timing.rotate_blocks
        return q.proposer(uids, self._last_proposer, self.app.height + 1, round_, rotate)

    def _propose(self) -> bool:
        """Lines 14 to 19: the valid block if there is one, else what waits, when anything does."""
        key = (self._round, PROPOSE)
        if (
            self.step != PROPOSE
            or key in self._signed
            or not self.may_vote
            or self._proposer(self._round) != self.config.uid
        ):
            return False
        block = self._lock.valid_block or self._new_block()
        if block is None:
            return False
        height, valid_round = block.height, self._lock.valid_round

        def make() -> msg.Signed:
            message = msg.Proposal(height, self._round, valid_round, block, self.config.uid, b"")
            return self._with_signature(message)

        self._sign(PROPOSE, make)
        return True

    def _new_block(self) -> Block | None:
        transactions = self._pick(MAX_BLOCK_TRANSACTIONS)
        if not transactions:
            return None
        wall, last = self._now.wall_ms, self._last_time_ms
        time_ms = last if 0 < last - wall < SMOOTH_MS else wall
        header = Header(self.app.height + 1, time_ms, self.config.uid)
        return Block.make(
            chain=self.config.chain,
            height=header.height,
            previous=self._last_id,
            time_ms=time_ms,
            proposer=header.proposer,
            transactions=transactions,
            effect=self._execute(header, tuple(transactions)).effect,
        )

    def _pick(self, count: int) -> list[bytes]:
        chosen, refused = self.mempool.pick(self.app, count=count, size=MAX_BLOCK - 2048)
        self._out.extend(fx.Dropped(tx_id, error) for tx_id, error in refused)
        return chosen

    def _line_22(self) -> bool:
        """A first proposal: prevote for it unless locked on another block."""
        proposals = self._tally.proposals.get(self._round, ())
        if self.step != PROPOSE or not proposals or proposals[0].valid_round != -1:
            return False
        block = proposals[0].block
        fresh = block.header.proposer == proposals[0].voter
        free = self._lock.locked_round == -1 or self._lock.locked_id == block.id
        self._vote(PREVOTE, block.id if fresh and free and not self._problem(block) else NIL)
        return True

    def _line_28(self) -> bool:
        """A proposal that had a quorum of prevotes in an earlier round may undo an older lock."""
        if self.step != PROPOSE:
            return False
        for proposal in self._tally.proposals.get(self._round, ()):
            block, valid_round = proposal.block, proposal.valid_round
            if valid_round < 0 or not self._tally.has_quorum(PREVOTE, valid_round, block.id):
                continue
            free = self._lock.locked_round <= valid_round or self._lock.locked_id == block.id
            self._vote(PREVOTE, block.id if free and not self._problem(block) else NIL)
            return True
        return False

    def _line_36(self) -> bool:
        """Prevotes of a quorum for a valid block: lock it, precommit, remember it as valid."""
        key = (36, self._round)
        if self.step < PREVOTE or key in self._once:
            return False
        for proposal in self._tally.proposals.get(self._round, ()):
            block = proposal.block
            if not self._tally.has_quorum(PREVOTE, self._round, block.id) or self._problem(block):
                continue
            self._once.add(key)
            locked = (self._lock.locked_round, self._lock.locked_id)
            if self.step == PREVOTE:
                locked = (self._round, block.id)
            proof = tuple(self._tally.votes_for(PREVOTE, self._round, block.id))
            self._lock = Lock(*locked, self._round, block, proof)
            if self.may_vote:
                raw = tuple(msg.encode(vote) for vote in proof)
                self._out.append(
                    fx.WriteLock(block.height, *locked, self._round, block.encoded, raw),
                )
            if self.step == PREVOTE:
                self._vote(PRECOMMIT, block.id)
            return True
        return False

    def _line_44(self) -> bool:
        """Prevotes of a quorum for nothing: precommit nothing."""
        if self.step != PREVOTE or not self._tally.has_quorum(PREVOTE, self._round, NIL):
            return False
        self._vote(PRECOMMIT, NIL)
        return True

    def _line_34(self) -> bool:
        """Prevotes of a quorum, divided: wait a little for the rest."""
        return self._wait_once(34, PREVOTE, "prevote") if self.step == PREVOTE else False

    def _line_47(self) -> bool:
        """Precommits of a quorum, divided: wait a little, then begin the next round."""
        return self._wait_once(47, PRECOMMIT, "precommit")

    def _wait_once(self, line: int, kind: int, timer: str) -> bool:
        key = (line, self._round)
        if key in self._once or not self._tally.has_any_quorum(kind, self._round):
            return False
        self._once.add(key)
        self._timer(timer)
        return True

    def _timer(self, kind: str) -> None:
        timing = self.config.timing
        # Votes follow within one message delay; a proposal takes a whole block's transfer. Rounds
        # that a liar's vote began, and in which nobody has anything to propose, make none longer.
        base = timing.base_ms if kind == "propose" else timing.base_ms / 2
        delay = (base + timing.step_ms * (self._round - self._quiet)) / 1000
        self._out.append(fx.StartTimer(delay, fx.Timer(kind, self.app.height + 1, self._round)))

    # ------------------------------------------------------------------ signing

    def _vote(self, kind: int, block_id: bytes) -> None:
        """Prevote or precommit. Those that may not vote take the step in silence."""
        self.step = kind
        if not self.may_vote:
            return

        def make() -> msg.Signed:
            height = self.app.height + 1
            vote = msg.Vote(kind, height, self._round, block_id, self.config.uid, b"")
            return self._with_signature(vote)

        self._sign(kind, make)

    def _with_signature(self, message: msg.Signed) -> msg.Signed:
        signature = self.config.sign(message.signed_bytes(self.config.chain))
        if isinstance(message, msg.Vote):
            m = message
            return msg.Vote(m.kind, m.height, m.round, m.block_id, m.voter, signature)
        p = message
        return msg.Proposal(p.height, p.round, p.valid_round, p.block, p.voter, signature)

    def _sign(self, kind: int, make: Callable[[], msg.Signed]) -> None:
        """The one place that signs: one value for each height, round and kind, written first."""
        key = (self._round, kind)
        message = self._signed.get(key)
        if message is None:
            message = self._signed[key] = make()
            if _precommits_a_block(message):
                self._reach = message.height
            self._out.append(
                fx.WriteVote(message.height, self._round, kind, msg.encode(message)),
            )
            # Once: what is stored was counted at the start, and counting it twice makes a quorum.
            self._tally.add(message, self._round)
        self._out.append(fx.Send(message))

    def _resolve(self) -> None:
        """Learn from when on a new store may vote."""
        if self.vote_from is not None:
            return
        self.vote_from = self.amnesia.vote_from(
            self.config.uid, self.app.height, self._tally.keys, self._tally.quorum
        )
        if self.vote_from is not None:
            self._out.append(fx.WriteVoting(*self.vote_from))
            if self.vote_from[0] == self.app.height + 1:
                self._speak_up()

    def _speak_up(self) -> None:
        """The steps so far were taken in silence; others may wait for these very votes."""
        if self.step != IDLE:
            self._once.clear()
            self._start_round(self._round)

    # ------------------------------------------------------------------ validity and decisions

    def _problem(self, block: Block) -> str:
        """Why `block` may not follow the last one; "" when it may. Judged once.

        A pure function of the chain: all honest nodes come to the same answer.
        """
        known = self._judged.get(block.id)
        if known is None:
            known = self._judged[block.id] = self._judge(block)
        if known:
            self.refusal = known
        return known

    def _judge(self, block: Block) -> str:
        """A recovery never passes: `check` refuses its transaction, as nobody may propose one."""
        return self._misplaced(block) or self._inadmissible(block) or self._differs(block)

    def _misplaced(self, block: Block) -> str:
        header = block.header
        if header.chain != self.config.chain:
            return "it belongs to another swarm"
        if header.height != self.app.height + 1 or header.previous != self._last_id:
            return "it does not follow the last block"
        if header.proposer not in self._tally.keys:
            return "its proposer is no validator"
        return ""

    def _inadmissible(self, block: Block) -> str:
        seen = set()
        for tx in block.transactions:
            try:
                ticket = self.app.check(tx)
            except RemoteError as error:
                return f"a transaction cannot be included: {error.cause}"
            if ticket.id in seen:
                return "a transaction comes twice"
            seen.add(ticket.id)
        return ""

    def _differs(self, block: Block) -> str:
        header, effect = block.header, self._outcome(block).effect
        if header.effect.results != effect.results:
            return "its verdicts are not those that its transactions get here"
        if header.effect.next_validators != effect.next_validators:
            return "it names other validators of the next block"
        if header.effect.state != effect.state:
            return "it leads to a different state"
        return ""

    def _outcome(self, block: Block) -> Executed:
        """What comes of a block whose transactions can all be included."""
        recovery = block.id in self.config.recoveries
        header = Header(block.height, block.header.time_ms, block.header.proposer, recovery)
        return self._execute(header, block.transactions)

    def _execute(self, header: Header, transactions: tuple[bytes, ...]) -> Executed:
        """Apply once what is proposed, voted on and decided.

        The work that a proposer can cause is bounded: `_line_22` judges one block a round, the
        others need a quorum of prevotes first. What has left this small memory is executed again.
        """
        key = (header, transactions)
        found = self._executed.get(key)
        if found is None:
            found = self._executed[key] = execute(self.app, header, transactions)
            if len(self._executed) > EXECUTED:
                self._executed.pop(next(iter(self._executed)))
        return found

    def _commit(self, block: Block, certificate: Certificate) -> None:
        """Take over the outcome of a certified, valid block and turn to the next height."""
        before = self.app
        recovery = block.id in self.config.recoveries  # refused by `check`, as it must be elsewhere
        ticket_of = before.identify if recovery else before.check
        tickets = [ticket_of(tx) for tx in block.transactions]
        ids = tuple(ticket.id for ticket in tickets)
        self.app, outcome, _ = self._outcome(block)
        self._out.append(fx.Commit(block, certificate, ids, before, self.app, outcome))
        self.mempool.committed(tickets)
        self._last_id = block.id
        self._last_proposer = block.header.proposer
        self._last_time_ms = block.header.time_ms
        self._reach = max(self._reach, block.height)
        self._new_height()
        self._resolve()

    def _halt(self, code: str, cause: str) -> None:
        self.halted = fx.Halt(code, cause)
        self._out.append(self.halted)
