"""Commands for an Ethereum-compatible network: new-account, deploy-contract, writer, anchor.

None of them is needed while a swarm runs: they prepare a network for being its orderer, or write
down there what the embedded orderer has decided.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cryptography.hazmat.primitives.serialization import Encoding

from swarm import log as logs
from swarm.audit.remote import Remote
from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, key_fingerprint
from swarm.identity.files import read_certificates
from swarm.ledger.block import Block
from swarm.ledger.ethereum import anchors, contract, deploy
from swarm.ledger.ethereum.account import Account
from swarm.ledger.ethereum.client import Client
from swarm.ledger.ethereum.urls import end_points

log = logging.getLogger("swarm.anchor")

RPC = "SWARM_ETH_RPC"
EVERY = 100  # heights
LOOK_SECONDS = 5.0  # between two looks at the ledger
RETRY_SECONDS = 10.0


def new_account(argv: Sequence[str]) -> int:
    """Execute `swarm ledger new-account`; the exit status. Raises LocalError."""
    parser = argparse.ArgumentParser(
        prog="swarm ledger new-account", description="Make an account: a private key in a file."
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    print(Account.create(args.file).address)
    return 0


def deploy_contract(argv: Sequence[str]) -> int:
    """Execute `swarm ledger deploy-contract`; the exit status. Raises LocalError."""
    parser = argparse.ArgumentParser(
        prog="swarm ledger deploy-contract",
        description="Deploy the log contract. Its account administers it and may write.",
    )
    _add_network(parser, with_contract=False)
    parser.add_argument(
        "--cert", type=Path, required=True, metavar="FILE", help="certificate of the first writer"
    )
    args = parser.parse_args(argv)
    with _network(args) as (client, account):
        made = deploy.deploy(client, account, _fingerprint(args.cert))
        where = f"network {client.chain_id()}, block {made.block}, {made.gas} gas"
    print(f"{made.address}  ({where})")
    return 0


def writer(argv: Sequence[str]) -> int:
    """Execute `swarm ledger writer`; the exit status. Raises LocalError."""
    parser = argparse.ArgumentParser(
        prog="swarm ledger writer",
        description="Let another account write to the contract, or end that.",
    )
    parser.add_argument("action", choices=("add", "remove"))
    parser.add_argument("account", metavar="ADDRESS")
    _add_network(parser)
    parser.add_argument(
        "--cert", type=Path, metavar="FILE", help="certificate of the account's owner, for add"
    )
    args = parser.parse_args(argv)
    address = contract.checked_address(args.account, "ADDRESS")
    word = contract.address_word(address)
    if args.action == "remove":
        data = contract.call("remove(address)", word)
    elif args.cert is None:
        parser.error("add needs --cert: an account belongs to a member")
    else:
        data = contract.call("register(address,bytes32)", word, _fingerprint(args.cert))
    with _network(args) as (client, account):
        deploy.check_contract(client, args.contract)
        gas = deploy.execute(client, account, args.contract, data)
    done = "may write now" if args.action == "add" else "may not write any more"
    print(f"{address} {done} ({gas} gas)")
    return 0


def anchor(argv: Sequence[str]) -> int:
    """Execute `swarm ledger anchor`: runs until a signal. Raises LocalError."""
    parser = argparse.ArgumentParser(
        prog="swarm ledger anchor",
        description="Write the id of every Nth block of a ledger into the contract.",
    )
    _add_network(parser)
    parser.add_argument("--sn", required=True, metavar="HOST:PORT", help="API of a network node")
    parser.add_argument("--cert", type=Path, required=True, metavar="FILE", help="own certificate")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="own key")
    parser.add_argument("--capath", type=Path, metavar="DIR", help="CA certificates")
    parser.add_argument("--cacert", type=Path, metavar="FILE", help="the same in one file")
    parser.add_argument(
        "--every", type=_positive, default=EVERY, metavar="N", help=f"heights (default {EVERY})"
    )
    parser.add_argument("--once", action="store_true", help="write one anchor, then end")
    args = parser.parse_args(argv)
    host, _, port = args.sn.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--sn {args.sn}: not HOST:PORT")
    identity = Identity.load(args.cert, args.key, capath=args.capath, cacert=args.cacert)
    logs.configure()
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with _network(args) as (client, account):
        deploy.check_contract(client, args.contract)
        if not deploy.is_writer(client, args.contract, account.address):
            raise LocalError("SW3106", f"account {account.address}, contract {args.contract}")
        work = Anchoring(client, account, args.contract, args.every)
        while not ended.is_set():
            try:
                with Remote(identity, host.strip("[]"), int(port)) as remote:
                    work.follow(remote, ended, once=args.once)
                if args.once:
                    return 0
            except RemoteError as error:
                if args.once:
                    raise LocalError(error.code, error.cause) from None
                log.warning("%s", error)
                ended.wait(RETRY_SECONDS)
    return 0


class Anchoring:
    """Writes anchors of one ledger."""

    def __init__(self, client: Client, account: Account, address: str, every: int) -> None:
        self._client = client
        self._account = account
        self._address = address
        self._every = every
        self._done: int | None = None  # the height of the last anchor

    def follow(self, remote: Remote, ended: threading.Event, *, once: bool = False) -> None:
        """Anchor the newest block that is due, again and again, until `ended`. RemoteError."""
        chain = remote.genesis.chain_id
        if self._done is None:
            known = anchors.read(self._client, self._address, chain)
            self._done = known[-1].height if known else 0
            log.info("the ledger %s is anchored up to height %d", chain.hex()[:16], self._done)
        while not ended.is_set():
            height = remote.refresh()
            due = height if once else height - height % self._every
            if due > self._done:
                self._write(remote, chain, due)
            elif once and due:
                log.info("there is no newer block to anchor")
            if once and due:  # an empty ledger will have its first block soon
                return
            ended.wait(LOOK_SECONDS)

    def _write(self, remote: Remote, chain: bytes, height: int) -> None:
        block = Block.decode(next(remote.pairs(height - 1)).block)
        if block.height != height or block.chain != chain:
            raise RemoteError("SW5004", f"the network node gave another block than {height}")
        data = anchors.Anchor(chain, height, block.id).encode()
        gas = deploy.execute(self._client, self._account, self._address, contract.append_call(data))
        self._done = height
        log.info("anchored block %d, %s (%d gas)", height, block.id.hex(), gas)


def add_anchors(parser: argparse.ArgumentParser) -> None:
    """The options by which `swarm ledger verify` reads anchors."""
    parser.add_argument("--anchor-rpc", metavar="URL", help="Ethereum node to read anchors from")
    parser.add_argument("--anchor-contract", metavar="ADDRESS", help="contract that holds them")
    parser.add_argument(
        "--anchor-account",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="account whose anchors count (default: every writer's); may be repeated",
    )


def expected_by_anchors(args: argparse.Namespace, chain: bytes) -> Mapping[int, bytes]:
    """Block ids that anchors name, by height; nothing without the options. Raises LocalError."""
    if args.anchor_rpc is None and args.anchor_contract is None:
        return {}
    if args.anchor_rpc is None or args.anchor_contract is None:
        raise LocalError("SW5101", "--anchor-rpc and --anchor-contract belong together")
    address = contract.checked_address(args.anchor_contract, "--anchor-contract")
    of = [contract.checked_address(one, "--anchor-account") for one in args.anchor_account]
    client = Client(end_points(args.anchor_rpc), None)
    try:
        return {a.height: a.block_id for a in anchors.read(client, address, chain, of)}
    except RemoteError as error:
        raise LocalError(error.code, error.cause) from None
    finally:
        client.close()


def _add_network(parser: argparse.ArgumentParser, *, with_contract: bool = True) -> None:
    parser.add_argument(
        "--rpc",
        default=os.environ.get(RPC, ""),
        metavar="URL[,URL]",
        help=f"Ethereum nodes; the variable {RPC} keeps them out of the list of processes",
    )
    parser.add_argument(
        "--account-key", type=Path, required=True, metavar="FILE", help="account that pays"
    )
    if with_contract:
        parser.add_argument("--contract", required=True, metavar="ADDRESS")


@contextmanager
def _network(args: argparse.Namespace) -> Iterator[tuple[Client, Account]]:
    """Network and account that a command line names. What others are to blame for ends it, too."""
    if not args.rpc:
        raise LocalError("SW5101", f"--rpc is missing, and {RPC} is not set")
    if "contract" in args:
        args.contract = contract.checked_address(args.contract, "--contract")
    account = Account.load(args.account_key)
    client = Client(end_points(args.rpc), None)
    try:
        yield client, account
    except RemoteError as error:
        raise LocalError(error.code, error.cause) from None
    finally:
        client.close()


def _fingerprint(path: Path) -> bytes:
    der = read_certificates(path)[0].public_bytes(Encoding.DER)
    return bytes.fromhex(key_fingerprint(der))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of heights")
    return int(text)
