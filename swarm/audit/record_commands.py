"""`swarm record export`, `swarm record verify`: the command lines."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swarm.audit import model, record
from swarm.audit.commands import add_blocks, add_node, add_trust, local, source_of, trust_of
from swarm.audit.derive import authority_name
from swarm.errors import LocalError
from swarm.ledger.block import Block, BlockHeader

WRONG_MODEL = "SW3204"
UNEXPECTED = "SW3203"


def export_record(argv: Sequence[str]) -> int:
    """Execute `swarm record export`; the exit status. Raises LocalError."""
    parser = argparse.ArgumentParser(
        prog="swarm record export",
        description="Write what a training was, with all that proves it, to one file.",
    )
    parser.add_argument("source", type=Path, nargs="?", metavar="LEDGER")
    parser.add_argument("--contract", required=True, metavar="NAME")
    parser.add_argument(
        "--until", type=int, metavar="HEIGHT", help="read no further: for a training before a reset"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: NAME.record.json")
    add_node(parser)
    args = parser.parse_args(argv)
    with local(), source_of(args, parser) as source:
        made = record.export(source, args.contract, until=args.until)
    out = args.out or Path(f"{args.contract}.record.json")
    record.write(made, out)
    print(f"{out}: {len(made['summary']['rounds'])} rounds, result {made['summary']['result']}")
    return 0


def verify_record(argv: Sequence[str]) -> int:
    """Execute `swarm record verify`; the exit status. Raises LocalError."""
    parser = argparse.ArgumentParser(
        prog="swarm record verify",
        description="Check a record with nothing but the CAs' certificates, and the model.",
    )
    parser.add_argument("file", type=Path, metavar="RECORD")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--model", type=Path, metavar="FILE", help="the model, a .keras file")
    group.add_argument("--weights", type=Path, metavar="FILE", help="its weights, a .npz file")
    add_trust(parser)
    add_blocks(parser)
    args = parser.parse_args(argv)
    authorities = trust_of(args).ca_ders
    told = record.read(args.file)
    with local():
        summary = record.check(told, authorities)
        expect(told, summary, dict(args.block))
    print("\n".join(lines(summary, authorities)))
    if args.model is None and args.weights is None:
        print("model        not compared; give --model or --weights")
        return 0
    path = args.model or args.weights
    read = model.read_keras if args.model else model.read_npz
    transfer = str(summary["rules"]["merge_args"].get("transferDtype", ""))
    problem = model.difference(read(path), summary["model"], summary["result"], transfer)
    if problem:
        raise LocalError(WRONG_MODEL, f"{path}: {problem}")
    print(f"model        {path} is the recorded result, bit for bit")
    return 0


def expect(told: Mapping[str, Any], summary: Mapping[str, Any], blocks: dict[int, bytes]) -> None:
    """Blocks known from elsewhere must be those of the record. Raises LocalError SW3203."""
    found = {}
    for item in told["evidence"]["blocks"]:
        raw = item.get("header")
        header = (
            BlockHeader.decode(bytes.fromhex(raw))
            if raw
            else Block.decode(bytes.fromhex(item["recovery"])).header
        )
        found[header.height] = header.id
    for height, block_id in blocks.items():
        if found.get(height, block_id) != block_id:
            raise LocalError(UNEXPECTED, f"height {height}: the block is not the one expected")
        if height not in found:
            raise LocalError(
                UNEXPECTED,
                f"block {height} is not in the record, which uses blocks "
                f"{', '.join(map(str, sorted(found)))}",
            )


def lines(summary: Mapping[str, Any], authorities: Mapping[str, bytes]) -> list[str]:
    """A record for people."""
    rules = summary["rules"]
    told = [
        f"contract     {summary['contract']}, {summary['status']}",
        f"chain        {summary['chain']}",
        f"as of        height {summary['height']}, block {summary['block']}",
        f"rules        minPeers {rules['min_peers']}, mergeMethod {rules['merge_method']}"
        + (f" {rules['merge_args']}" if rules["merge_args"] else ""),
    ]
    for member in summary["members"].values():
        name = authority_name(authorities[member["organisation"]])
        told.append(f"member       {member['name']}: {member['certificate']}, of {name}")
    names = {uid: member["name"] for uid, member in summary["members"].items()}
    for one in summary["rounds"]:
        roster = ", ".join(
            names[e["uid"]] + (f" ({e['samples']} samples)" if e["samples"] else "")
            for e in one["roster"]
        )
        told.append(
            f"round {one['round']:<6} {one['result'][:16]}… from {roster}; signed by "
            f"{', '.join(names[uid] for uid in one['agreed'])}"
        )
    told += [f"RECOVERY     {one}; validators were given up: ask them" for one in
             summary["recoveries"]]  # fmt: skip
    told.append(f"result       {summary['result']}")
    # What members call themselves must not steer the reader's terminal.
    return ["".join(c if c.isprintable() else "?" for c in line) for line in told]
