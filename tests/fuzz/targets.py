"""All targets, by name: every parser of what a peer, a client or a user can send."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz import audit_targets, ledger_targets, mesh_targets, text_targets
from tests.fuzz.target import Target

ALL: Mapping[str, Target] = {
    target.name: target
    for module in (ledger_targets, mesh_targets, text_targets, audit_targets)
    for target in module.TARGETS
}
