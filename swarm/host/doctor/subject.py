"""What shall be checked: from a host's file, or from a profile and options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from swarm.errors import LocalError
from swarm.host import record
from swarm.host.doctor.facts import Problem
from swarm.host.doctor.findings import NODES, PROGRAMS
from swarm.host.hostfile import API_PORT, FS_PORT, ReadHost, split_place
from swarm.host.plan import PROFILE_NAME, profile_text
from swarm.launch import nodes
from swarm.launch.plan import default_image
from swop.profile import (
    AttributeType,
    Checked,
    ManagerType,
    MountType,
    Node,
    Profile,
    parse_profile,
    read_profile,
)

DOCKER, PROCESS = "docker", "process"
API, MESH = "API of the SN", "mesh of the SN"


@dataclass(frozen=True)
class Keys:
    """One component's identity files."""

    who: str
    role: str  # SN, SL, SWOP
    cert: Path
    key: Path
    capath: Path | None = None
    cacert: Path | None = None


@dataclass(frozen=True)
class WantedPath:
    """Something that is mounted."""

    what: str
    path: str
    expected: str  # "directory", "file" or "volume"
    must_write: bool = False


@dataclass(frozen=True)
class Subject:
    """A host, as far as the doctor looks at it."""

    runtime: str = PROCESS
    address: str = ""  # "": nobody said it
    founder: bool = False
    keys: tuple[Keys, ...] = ()
    ports: tuple[tuple[int, str], ...] = ()
    sns: tuple[str, ...] = ()
    paths: tuple[WantedPath, ...] = ()
    images: tuple[tuple[str, str], ...] = ()
    networks: tuple[str, ...] = ()
    gpus: tuple[tuple[str, str], ...] = ()
    devices: tuple[tuple[str, str], ...] = ()
    disks: tuple[tuple[str, Path], ...] = ()
    problems: tuple[Problem, ...] = ()
    notices: tuple[str, ...] = field(default=())


def of_host(read: ReadHost) -> Subject:
    """What a host's file describes."""
    host = read.host
    roles = [("SN", host.network_node), ("SWOP", host.operator)]
    subject = Subject(
        runtime=host.runtime,
        address=host.address,
        founder=host.network_node is not None and not host.network_node.join,
        keys=tuple(
            Keys(role, role, *read.identity(role.lower()), read.capath)
            for role, part in roles
            if part is not None
        ),
        disks=(("logs, ledger and state", nodes.home()),),
    )
    node = host.network_node
    if node is not None:
        ports = ((node.api_port, API), (node.p2p_port, MESH))
        subject = replace(subject, ports=ports, sns=tuple(node.join))
    if host.docker is not None and host.runtime == DOCKER:
        images = [(host.docker.image or default_image(), NODES)]
        if host.docker.image_of_programs is not None:
            images.append((host.docker.image_of_programs, PROGRAMS))
        subject = replace(subject, images=tuple(images), networks=(host.docker.network,))
    if host.operator is None:
        return subject
    if host.operator.sn is not None:
        subject = replace(subject, sns=(*subject.sns, host.operator.sn))
    own = record.directory(host.name)
    try:
        if host.operator.profile is None:
            checked = parse_profile(profile_text(read), PROFILE_NAME)
        else:
            own = read.path(host.operator.profile).parent
            checked = read_profile(read.path(host.operator.profile))
    except LocalError as error:
        return replace(subject, problems=((error.code, error.cause),))
    return with_profile(subject, checked, own)


def with_profile(subject: Subject, checked: Checked, directory: Path) -> Subject:
    """A subject and what a profile adds; its relative paths begin at `directory`."""
    profile = checked.profile
    pairs = [(f"pair {node.idx}", node) for node in profile.pairs]
    addresses = [node.slhostip for _, node in pairs if node.slhostip]
    address = subject.address or next(iter(addresses), "")
    subject = replace(subject, address=address)
    try:
        named = list(_sn_of(profile, subject))
    except ValueError as error:
        named = []
        problem = ("SW7003", f"apisrv.locator: {error}")
        subject = replace(subject, problems=(*subject.problems, problem))
    return replace(
        subject,
        keys=(*subject.keys, *_once(k for who, n in pairs if (k := _keys(who, n, directory)))),
        ports=(
            *subject.ports,
            *((n.slport or FS_PORT, f"SL of {who}") for who, n in pairs if _on_host(n, subject)),
        ),
        sns=tuple(dict.fromkeys((*subject.sns, *named))),
        paths=(*subject.paths, *(path for who, n in pairs for path in _paths(who, n, directory))),
        networks=tuple(dict.fromkeys((*subject.networks, *_networks(profile, subject.runtime)))),
        gpus=tuple(
            (who, node.usrcontaineropts.gpus)
            for who, node in pairs
            if node.usrcontaineropts.gpus is not None
        ),
        devices=tuple(
            (who, device.split(":")[0])
            for who, node in pairs
            for device in node.usrcontaineropts.device
        ),
        disks=(*subject.disks, *_disks(pairs, directory)),
        notices=(*subject.notices, *checked.warnings, *_unseen(pairs)),
    )


