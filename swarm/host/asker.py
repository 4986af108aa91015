"""Who asks the network, and whom: from options, or from the host's file."""

from __future__ import annotations

import argparse
from pathlib import Path

from swarm.errors import LocalError
from swarm.host.hostfile import FILE_NAME, ReadHost, read_host, split_place
from swarm.host.init import places_in
from swarm.identity import Identity
from swarm.launch.arguments import UsageError

ROLES = ("swci", "swop", "sn", "sl")  # in the order in which a host's file is searched


def add_options(parser: argparse.ArgumentParser) -> None:
    """Flags for an identity and network nodes; without them the host's file says both."""
    parser.add_argument(
        "-f", "--file", type=Path, default=Path(FILE_NAME), metavar="FILE",
        help=f"the host's file (default: {FILE_NAME})",
    )  # fmt: skip
    parser.add_argument(
        "--sn", default="", metavar="SN,SN", help="API addresses of network nodes, host[:port]"
    )
    parser.add_argument("--cert", type=Path, help="any certificate of the network")
    parser.add_argument("--key", type=Path, help="its key")
    parser.add_argument("--capath", type=Path, help="directory of trusted CA certificates")
    parser.add_argument("--cacert", type=Path, help="file of trusted CA certificates")


def asker_of(args: argparse.Namespace) -> tuple[Identity, list[tuple[str, int]]]:
    """Identity and network nodes. Raises LocalError, UsageError."""
    try:
        places = [split_place(place) for place in places_in(args.sn)]
    except ValueError as error:
        raise UsageError(f"--sn: {error}") from error
    if args.cert is not None:
        if args.key is None:
            raise UsageError("--cert needs --key")
        if not places:
            raise UsageError("--cert needs --sn, which says whom to ask")
        identity = Identity.load(args.cert, args.key, capath=args.capath, cacert=args.cacert)
        return identity, places
    read = read_host(args.file)
    return _of_host(read), [*places, *_places(read)]


def _places(read: ReadHost) -> list[tuple[str, int]]:
    node = read.host.network_node
    return [read.api, *map(split_place, node.join if node is not None else ())]


def _of_host(read: ReadHost) -> Identity:
    """The first identity of a host that can be used. Raises the last one's LocalError."""
    fault: LocalError | None = None
    for role in ROLES:
        cert, key = read.identity(role)
        try:
            return Identity.load(cert, key, capath=read.capath)
        except LocalError as error:
            fault = error
    assert fault is not None, "there are roles"
    raise fault
