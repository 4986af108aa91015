"""The `swarm` command: what runs on this host as local processes, and its logs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from swarm.launch import logs
from swarm.launch.arguments import UsageError
from swarm.launch.plan import version

USAGE = """Usage: swarm init           write swarm.yaml: a whole host in one file
       swarm doctor          check this host before it trains
       swarm up              start what it describes, and wait until it is ready
       swarm down            stop that
       swarm status          the network on one screen, and what each thing waits for
       swarm logs [-f] [--tail <n>] [<name>]
                             the log of a node, an SL or an ML, running or removed; without a name,
                             what has a log here. -f: and what is to come; --tail: the last lines
       swarm collect         one archive with what helps to find a fault, and no secret
       swarm ledger recover  go on when a quorum is lost for good
       swarm ledger accept   follow such a recovery
       swarm ledger verify   check a whole ledger with nothing but the CAs' certificates
       swarm ledger export   write a ledger to one file
       swarm record export   write the record of a training, with its proofs, to one file
       swarm record verify   check such a record, and the model
       swarm ledger anchor   write block ids into an Ethereum-compatible network
       swarm ledger new-account | deploy-contract | writer    prepare such a network
       swarm cert request | sign | renew    certificates for keys that never leave their host
       swarm version         the installed version"""

# Imported when they are used: they know the whole ledger.
COMMANDS = {
    ("cert", "request"): "certs.commands:request",
    ("cert", "renew"): "certs.commands:renew",
    ("cert", "sign"): "certs.commands:sign",
    ("ledger", "recover"): "swarm.audit.recover:recover",
    ("ledger", "accept"): "swarm.audit.recover:accept",
    ("ledger", "verify"): "swarm.audit.commands:verify_ledger",
    ("ledger", "export"): "swarm.audit.commands:export_ledger",
    ("ledger", "anchor"): "swarm.audit.network:anchor",
    ("ledger", "new-account"): "swarm.audit.network:new_account",
    ("ledger", "deploy-contract"): "swarm.audit.network:deploy_contract",
    ("ledger", "writer"): "swarm.audit.network:writer",
    ("record", "export"): "swarm.audit.record_commands:export_record",
    ("record", "verify"): "swarm.audit.record_commands:verify_record",
}

HOST_COMMANDS = {
    "collect": "swarm.collect.command:main",
    "doctor": "swarm.host.doctor.command:main",
    "init": "swarm.host.init:main",
    "status": "swarm.host.status.command:main",
    "up": "swarm.host.commands:up",
    "down": "swarm.host.commands:down",
}


def main(argv: Sequence[str]) -> int:
    """Execute `swarm`; the exit status. Raises UsageError, LocalError."""
    match list(argv):
        case ["version"] | ["--version"]:
            print(version())
        case ["logs", *rest]:
            return logs.main(rest)
        case [command, *rest] if command in HOST_COMMANDS:
            return _execute(HOST_COMMANDS[command], rest)
        case [group, command, *rest] if (group, command) in COMMANDS:
            return _execute(COMMANDS[group, command], rest)
        case [] | ["--help"] | ["help"]:
            print(USAGE)
        case [command, *_]:
            raise UsageError(f"{command}: unknown command\n{USAGE}")
    return 0


def _execute(where: str, argv: Sequence[str]) -> int:
    """Execute `module:function`; its exit status."""
    module, _, function = where.partition(":")
    status: int = getattr(import_module(module), function)(argv)
    return status