def of_profile(file: Path, runtime: str | None, join: Sequence[str]) -> Subject:
    """What a profile alone describes. A file that cannot be used is a finding of its own."""
    try:
        checked = read_profile(file)
    except LocalError as error:
        return Subject(sns=tuple(join), problems=((error.code, error.cause),))
    docker = checked.profile.resourcemgr.mgrtype is ManagerType.DOCKER
    runtime = runtime or (DOCKER if docker else PROCESS)
    images = ((default_image(), NODES),) if runtime == DOCKER else ()
    subject = Subject(
        runtime=runtime,
        sns=tuple(join),
        images=images,
        disks=(("logs, ledger and state", nodes.home()),),
    )
    return with_profile(subject, checked, file.absolute().parent)


def _on_host(node: Node, subject: Subject) -> bool:
    """Whether others come to this learner by a port of this host: not by a proxy, and not where its
    container publishes none."""
    published = node.slport is not None or subject.runtime == PROCESS
    return node.slfsservice is None and published


def _sn_of(profile: Profile, subject: Subject) -> Iterator[str]:
    """The SN that the profile names, unless it is this host's own, which may not run yet.

    Raises ValueError.
    """
    locator = profile.apisrv.locator
    if locator.service:
        yield locator.service if ":" in locator.service else f"{locator.service}:443"
    elif locator.host and locator.host != subject.address:
        host = f"[{locator.host}]" if ":" in locator.host else locator.host
        place = f"{host}:{locator.port or API_PORT}"
        if split_place(place) not in [split_place(one) for one in subject.sns]:
            yield place


def _networks(profile: Profile, runtime: str) -> Iterator[str]:
    if profile.network and runtime == DOCKER:
        yield profile.network


def _keys(who: str, node: Node, directory: Path) -> Keys | None:
    """The learner's identity, where it is in files of this host."""
    found = {
        item.attribute.aType: directory / item.attribute.src
        for item in node.identity
        if item.attribute.mType is MountType.BIND
    }
    cert, key = found.get(AttributeType.CERT), found.get(AttributeType.KEY)
    if cert is None or key is None:
        return None
    trusted = found.get(AttributeType.CAPATH), found.get(AttributeType.CACERT)
    return Keys(f"SL of {who}", "SL", cert, key, *trusted)


def _unseen(pairs: Sequence[tuple[str, Node]]) -> Iterator[str]:
    """Identities that are in no file of this host, so that nobody can look at them from here."""
    for who, node in pairs:
        if AttributeType.SPIFFE_SOCKETPATH in [item.attribute.aType for item in node.identity]:
            yield f"the identity of {who} comes from a workload API: not checked"
        elif any(item.attribute.mType is MountType.VOLUME for item in node.identity):
            yield f"the identity of {who} is in a volume: not checked"


def _once(keys: Iterator[Keys]) -> Iterator[Keys]:
    """Pairs usually share their files, which need no second look."""
    seen: set[tuple[Path, Path]] = set()
    for one in keys:
        if (one.cert, one.key) not in seen:
            seen.add((one.cert, one.key))
            yield one


def _paths(who: str, node: Node, directory: Path) -> Iterator[WantedPath]:
    for item in node.identity:
        one = item.attribute
        what = f"{one.aType.value.lower()} of {who}"
        if one.mType is MountType.VOLUME:
            yield WantedPath(what, one.src, "volume")
        elif one.aType is AttributeType.CAPATH:
            yield WantedPath(what, str(directory / one.src), "directory")
        elif one.aType is not AttributeType.SPIFFE_SOCKETPATH:
            yield WantedPath(what, str(directory / one.src), "file")
    if node.privatedata is not None:
        volume = node.privatedata.mType is MountType.VOLUME
        source = node.privatedata.src if volume else str(directory / node.privatedata.src)
        yield WantedPath(
            f"data of {who}", source, "volume" if volume else "directory", must_write=True
        )


def _disks(pairs: Sequence[tuple[str, Node]], directory: Path) -> Iterator[tuple[str, Path]]:
    for who, node in pairs:
        if node.privatedata is not None and node.privatedata.mType is MountType.BIND:
            yield f"data of {who}", directory / node.privatedata.src
