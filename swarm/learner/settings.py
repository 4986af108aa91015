"""What the learner is told by its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swarm.address import service_address
from swarm.errors import LocalError
from swarm.learner.knowledge import GRACE
from swarmlearning import link

API_PORT = 30304
FS_PORT = 30305


@dataclass(frozen=True)
class Settings:
    """See `from_env` for the variables."""

    sn_host: str
    sn_port: int
    host: str  # announced to other learners
    port: int  # announced
    listen_host: str
    listen_port: int
    name: str
    folder: Path
    grace: float

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Read and check the variables. Raises LocalError SW6010.

        SN_NODE_IP, SN_API_SERVER_PORT: a network node · THIS_NODE_IP, SL_FS_PORT: where others
        reach this learner · SN_API_SERVICE, SL_FS_SERVICE: the same behind a reverse proxy, as
        name[:port]; each comes before its pair · SWARM_LISTEN, SL_LISTEN_PORT: where it listens ·
        SWARM_NODE_NAME: its name · SWARM_LINK: directory shared with the program ·
        SL_WAIT_FOR_FULL_QUORUM_SECONDS: patience for absent members once minPeers have checked in.
        """
        sn_host, sn_port = _address(
            env, "SN_API_SERVICE", "SN_NODE_IP", "SN_API_SERVER_PORT", API_PORT
        )
        host, announced = _address(env, "SL_FS_SERVICE", "THIS_NODE_IP", "SL_FS_PORT", FS_PORT)
        grace = env.get("SL_WAIT_FOR_FULL_QUORUM_SECONDS") or str(GRACE)
        try:
            seconds = float(grace)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < 1e9:
            raise LocalError(
                "SW6010", f"SL_WAIT_FOR_FULL_QUORUM_SECONDS is {grace!r}, expected seconds"
            )
        return cls(
            sn_host=sn_host,
            sn_port=sn_port,
            host=host,
            port=announced,
            listen_host=env.get("SWARM_LISTEN") or "0.0.0.0",  # noqa: S104 - published by intent
            listen_port=_port(env, "SL_LISTEN_PORT", FS_PORT),
            name=env.get("SWARM_NODE_NAME") or f"sl-{announced}",
            folder=link.directory(env),
            grace=seconds,
        )


def _address(
    env: Mapping[str, str], service: str, host: str, port: str, default: int
) -> tuple[str, int]:
    """The service that is named, else host and port."""
    if text := env.get(service, ""):
        try:
            return service_address(text)
        except ValueError as error:
            raise LocalError("SW6010", f"{service}: {error}") from None
    if not env.get(host):
        raise LocalError("SW6010", f"{host} is not set, nor is {service}")
    return env[host], _port(env, port, default)


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise LocalError("SW6010", f"{name} is {text!r}, expected a port number")
    return int(text)
