"""From a profile and a task to what shall run: pure, no engine, no files.

Precedence of environment variables, later wins:

- SL: the profile's `envvars`, the node's `slenvvars`, then the wiring (addresses, ports, identity).
- ML: the task's `Envvars`, the node's `usrenvvars`, then the wiring (the link to its SL).

Names carry a hash of operation and operator: the same assignment always yields the same names, so
an operator that was killed recognises what it started; and two operators with one group name can
share an engine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from swarm.address import service_address
from swarm.errors import LocalError
from swop.profile import AttributeType, ContainerOptions, MountType, Node, Profile
from swop.rules import Rules

LINK_DIRECTORY = "/tmp/hpe-swarm"  # noqa: S108 - a mount point inside a container
SL_PORT = 30305
SN_API_PORT = 30304
# Isolated (-I): Python would put the working directory first on its path, where a mount that is
# named like one of our packages could take the place of our own modules.
SL_COMMAND = ("python3", "-I", "-m", "swarm.learner")

# Labels by which nodes of this system are recognised on an engine.
LABEL_GROUP = "swarm.group"
LABEL_TASK = "swarm.task"
LABEL_NODE = "swarm.node"
LABEL_OPERATION = "swarm.operation"
LABEL_ROLE = "swarm.role"
LABEL_INDEX = "swarm.index"

IDENTITY_VARIABLES = {
    AttributeType.KEY: "SWARM_ID_KEY",
    AttributeType.CERT: "SWARM_ID_CERT",
    AttributeType.CACERT: "SWARM_ID_CACERT",
    AttributeType.CAPATH: "SWARM_ID_CAPATH",
    AttributeType.SPIFFE_SOCKETPATH: "SWARM_SPIFFE_WORKLOAD_API_SOCKET_PATH",
}
TRUE_WORDS = frozenset({"true", "1", "yes", "on"})


@dataclass(frozen=True)
class Mount:
    """A path of the host or a named volume, seen at `target`."""

    kind: MountType
    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Program:
    """One member of a pair: everything that a runtime needs to run it."""

    name: str
    role: str  # "SL" or "ML"
    operation: str
    index: int
    image: str  # "" = the operator's own
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    mounts: tuple[Mount, ...]
    link: str  # volume mounted at LINK_DIRECTORY
    labels: Mapping[str, str]
    workdir: str = "/"
    user: str = ""  # "uid:gid"; "" = the image's or the operator's own
    hostname: str = ""
    published: tuple[int, int] | None = None  # (port of the host, port inside)
    network: str = ""
    address: str = ""  # fixed address on the network
    dns: tuple[str, ...] = ()
    options: ContainerOptions | None = None

    @property
    def takes_part(self) -> bool:
        """False for a program in loopback mode: it never talks to its SL."""
        return self.environment.get("SWARM_LOOPBACK", "").strip().lower() not in TRUE_WORDS


@dataclass(frozen=True)
class Pair:
    """A learner and its user program. `name` is how the ledger knows the pair."""

    index: int  # its place among the profile's nodes, from 0; `idx` may have gaps
    sl: Program
    ml: Program

    @property
    def name(self) -> str:
        return self.sl.name


@dataclass(frozen=True)
class Host:
    """What the operator knows besides its profile."""

    uid: str
    sn_host: str
    sn_port: int
    user: str = ""  # "uid:gid" of the user programs
    containers: bool = True  # False: plain processes, which share the host's ports
    rules: Rules = field(default_factory=Rules)  # what its administrator allows tasks to do
    service: bool = False  # the SN is behind a reverse proxy, under the name `sn_host`


@dataclass(frozen=True)
class Common:
    """What both members of a pair share."""

    operation: str
    index: int
    host: Host
    link: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class RunTask:
    """The body of a RUN_SWARM task, and the image that its Prereq made."""

    name: str
    image: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    workdir: str
    environment: Mapping[str, str] = field(default_factory=dict)
    private_target: str | None = None
    shared: tuple[Mount, ...] = ()


def sn_address(profile: Profile, host: str, port: int | None) -> tuple[str, int]:
    """The SN to talk to: the profile wins over what run-swop was given. LocalError SW7004."""
    locator = profile.apisrv.locator
    if locator.service:
        return service_address(locator.service)
    found = locator.host or host
    if not found:
        raise LocalError("SW7004", "no SN is given: neither apisrv.locator.host nor SN_NODE_IP")
    return found, locator.port or port or SN_API_PORT


def build_proxies(profile: Profile) -> dict[str, str]:
    """Proxy variables of the profile, which are build arguments as well."""
    return {name: v for name, v in profile.envvars.items() if name.lower().endswith("_proxy")}


def without_containers(profile: Profile) -> list[str]:
    """Keys of this profile that mean nothing to local processes."""
    found = [key for key in ("network", "dns") if getattr(profile, key)]
    for key in ("sllabels", "usrlabels"):
        found += [key] if any(getattr(node, key) for node in profile.pairs) else []
    for key in ("slnetworkopts", "usrnetworkopts"):
        found += [key] if any(getattr(node, key).ip for node in profile.pairs) else []
    options = {key for node in profile.pairs for key in node.usrcontaineropts.model_fields_set}
    return found + [f"usrcontaineropts.{key}" for key in sorted(options - {"gpus"})]


def plan_pairs(profile: Profile, task: RunTask, operation: str, host: Host) -> list[Pair]:
    """All pairs of one assignment, by index. LocalError SW7013 when task and profile disagree."""
    nodes = enumerate(profile.pairs)
    return [_pair(profile, place, node, task, operation, host) for place, node in nodes]


def _pair(
    profile: Profile, place: int, node: Node, task: RunTask, operation: str, host: Host
) -> Pair:
    digest = hashlib.sha256(f"{operation}|{host.uid}".encode()).hexdigest()[:8]
    names = {
        role: _name(f"{profile.groupname}-{task.name[:32]}-{letter}-{node.idx}-{digest}")
        for role, letter in (("SL", "s"), ("ML", "u"))
    }
    link = _name(f"swop-{profile.groupname}-swif-{node.idx}-{digest}")
    labels = {
        LABEL_GROUP: profile.groupname,
        LABEL_TASK: task.name,
        LABEL_NODE: host.uid,
        LABEL_OPERATION: operation,
        LABEL_INDEX: str(place),
    }
    common = Common(operation, place, host, link, labels)
    sl = _learner(profile, node, names["SL"], common)
    ml = _user_program(profile, node, task, names["ML"], common)
    return Pair(place, sl, ml)


def _learner(profile: Profile, node: Node, name: str, common: Common) -> Program:
    """The SL: published under slport, with the node's identity, on the profile's network."""
    host = common.host
    inside = SL_PORT if host.containers else node.slport or SL_PORT + node.idx
    announced = node.slport or inside
    identity, mounts = _identity(node)
    wiring = {
        "SN_NODE_IP": host.sn_host,
        "SN_API_SERVER_PORT": str(host.sn_port),
        "THIS_NODE_IP": node.slhostip or _own_address(node, name, host),
        "SL_FS_PORT": str(announced),
        "SL_LISTEN_PORT": str(inside),
        "SWARM_NODE_NAME": name,
        "SWARM_LINK": LINK_DIRECTORY,
        **identity,
    }
    if node.slfsservice:
        wiring["SL_FS_SERVICE"] = node.slfsservice
    return Program(
        name=name,
        role="SL",
        operation=common.operation,
        index=common.index,
        image="",
        entrypoint=SL_COMMAND,
        command=(),
        environment={**profile.envvars, **node.slenvvars, **wiring},
        mounts=mounts,
        link=common.link,
        labels={**node.sllabels, **_spiffe_label(node), **common.labels, LABEL_ROLE: "SL"},
        user=common.host.user,
        hostname=node.slhostname or "",
        published=(node.slport, inside) if node.slport else None,
        network=profile.network or "",
        address=node.slnetworkopts.ip or "",
        dns=tuple(profile.dns),
    )


def _user_program(
    profile: Profile, node: Node, task: RunTask, name: str, common: Common
) -> Program:
    """The ML: the task's program in the task's image, with this host's private data."""
    mounts = list(task.shared)
    if task.private_target is not None and node.privatedata is not None:
        private = node.privatedata
        mounts.insert(0, Mount(private.mType, private.src, task.private_target))
    for mount in mounts:
        if mount.kind is MountType.BIND and not mount.source.startswith("/"):
            cause = f"task {task.name}: BIND needs an absolute path, found {mount.source!r}"
            raise LocalError("SW7013", cause)
    return Program(
        name=name,
        role="ML",
        operation=common.operation,
        index=common.index,
        image=task.image,
        entrypoint=task.entrypoint,
        command=task.command,
        # Unbuffered output, so that the log of a killed program holds its last lines.
        environment={
            "PYTHONUNBUFFERED": "1",
            **task.environment,
            **node.usrenvvars,
            "SWARM_LINK": LINK_DIRECTORY,
        },
        mounts=tuple(mounts),
        link=common.link,
        labels={**node.usrlabels, **common.labels, LABEL_ROLE: "ML"},
        workdir=task.workdir,
        user=common.host.user,
        hostname=node.usrhostname or "",
        network=profile.network or "",
        address=node.usrnetworkopts.ip or "",
        dns=tuple(profile.dns),
        options=node.usrcontaineropts,
    )


def _identity(node: Node) -> tuple[dict[str, str], tuple[Mount, ...]]:
    """Variables that name the SL's identity files, and their mounts (one for each target)."""
    variables: dict[str, str] = {}
    mounts: dict[str, Mount] = {}
    for item in node.identity:
        attribute = item.attribute
        variables[IDENTITY_VARIABLES[attribute.aType]] = attribute.path
        target = attribute.tgt.rstrip("/") or "/"
        mounts[target] = Mount(attribute.mType, attribute.src, target, read_only=True)
    return variables, tuple(mounts.values())


def _spiffe_label(node: Node) -> dict[str, str]:
    """What a SPIFFE agent may know a learner's container by, as those of run-sl."""
    kinds = {item.attribute.aType for item in node.identity}
    return {"swarm-node-type": "sl"} if AttributeType.SPIFFE_SOCKETPATH in kinds else {}


def _own_address(node: Node, name: str, host: Host) -> str:
    """Where an SL without slhostip is reached: by name inside one Docker network, else locally."""
    return (node.slhostname or name) if host.containers else "127.0.0.1"


def _name(text: str) -> str:
    """`text` with what neither containers nor files may have in a name replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)
