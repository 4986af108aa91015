"""Golden transcripts of the consensus: plain words, commands, and exactly what the cores do.

The form is that of `tests/golden.py`. The cores are the production ones, on the wire of `cores.py`.
Each line of output is what one core did on one event. `a[1 2]` is the block that `a` made of the
transactions 1 and 2. Not shown: time-outs for proposals, waiting transactions on their way, and
questions between neighbours, but for what `> tick` brings about.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

from swarm.ledger import codec
from swarm.ledger.block import NIL, Block
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.algorithm import STEPS
from swarm.ledger.consensus.core import IDLE, Core, Lock, Resume
from tests.ledger import kv
from tests.ledger.cores import CHAIN, UIDS, Wire, block_of, signed_proposal, signed_vote

KINDS = ("proposal", "prevote", "precommit")


class Disk:
    """What a node has made durable."""

    def __init__(self, app: Any, vote_from: tuple[int, int] | None) -> None:
        self.app = app
        self.last: Block | None = None
        self.signed: list[msg.Signed] = []
        self.lock = Lock()
        self.vote_from = vote_from

    def write(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.WriteVote):
            message = msg.decode(effect.message)
            assert isinstance(message, msg.Vote | msg.Proposal)
            self.signed.append(message)
        elif isinstance(effect, fx.WriteLock):
            e, block = effect, Block.decode(effect.valid_block)
            proof = tuple(m for m in map(msg.decode, e.proof) if isinstance(m, msg.Vote))
            self.lock = Lock(e.locked_round, e.locked_id, e.valid_round, block, proof)
        elif isinstance(effect, fx.WriteVoting):
            self.vote_from = (effect.height, effect.round)
        elif isinstance(effect, fx.Commit):
            self.app, self.last = effect.application, effect.block
            self.signed, self.lock = [], Lock()

    def resume(self) -> Resume:
        parts = (tuple(self.signed), self.lock, self.vote_from, self.vote_from is not None)
        if self.last is None:
            return Resume(CHAIN, "", 0, *parts)
        header = self.last.header
        return Resume(self.last.id, header.proposer, header.time_ms, *parts)


class Session:
    """Executes the commands of one transcript on a fresh network."""

    def __init__(self) -> None:
        self.names: dict[bytes, str] = {NIL: "nothing"}
        self.blocks: dict[str, Block] = {}
        self.said: set[tuple[str, bytes]] = set()
        self.away: set[str] = set()
        self.copies: dict[str, Disk] = {}
        self.losses: list[Callable[[str, str, msg.Message], bool]] = []
        self.out: list[str] = []

    def run(self, line: str) -> list[str]:
        """Execute one command line and return what it prints."""
        self.out = []
        name, _, rest = line.partition(" ")
        words = [rest] if name == "forge" else rest.split()
        getattr(self, f"do_{name}")(*words)
        return self.out

    def cut(self, a: str, b: str, message: msg.Message) -> bool:
        return bool({a, b} & self.away) or any(lost(a, b, message) for lost in self.losses)

    # ------------------------------------------------------------------ commands

    def do_network(self, *words: str) -> None:
        """`network a b c d`, with the word `crash` for the crash rule."""
        uids = [word for word in words if word != "crash"] or list(UIDS)
        self.wire = Wire(uids, model="crash" if "crash" in words else "byzantine")
        self.disks = {uid: Disk(self.wire.genesis, (0, 0)) for uid in uids}
        take = self.wire.take

        def taken(uid: str, effects: list[fx.Effect]) -> list[fx.Effect]:
            for effect in effects:
                self.disks[uid].write(effect)
            self.note(uid, effects)
            return take(uid, effects)

        self.wire.take = taken  # type: ignore[method-assign]
        self.wire.cut = self.cut
        self.places = {uid: (core.height, core.round) for uid, core in self.wire.cores.items()}

    def do_submit(self, uid: str, number: str, op: str = "put", key: str = "key") -> None:
        """A client's transaction arrives at a node."""
        self.wire.submit(uid, kv.transaction("client", int(number), op, key))

    def do_deliver(self) -> None:
        """All that is under way arrives, and all that it causes."""
        self.wire.flow()

    def do_timeout(self, kind: str, *uids: str) -> None:
        for uid in uids:
            self.wire.fire(uid, kind)

    def do_tick(self, *uids: str) -> None:
        """Some time has passed without progress."""
        for uid in uids:
            self.wire.fire(uid, "tick")

    def do_lose(self, kind: str, *words: str) -> None:
        """`lose prevote from a to c d`: messages of a kind are lost on their way from now on."""
        line = " ".join(words)
        chosen = {side: set(line.partition(f"{side} ")[2].partition(" to")[0].split())
                  for side in ("from", "to")}  # fmt: skip

        def lost(a: str, b: str, m: msg.Message) -> bool:
            signed = isinstance(m, msg.Vote | msg.Proposal) and KINDS[msg.kind_of(m)] == kind
            return (
                signed
                and (not chosen["from"] or a in chosen["from"])
                and (not chosen["to"] or b in chosen["to"])
            )

        self.losses.append(lost)

    def do_split(self, *groups: str) -> None:
        """`split ab cd`: a and b hear each other, c and d hear each other."""
        self.losses.append(lambda a, b, m: not any(a in g and b in g for g in groups))

    def do_heal(self) -> None:
        self.losses.clear()

    def do_down(self, *uids: str) -> None:
        """Nodes crash, and with them goes all that was under way from and to them."""
        self.away.update(uids)
        gone = self.away
        self.wire.waiting = [w for w in self.wire.waiting if not {w[0], w[1]} & gone]

    def do_save(self, uid: str) -> None:
        """Somebody makes a copy of a node's disk."""
        self.copies[uid] = copy.deepcopy(self.disks[uid])

    def do_up(self, uid: str, what: str = "") -> None:
        """A node starts again: with its disk, an `empty` one, the `old` copy of it, or as `new`."""
        if what == "old":
            self.disks[uid] = self.copies[uid]
        elif what:
            self.disks[uid] = Disk(self.wire.genesis, None)
        self.away.discard(uid)
        disk = self.disks[uid]
        self.places.pop(uid, None)
        core = self.wire.boot(uid, disk.resume(), disk.app)
        self.wire.take(uid, core.start(self.wire.time()))
        for other, other_core in list(self.wire.cores.items()):
            if other != uid and other not in self.away:
                self.wire.take(other, other_core.peer_up(uid, self.wire.time()))
                self.wire.take(uid, core.peer_up(other, self.wire.time()))

    def do_forge(self, line: str) -> None:
        """`forge a proposal 0 a[1] to b c`: a's key signs what a's core would not."""
        found = re.fullmatch(r"(\S+) (\S+) (\d+) (nothing|\S\[[\d ]+\]) to (.+)", line)
        assert found, line
        voter, kind, round_, value, to = found.groups()
        core = self.wire.cores[voter]
        block = None if value == "nothing" else self.blocks.get(value) or self.made(value, core)
        if kind == "proposal":
            assert block is not None
            message: msg.Signed = signed_proposal(voter, int(round_), block)
        else:
            block_id = NIL if block is None else block.id
            height = core.height + 1
            message = signed_vote(voter, KINDS.index(kind), int(round_), block_id, height)
        for uid in to.split():
            self.wire.waiting.append(("?", uid, message))  # it does not matter who brings it

    def made(self, name: str, core: Core) -> Block:
        numbers = [int(number) for number in name[2:-1].split()]
        txs = [kv.transaction("client", number, "put", "key") for number in numbers]
        block = block_of(core, txs, name[0])
        self.name(block)
        return block

    def do_show(self) -> None:
        """Where every node stands."""
        for uid, core in self.wire.cores.items():
            if uid in self.away:
                continue
            place = "idle" if core.step == IDLE else f"round {core.round}, {STEPS[core.step]}"
            lock = core._lock
            locked = (
                ""
                if lock.locked_round < 0
                else (f", locked on {self.names[lock.locked_id]} in round {lock.locked_round}")
            )
            self.out.append(f"{uid}: height {core.height}, {place}{locked}")

    # ------------------------------------------------------------------ words for effects

    def name(self, block: Block) -> str:
        """`a[1 2]`: by whom, of which transactions."""
        if block.id not in self.names:
            numbers = []
            for tx in block.transactions:
                body = codec.decode(codec.decode(tx, limit=1 << 16, what="tx")[0], limit=1 << 16,
                                    what="tx")  # fmt: skip
                numbers.append(str(int.from_bytes(body[2], "big")))
            name = f"{block.header.proposer}[{' '.join(numbers)}]"
            while name in self.blocks:
                name += "'"
            self.names[block.id], self.blocks[name] = name, block
        return self.names[block.id]

    def note(self, uid: str, effects: list[fx.Effect]) -> None:
        """One line for what a core did on one event; none when it is nothing to tell."""
        words = [word for effect in effects for word in self.words(uid, effect)]
        core = self.wire.cores[uid]
        place = (core.height, core.round)
        if place != self.places.get(uid, place) and core.round >= 0:
            words.insert(0, f"round {core.round} begins")
        self.places[uid] = place
        line = f"{uid}: {'; '.join(dict.fromkeys(words))}"
        if words and line not in self.out:
            self.out.append(line)

    def words(self, uid: str, effect: fx.Effect) -> list[str]:
        if isinstance(effect, fx.Send):
            return self.sending(uid, effect)
        if isinstance(effect, fx.WriteLock):
            block = self.name(Block.decode(effect.valid_block))
            if effect.locked_round == effect.valid_round:
                return [f"locks {block}"]
            return [f"notes that {block} had a quorum in round {effect.valid_round}"]
        if isinstance(effect, fx.Commit):
            signers = " ".join(voter for voter, _ in effect.certificate.signatures)
            return [
                f"COMMITS {effect.block.height}: {self.name(effect.block)}, signed by {signers}"
            ]
        if isinstance(effect, fx.StartTimer) and effect.timer.kind in ("prevote", "precommit"):
            return [f"waits {effect.delay:g} s for more {effect.timer.kind}s"]
        if isinstance(effect, fx.WriteEvidence):
            return [f"keeps evidence against {effect.voter}"]
        if isinstance(effect, fx.WriteVoting):
            return [f"will vote from height {effect.height}, round {effect.round}"]
        if isinstance(effect, fx.Serve):
            return [f"gives {effect.to} the blocks after {effect.height}"]
        if isinstance(effect, fx.Halt):
            return [f"HALTS: {effect.code}, {effect.cause}"]
        if isinstance(effect, fx.Blame):
            return [f"blames {effect.source}: {effect.error.cause}"]
        return []

    def sending(self, uid: str, effect: fx.Send) -> list[str]:
        message = effect.message
        if isinstance(message, msg.Fetch):
            return [f"fetches from {effect.to} what comes after {message.height}"]
        if isinstance(message, msg.Answer) and effect.to in self.disks:
            if self.disks[effect.to].vote_from is not None:
                return []
            return [f"tells {effect.to}: I have committed {message.height}, "
                    f"and signed in heights up to {message.reach}"]  # fmt: skip
        if not isinstance(message, msg.Vote | msg.Proposal):
            return []
        if isinstance(message, msg.Vote):
            text = f"{KINDS[message.kind]}s {self.names[message.block_id]}"
        else:
            text = f"proposes {self.name(message.block)}"
            if message.valid_round >= 0:
                text += f" with its quorum of round {message.valid_round}"
        known = (uid, message.encoded) in self.said
        if message.voter != uid or (known and effect.to):
            return [f"passes on to {effect.to} what it has"]
        if known:
            return ["repeats what it has signed"]
        self.said.add((uid, message.encoded))
        return [text]
