"""Imports point one way: `identity` ← `ledger` ← `mesh` ← `sentinel`; `api` ← `learner`, `swop`,
`swci`; nothing imports a daemon; the library inside the user's program imports none of them.

Read from the sources, so that an import inside a function counts like one at the top.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("swarm", "sentinel", "swop", "swci", "certs", "swarmlearning")
COMMON = {"swarm.errors", "swarm.error_catalogue", "swarm.log", "swarm.bucket", "swarm.address",
          "swarm.logfile", "swarm.guests", "swarm.inherited", "swarm.pulse"}  # fmt: skip

# Of files: there is nothing of a daemon in them.
FORMATS = ("swop.profile", "swop.located_yaml")

# A part, and the parts that it may import beside itself and COMMON. The longest name that fits a
# module says which part it is in.
ALLOWED: dict[str, set[str]] = {
    "swarm": COMMON,
    "swarm.identity": set(),
    "swarm.ledger": {"swarm.identity", "swarm.mesh.port"},
    "swarm.ledger.state": {"swarm.identity", "swarm.ledger.codec", "swarm.ledger.genesis",
                           "swarm.ledger.merkle", "swarm.ledger.transaction",
                           # Without state or effects: arithmetic, and a form of signed data.
                           "swarm.ledger.consensus.quorum", "swarm.ledger.consensus.statement"},
    "swarm.mesh": {"swarm.identity", "swarm.ledger"},
    "swarm.mesh.port": {"swarm.identity"},
    # Narrow floats are arithmetic that programs and learners share.
    "swarm.merge": {"swarm.identity", "swarmlearning.narrow"},
    "swarm.api": {"swarm.identity", "swarm.ledger.codec", "swarm.ledger.transaction"},
    "swarm.learner": {"swarm.identity", "swarm.api", "swarm.merge", "swarmlearning.link",
                      "swarmlearning.tensors", "swarmlearning.narrow"},
    "swarm.audit": {"swarm.identity", "swarm.ledger", "swarm.api", "swarm.merge.blocks",
                    "swarmlearning.tensors"},
    "swarm.launch": {"swarm.identity", "certs"},
    "swarm.collect": {"swarm.identity", "swarm.launch"},
    # A whole host from one file: above the commands that start single nodes, which only name it.
    "swarm.host": {"swarm.identity", "swarm.api", "swarm.launch", "certs", *FORMATS},
    "sentinel": {"swarm.identity", "swarm.ledger", "swarm.mesh", "swarm.api"},
    "swop": {"swarm.identity", "swarm.api"},
    "swci": {"swarm.identity", "swarm.api"},
    "certs": {"swarm.identity"},
    "swarmlearning": set(),
}  # fmt: skip
DAEMONS = ("sentinel", "swop", "swci", "swarm.learner")


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def part_of(module: str) -> str:
    return max((part for part in ALLOWED if within(module, part)), key=len)


def imports(module: str) -> Iterator[str]:
    """Full names of what a module imports: modules, or names in them."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


def ours(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES


@pytest.mark.parametrize("module", sorted(MODULES))
def test_direction(module: str) -> None:
    part = part_of(module)
    allowed = {part, *ALLOWED[part], *COMMON}
    for name in filter(ours, imports(module)):
        # A part within this one may have rules of its own about what it imports, and is ours.
        assert any(within(name, one) for one in allowed), f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_imports_a_daemon(module: str) -> None:
    for name in imports(module):
        for daemon in DAEMONS:
            if not within(module, daemon):
                foreign = within(name, daemon) and not any(within(name, one) for one in FORMATS)
                assert not foreign, f"{module} imports {name}"


def test_libp2p_stays_in_the_mesh() -> None:
    """It costs 60 MB and more than a second to import, and its work-arounds are there."""
    users = {m for m in MODULES if any(within(name, "libp2p") for name in imports(m))}
    assert users and all(within(module, "swarm.mesh") for module in users)
    assert "swarm.mesh.port" not in users


def test_the_state_machine_is_pure() -> None:
    """No clock, no randomness, no I/O, no threads: not even within reach."""
    forbidden = ("time", "datetime", "random", "secrets", "os", "pathlib", "socket", "threading",
                 "trio", "asyncio", "logging", "sqlite3", "uuid", "math", "decimal")  # fmt: skip
    for module in MODULES:
        if within(module, "swarm.ledger.state"):
            for name in imports(module):
                assert not any(within(name, one) for one in forbidden), f"{module} imports {name}"


def test_the_library_needs_numpy_alone() -> None:
    """What goes into users' images: numpy, and the framework in the framework's own module."""
    frameworks = "tensorflow keras tf_keras torch torchmetrics transformers peft sklearn".split()
    frameworks += ["networkx", "matplotlib"]  # for one method of one class
    import sys

    for module in MODULES:
        if within(module, "swarmlearning"):
            for name in imports(module):
                top = name.partition(".")[0]
                known = top in sys.stdlib_module_names or top in ("numpy", "swarmlearning")
                assert known or top in frameworks, f"{module} imports {name}"
