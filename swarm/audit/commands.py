"""`swarm ledger verify`, `swarm ledger export`: the command lines."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from swarm.audit.network import add_anchors, expected_by_anchors
from swarm.audit.remote import Remote
from swarm.audit.sources import Source, open_source, write_export
from swarm.audit.verify import WRONG, verify
from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity
from swarm.identity.trust import TrustStore

_BLOCK = re.compile(r"([1-9][0-9]{0,15}):([0-9a-f]{64})")


def verify_ledger(argv: Sequence[str]) -> int:
    """Execute `swarm ledger verify`; the exit status. Raises LocalError."""
    parser = argparse.ArgumentParser(
        prog="swarm ledger verify",
        description="Check a whole ledger: chain, certificates, signatures, and the state anew.",
    )
    parser.add_argument("source", type=Path, metavar="LEDGER", help="data directory or export")
    add_trust(parser)
    add_blocks(parser)
    add_anchors(parser)
    args = parser.parse_args(argv)
    with local():
        source = open_source(args.source)
        anchored = expected_by_anchors(args, source.genesis.chain_id)
        summary = verify(
            source,
            trust_of(args).ca_ders,
            expected=_agreed(anchored, dict(args.block)),
            say=lambda text: print(text, file=sys.stderr),
        )
    print("\n".join(summary.lines()))
    return 0


def _agreed(anchored: Mapping[int, bytes], given: Mapping[int, bytes]) -> dict[int, bytes]:
    """What anchors and the reader say. Raises LocalError SW3201 when they differ."""
    for height in anchored.keys() & given.keys():
        if anchored[height] != given[height]:
            raise LocalError(WRONG, f"height {height}: the anchor contradicts --block")
    return {**anchored, **given}


def export_ledger(argv: Sequence[str]) -> int:
    """Execute `swarm ledger export`; the exit status. Raises LocalError."""
    parser = argparse.ArgumentParser(
        prog="swarm ledger export", description="Write a ledger to one file."
    )
    parser.add_argument("source", type=Path, nargs="?", metavar="DATA_DIR")
    parser.add_argument("file", type=Path, metavar="FILE")
    add_node(parser)
    args = parser.parse_args(argv)
    with local(), source_of(args, parser) as source:
        height = write_export(args.file, source.genesis, source.recoveries, source.pairs())
    print(f"{args.file}: {height} blocks of chain {source.genesis.chain_id.hex()}")
    return 0


@contextmanager
def local() -> Iterator[None]:
    """What somebody else is to blame for ends a command, too."""
    try:
        yield
    except RemoteError as error:
        raise LocalError(error.code, error.cause) from None


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The certificates of CAs."""
    parser.add_argument("--capath", type=Path, metavar="DIR", help="CA certificates")
    parser.add_argument("--cacert", type=Path, metavar="FILE", help="the same in one file")


def add_blocks(parser: argparse.ArgumentParser) -> None:
    """Blocks that are known from elsewhere."""
    parser.add_argument(
        "--block",
        type=_block,
        action="append",
        default=[],
        metavar="HEIGHT:ID",
        help="a block id known from an anchor or a member, to be met; may be repeated",
    )


def add_node(parser: argparse.ArgumentParser) -> None:
    """A running network node, and who asks it."""
    parser.add_argument("--sn", metavar="HOST:PORT", help="read from this network node's API")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="own certificate, with --sn")
    parser.add_argument("--key", type=Path, metavar="FILE", help="own key, with --sn")
    add_trust(parser)


def trust_of(args: argparse.Namespace) -> TrustStore:
    """The CAs that the reader trusts. Raises LocalError SW1202, SW1212."""
    return TrustStore(capath=args.capath, cacert=args.cacert)


@contextmanager
def source_of(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Iterator[Source]:
    """The ledger that a command line names."""
    if (args.sn is None) == (args.source is None):
        parser.error("give a ledger or --sn HOST:PORT")
    if args.source is not None:
        yield open_source(args.source)
        return
    if args.cert is None or args.key is None:
        parser.error("--sn needs --cert and --key")
    host, _, port = args.sn.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--sn {args.sn}: not HOST:PORT")
    identity = Identity.load(args.cert, args.key, capath=args.capath, cacert=args.cacert)
    with Remote(identity, host.strip("[]"), int(port)) as remote:
        yield remote


def _block(text: str) -> tuple[int, bytes]:
    found = _BLOCK.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHT:ID with 64 hexadecimal digits")
    return int(found[1]), bytes.fromhex(found[2])
