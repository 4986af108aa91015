"""`swarm ledger recover` and `swarm ledger accept`: going on after the quorum was lost for good.

Both work on the data directory of a stopped node and change nothing before everything is checked
and confirmed. `swarm/ledger/recovery.py` has the rules.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, Role, node_uid, verify_signature
from swarm.ledger import directory, recovery
from swarm.ledger.application import LedgerApplication, execute
from swarm.ledger.block import Block
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.algorithm import Config, Now, Resume
from swarm.ledger.consensus.core import Core
from swarm.ledger.consensus.quorum import quorum
from swarm.ledger.genesis import Genesis
from swarm.ledger.recovery import INVALID, Draft, Name, recovery_of
from swarm.ledger.state.recoveries import OPERATION
from swarm.ledger.state.verdict import Header
from swarm.ledger.store import FILE, Store
from swarm.ledger.transaction import SignedTransaction, Transaction

EXPIRES_AHEAD = 1000  # heights
WORD = "recover"  # what a person types to agree

WARNING = """\
This is for validators that are lost for good. If those that are dropped still run somewhere and are
{quorum} or more, they go on without you, and there are two ledgers from here on; nothing on this
host can tell. What only they had committed is given up."""


class Opened(NamedTuple):
    """The ledger of a stopped node."""

    data_dir: Path
    genesis: Genesis
    store: Store
    app: LedgerApplication
    resume: Resume
    keys: dict[str, bytes]  # of the validators of the next height

    def name_of(self, uid: str) -> str:
        record = self.app.state.get("nodes", uid)
        return f"{record['name']} ({uid})" if record and record["name"] else uid


def recover(argv: Sequence[str]) -> int:
    """Execute `swarm ledger recover`; the exit status. Raises LocalError."""
    args = _parser().parse_args(argv)
    with _local(), _open(args.data_dir) as ledger:
        identity = _identity(args)
        uid = node_uid(identity.fingerprint)
        if args.apply is None and uid not in ledger.keys:
            raise LocalError(
                INVALID, f"{identity.common_name} ({uid}) is no validator of {args.data_dir}"
            )
        if args.apply is not None:
            draft = _read(args.apply, ledger)
            _complete(draft)
            return _carry_out(ledger, draft, uid, args.yes)
        if args.co_sign is not None:
            return _co_sign(ledger, args.co_sign, identity, args.yes)
        if not args.reason:
            raise LocalError(INVALID, "--reason is missing: it is recorded on the ledger")
        return _begin(ledger, identity, args)


def accept(argv: Sequence[str]) -> int:
    """Execute `swarm ledger accept`; the exit status. Raises LocalError."""
    parser = argparse.ArgumentParser(
        prog="swarm ledger accept",
        description="Let a stopped node follow a recovery that it was not asked for.",
    )
    parser.add_argument("data_dir", type=Path, metavar="DATA_DIR")
    parser.add_argument("recovery", metavar="RECOVERY", help="<height>-<block id>")
    args = parser.parse_args(argv)
    with _local(), _open(args.data_dir) as ledger:
        name = Name.parse(args.recovery)
        own = ledger.store.block(name.height)
        if own is not None and own[0].id != name.block_id:
            raise LocalError(
                INVALID,
                f"this node has committed another block at height {name.height}; it cannot follow "
                "and has to rejoin with a fresh data directory",
            )
        directory.accept(args.data_dir, name)
    print(f"Accepted {name}. The node follows it from its next start on.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swarm ledger recover",
        description="Go on with the surviving validators when a quorum is lost for good. Works on "
        "the data directory of a stopped network node.",
    )
    parser.add_argument("data_dir", type=Path, metavar="DATA_DIR")
    parser.add_argument("--cert", type=Path, help="certificate of this node (or SWARM_ID_CERT)")
    parser.add_argument("--key", type=Path, help="its key (or SWARM_ID_KEY)")
    parser.add_argument("--capath", type=Path, help="directory of trusted CAs")
    parser.add_argument("--cacert", type=Path, help="file of trusted CAs")
    parser.add_argument("--reason", help="why, for the record")
    parser.add_argument(
        "--validators",
        help="names or uids of all survivors, separated by commas (default: this node alone)",
    )
    parser.add_argument("--file", type=Path, help="recovery file to write for other survivors")
    parser.add_argument("--co-sign", type=Path, metavar="FILE", help="agree to a recovery file")
    parser.add_argument("--apply", type=Path, metavar="FILE", help="carry out a signed one")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser


# ---------------------------------------------------------------------- steps


def _begin(ledger: Opened, identity: Identity, args: argparse.Namespace) -> int:
    """Make the recovery block; carry it out, or write it for the other survivors."""
    uid = node_uid(identity.fingerprint)
    survivors = _survivors(ledger, args.validators, uid)
    block = make_block(ledger, identity, survivors, args.reason)
    draft = Draft(ledger.genesis.chain_id, block, {})
    if survivors == [uid]:
        return _carry_out(ledger, _signed(draft, identity), uid, args.yes)
    _show(ledger, draft)
    _confirm(args.yes)
    path = args.file or Path(f"recovery-{block.height}.json")
    _write(path, _signed(draft, identity))
    print(f"Signed, and written to {path}. Each other survivor co-signs it, then all apply it:")
    print(f"  swarm ledger recover DATA_DIR --co-sign {path}")
    print(f"  swarm ledger recover DATA_DIR --apply {path}")
    return 0


def _co_sign(ledger: Opened, path: Path, identity: Identity, yes: bool) -> int:
    draft = _read(path, ledger)
    uid = node_uid(identity.fingerprint)
    if uid not in draft.missing:
        state = "has signed it already" if uid in draft.signatures else "is not one that stays"
        raise LocalError(INVALID, f"{ledger.name_of(uid)} {state}")
    _show(ledger, draft)
    _confirm(yes)
    draft = _signed(draft, identity)
    _write(path, draft)
    left = ", ".join(ledger.name_of(one) for one in draft.missing)
    print(
        f"Signed. Still missing: {left}" if left else "Signed by all survivors: apply it on each."
    )
    return 0


def _carry_out(ledger: Opened, draft: Draft, uid: str, yes: bool) -> int:
    """Write the certified block, through the same core that takes blocks from peers."""
    _show(ledger, draft)
    _confirm(yes)
    block, name = draft.block, Name.of(draft.block)
    certificate = recovery.certificate_of(block, draft.signatures)
    config = Config(
        uid, ledger.genesis.chain_id, ledger.genesis.timing, _never, verify_signature,
        frozenset({name.block_id}),
    )  # fmt: skip
    core = Core(config, ledger.app, ledger.resume)
    message = msg.Blocks(((block.encoded, certificate.encode()),))
    effects = core.receive("recovery", message, Now(0.0, 0))
    wrong = [e.cause for e in effects if isinstance(e, fx.Halt)]
    wrong += [e.error.cause for e in effects if isinstance(e, fx.Blame)]
    if wrong or core.height != block.height:
        raise LocalError(INVALID, "; ".join(wrong) or "the block was not taken")
    kept: list[fx.Effect] = [effect for effect in effects if isinstance(effect, fx.Commit)]
    if ledger.resume.vote_from is None and uid not in draft.missing:
        # Its store was new, so that it waited for others who will never answer now. Before this
        # block it may have voted, after it nobody has.
        kept.append(fx.WriteVoting(block.height + 1, 0))
    directory.accept(ledger.data_dir, name)
    ledger.store.write(kept)
    print(f"Done: block {block.height} is {block.id.hex()}. Start the node.")
    print("Network nodes that were not asked follow when their operators run")
    print(f"  swarm ledger accept DATA_DIR {name}")
    return 0


def make_block(ledger: Opened, identity: Identity, survivors: Sequence[str], reason: str) -> Block:
    """The block that drops everybody but the survivors. Raises RemoteError."""
    app, chain = ledger.app, ledger.genesis.chain_id
    args = {"validators": list(survivors), "reason": reason}
    transaction = Transaction.new(chain, app.height + EXPIRES_AHEAD, OPERATION, args)
    tx = SignedTransaction.sign(identity, transaction).encode()
    app.identify(tx)
    header = Header(
        app.height + 1,
        max(int(time.time() * 1000), ledger.resume.last_time_ms),
        node_uid(identity.fingerprint),
        recovery=True,
    )
    done = execute(app, header, (tx,))
    verdict = done.outcome.verdicts[0]
    if not verdict.ok:
        raise RemoteError(INVALID, f"{verdict.code}: {verdict.text}")
    return Block.make(
        chain=chain,
        height=header.height,
        previous=ledger.resume.last_id,
        time_ms=header.time_ms,
        proposer=header.proposer,
        transactions=[tx],
        effect=done.effect,
    )


def _survivors(ledger: Opened, asked: str | None, me: str) -> list[str]:
    """Uids of those that stay, sorted. Raises LocalError for strangers."""
    names: dict[str, list[str]] = {}
    for uid in ledger.keys:
        record = ledger.app.state.get("nodes", uid)
        for name in {uid, record["name"] if record else uid}:
            names.setdefault(name, []).append(uid)
    chosen = {me}
    for word in (asked or "").split(","):
        found = names.get(word.strip(), [])
        if word.strip() and len(found) != 1:
            what = "several validators" if found else "no validator"
            raise LocalError(INVALID, f"{word.strip()} is the name or uid of {what}")
        chosen.update(found)
    if chosen == set(ledger.keys):
        raise LocalError(INVALID, "all validators would stay: nothing is lost")
    return sorted(chosen)


# ---------------------------------------------------------------------- small things


def _signed(draft: Draft, identity: Identity) -> Draft:
    signature = identity.sign(recovery.signed_bytes(draft.block))
    uid = node_uid(identity.fingerprint)
    return replace(draft, signatures={**draft.signatures, uid: signature})


def _complete(draft: Draft) -> None:
    if draft.missing:
        raise LocalError(INVALID, f"{', '.join(draft.missing)} must co-sign it first")


def _never(data: bytes) -> bytes:
    raise AssertionError("taking a block signs nothing")


def _show(ledger: Opened, draft: Draft) -> None:
    """Print what is going to happen."""
    found = recovery_of(draft.block)
    assert found is not None, "made or read as one"
    dropped = [ledger.name_of(uid) for uid in ledger.keys if uid not in found.validators]
    state, block = ledger.app.state, draft.block
    rows = [
        ("Network", f"{state.chain.hex()[:16]} ({state.fault_model})"),
        ("Last block", f"{state.height}, {ledger.resume.last_id.hex()}"),
        ("Recovery", f"block {block.height}, {block.id.hex()}"),
        ("Stays", ", ".join(ledger.name_of(uid) for uid in found.validators)),
        ("Dropped", ", ".join(dropped)),
        ("Reason", found.reason),
    ]
    unfinished = ledger.resume.lock.valid_block
    if unfinished is not None:
        rows.append(
            (
                "Given up",
                f"block {unfinished.height}, which was nearly decided, with "
                f"{len(unfinished.transactions)} transactions: send them again",
            )
        )
    for title, text in rows:
        print(f"{title:<11} {text}")
    print(WARNING.format(quorum=quorum(len(ledger.keys), state.fault_model)))
    sys.stdout.flush()


def _confirm(yes: bool) -> None:
    if yes:
        return
    print(f'Type "{WORD}" to go on: ', end="", flush=True)
    if sys.stdin.readline().strip() != WORD:
        raise LocalError(INVALID, "not confirmed")


def _read(path: Path, ledger: Opened) -> Draft:
    """A recovery file that fits this ledger. Raises LocalError, RemoteError."""
    try:
        with path.open("rb") as file:
            draft = Draft.decode(file.read(recovery.MAX_FILE))
    except OSError as error:
        raise LocalError(INVALID, f"{path}: {error}") from error
    if draft.chain != ledger.genesis.chain_id:
        raise LocalError(INVALID, f"{path} is of another swarm")
    wrong = recovery.problem(ledger.app, ledger.resume.last_id, draft.block)
    if wrong:
        raise LocalError(
            INVALID,
            f"{path}: {wrong}. A node that is behind gets the missing blocks when it runs beside "
            "one that has them, also without a quorum",
        )
    recovery.check_signatures(draft.block, draft.signatures, ledger.keys, verify_signature)
    return draft


def _write(path: Path, draft: Draft) -> None:
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(draft.encode())
        fresh.replace(path)
    except OSError as error:
        raise LocalError(INVALID, f"{path}: {error}") from error


def _identity(args: argparse.Namespace) -> Identity:
    given = {
        f"SWARM_ID_{name.upper()}": str(value)
        for name in ("cert", "key", "capath", "cacert")
        if (value := getattr(args, name)) is not None
    }
    return Identity.from_env({**os.environ, **given}, role=Role.SN, keys=args.data_dir)


@contextmanager
def _open(data_dir: Path) -> Iterator[Opened]:
    """The ledger of a stopped node; it is closed again. Raises LocalError."""
    genesis = directory.genesis_of(data_dir)
    if genesis is None or not (data_dir / FILE).exists():
        raise LocalError("SW3010", f"{data_dir} holds no ledger")
    if genesis.order is not None:
        raise LocalError(
            INVALID, "this ledger's order comes from outside: it has no quorum to lose"
        )
    store, app = directory.open_store(data_dir, genesis)
    try:
        keys = store.validators(app.height + 1)
        yield Opened(data_dir, genesis, store, app, store.resume(), keys)
    finally:
        store.close()


@contextmanager
def _local() -> Iterator[None]:
    """What is wrong with a file or an argument is this side's mistake, whoever made the file."""
    try:
        yield
    except RemoteError as error:
        raise LocalError(error.code, error.cause) from error
