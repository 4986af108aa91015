"""`python -m swop`: the operator, configured by its environment (see `settings.py`)."""

from __future__ import annotations

import logging
import os
import signal
import sys
from importlib import metadata
from types import FrameType

from swarm import inherited
from swarm.api.client import ApiClient
from swarm.errors import LocalError, SwarmFault
from swarm.identity import Identity, Role, node_uid
from swarm.identity.live import follow
from swarm.log import configure, level_from
from swop.daemon import Daemon
from swop.docker_runtime import CONTAINER_INFO, DockerRuntime, own_image
from swop.kept_logs import KeptLogs
from swop.plan import Host, sn_address, without_containers
from swop.process_runtime import ProcessRuntime
from swop.profile import ManagerType, Profile, read_profile
from swop.runtime import Runtime
from swop.settings import Settings, read_settings

log = logging.getLogger("swop")


def main() -> int:
    """Run the operator; returns the exit status."""
    try:
        configure(level_from(os.environ, "SWOP"))
        inherited.tell(os.environ, "SWOP")
        daemon, api, runtime = assemble(read_settings(os.environ))
    except SwarmFault as fault:
        print(f"swop: {fault}", file=sys.stderr)
        return 1

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        daemon.stop()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        daemon.run()
    except SwarmFault as fault:
        log.error("%s", fault)
        return 1
    finally:
        api.close()
        runtime.close()
    return 0


def assemble(settings: Settings) -> tuple[Daemon, ApiClient, Runtime]:
    """Read profile and identity, and put the parts together. Raises LocalError."""
    checked = read_profile(settings.profile)
    for warning in checked.warnings:
        log.warning("%s", warning)
    profile = checked.profile
    log.info("Profile validated: group %s, %d nodes", profile.groupname, len(profile.pairs))
    if profile.apls is not None:
        log.info("apls in the profile is ignored: no licence is needed")
    identity = Identity.from_env(os.environ, role=Role.SWOP, keys=settings.data)
    sn_host, sn_port = sn_address(profile, settings.sn_host, settings.sn_port)
    kind = settings.runtime or profile.resourcemgr.mgrtype
    uid = node_uid(identity.fingerprint, settings.name)
    locator = profile.apisrv.locator
    host = Host(
        uid,
        sn_host,
        sn_port,
        settings.user,
        containers=kind is ManagerType.DOCKER,
        service=bool(locator.service) or (settings.sn_service and not locator.host),
        rules=settings.rules,
    )
    runtime = make_runtime(kind, settings, profile, uid)
    api = ApiClient(identity, [(sn_host, sn_port)])
    follow(identity, api.audit)
    daemon = Daemon(
        name=settings.name,
        host=host,
        profile=profile,
        runtime=runtime,
        api=api,
        keep=settings.keep,
        stream_logs=settings.stream_logs,
        version=_version(),
    )
    return daemon, api, runtime


def make_runtime(kind: ManagerType, settings: Settings, profile: Profile, uid: str) -> Runtime:
    """The runtime that settings or profile ask for."""
    if kind is ManagerType.PROCESS:
        if idle := without_containers(profile):
            log.info("Without effect on local processes: %s", ", ".join(idle))
        return ProcessRuntime(uid, settings.data, settings.keep_logs)
    if not profile.network:
        raise LocalError("SW7003", f"{settings.profile.name}: DOCKER needs a network, found null")
    image = own_image(settings.image, CONTAINER_INFO, f"swarm-node:{_version()}")
    return DockerRuntime(uid, image, KeptLogs(settings.data / "logs", settings.keep_logs))


def _version() -> str:
    try:
        return metadata.version("swarmlearning")
    except metadata.PackageNotFoundError:
        return "0"


if __name__ == "__main__":
    sys.exit(main())
