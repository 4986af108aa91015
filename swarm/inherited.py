"""Variables that HPE's product knows and that have no effect here, each with the reason.

Nodes name those they find once, at their start, so that nobody believes in a setting that does
nothing. Values are not shown: they may be anything.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

NO_LEADER = "learners merge without a leader"
NO_LICENCE = "no licence is needed"
LINK = "learner and program share the directory SWARM_LINK"

WITHOUT_EFFECT: Mapping[str, str] = {
    "APISRV_CON_RETRY": "a learner waits for its network node as long as it takes",
    "METRICS_DIR": "a network node serves its figures at /metrics",
    "SL_LEADER_FAILURE_BASE_TIMEOUT": NO_LEADER,
    "SL_MAKE_ME_ADMIN": NO_LEADER,
    "SL_MODEL_PARAMS_COMPRESSION_THRESHOLD_MB": "transferDtype makes models smaller on their way",
    "SL_RAM_INTENSIVE": "no method of merging needs more memory than the mean",
    "SL_REQUEST_CHANNEL": LINK,
    "SL_RESPONSE_CHANNEL": LINK,
    "SN_START_MINING": "nothing is mined",
    "SWARM_LICENSE_AUTOPASSJ_SERVER_PRIMARY_IP": NO_LICENCE,
    "SWARM_LICENSE_AUTOPASSJ_SERVER_PRIMARY_PORT": NO_LICENCE,
    "SWARM_LICENSE_AUTOPASSJ_SERVER_SECONDARY_IP": NO_LICENCE,
    "SWARM_LICENSE_AUTOPASSJ_SERVER_SECONDARY_PORT": NO_LICENCE,
}
PREFIXES = ("SN", "SL", "SWOP", "SWCI")  # of variables that are meant for one component only


def notice(env: Mapping[str, str], component: str) -> str:
    """What to tell about the environment of this component (`SN`, `SL`, …); "" when nothing."""
    reasons: dict[str, list[str]] = {}
    for name, reason in WITHOUT_EFFECT.items():
        owner = name.partition("_")[0]
        if name in env and (owner == component or owner not in PREFIXES):
            reasons.setdefault(reason, []).append(name)
    if not reasons:
        return ""
    told = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
    return f"without effect here: {told}"


def tell(env: Mapping[str, str], component: str) -> None:
    """Log that notice."""
    if text := notice(env, component):
        logging.getLogger("swarm").info("%s", text)
