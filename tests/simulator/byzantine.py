"""The liar: one key, two processes (Twins, arXiv:2004.10617), and a forger beside them.

Both twins run the honest core on disks of their own, each talking to a random part of the others,
so they vote twice, propose twice and know different things. The forger signs arbitrary votes with
the liar's key, proposes blocks that break a rule, and makes up blocks with stuffed certificates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.ledger.application import execute
from swarm.ledger.block import NIL, PRECOMMIT, PREVOTE, Block, Certificate, Effect
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Core
from swarm.ledger.state.verdict import Header

if TYPE_CHECKING:
    from tests.simulator.world import World


def plan(world: World) -> None:
    """Schedule the forger's acts."""
    for _ in range(world.rng.randint(3, 25)):
        world.after(world.rng.uniform(0.1, world.profile.heal), lambda: _vote(world))
    for _ in range(3):
        world.after(world.rng.uniform(0.5, world.profile.heal), lambda: _forge(world))
    for _ in range(world.rng.randint(0, 20)):
        world.after(world.rng.uniform(0.1, world.profile.heal), lambda: _propose(world))


def _vote(world: World) -> None:
    """A vote for a random known block, or none, to a random part of the others."""
    rng = world.rng
    (liar,) = world.liars
    cores = [n.core for n in world.nodes if n.honest and n.core is not None]
    if not cores:
        return
    core = rng.choice(cores)
    ids = [NIL, *(p.block.id for _, p in core._tally.blocks())]
    block_id = rng.choice(ids)
    kind = rng.choice([PREVOTE, PRECOMMIT])
    round_ = max(0, core.round + rng.randint(-1, 2))
    bare = msg.Vote(kind, core.height + 1, round_, block_id, liar, b"")
    signature = world.sign(world.ledger.key(liar), bare.signed_bytes(world.ledger.chain))
    lie = msg.Vote(kind, bare.height, round_, block_id, liar, signature)
    for node in world.nodes:
        if node.honest and rng.random() < 0.5:
            world.deliver(liar, node, lie)


def _propose(world: World) -> None:
    """A well-signed proposal of a bad block: a false effect, a replay, a transaction twice."""
    rng = world.rng
    (liar,) = world.liars
    cores = [n.core for n in world.nodes if n.honest and n.core is not None]
    if not cores:
        return
    core = rng.choice(cores)
    round_ = next(r for r in range(max(0, core.round), 1000) if core._proposer(r) == liar)
    fresh = world.ledger.put(80_000 + rng.randrange(1000))
    old = rng.choice(sorted(world.judge.included) or [fresh])
    wrong, txs = rng.choice(
        [
            ("state", [fresh]),
            ("results", [fresh]),
            ("next_validators", [fresh]),
            ("", [old]),
            ("", [fresh, fresh]),
        ]
    )
    block = _block(world, core, txs)
    if wrong:
        effect = block.header.effect._replace(**{wrong: b"w" * 32})
        block = _block(world, core, txs, effect)
    bare = msg.Proposal(block.height, round_, -1, block, liar, b"")
    signature = world.sign(world.ledger.key(liar), bare.signed_bytes(world.ledger.chain))
    lie = msg.Proposal(block.height, round_, -1, block, liar, signature)
    for node in world.nodes:
        if node.honest and rng.random() < 0.8:
            world.deliver(liar, node, lie)


def _block(world: World, core: Core, txs: list[bytes], effect: Effect | None = None) -> Block:
    """The liar's block on top of a core's chain, right in all that is not said here."""
    (liar,) = world.liars
    header = Header(core.height + 1, 0, liar)
    return Block.make(
        chain=world.ledger.chain,
        height=header.height,
        previous=core._last_id,
        time_ms=0,
        proposer=liar,
        transactions=txs,
        effect=effect or execute(core.app, header, tuple(txs)).effect,
    )


def _forge(world: World) -> None:
    """The next block, with a certificate of one real signature and many false ones."""
    (liar,) = world.liars
    for node in world.nodes:
        if not node.honest or node.core is None:
            continue
        core = node.core
        tx = world.ledger.put(90_000 + world.rng.randrange(1000))
        block = _block(world, core, [tx])
        bare = msg.Vote(PRECOMMIT, block.height, 0, block.id, liar, b"")
        own = world.sign(world.ledger.key(liar), bare.signed_bytes(world.ledger.chain))
        signatures = tuple((uid, own) for uid in sorted(core.validators))
        stuffed = Certificate(block.height, 0, block.id, signatures)
        lie = msg.Blocks(((block.encoded, stuffed.encode()),))
        world.deliver(liar, node, lie)
