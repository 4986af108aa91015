"""From a host's file to the nodes to start: pure, apart from reading a profile.

A node is described by the command line of its run-* command, so there is one place that knows what
its options mean; `swarm up --show` prints these lines, for people who outgrow the file. Beside it
stand the settings that count when a node is already running: those that it took at its start.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from swarm.errors import LocalError
from swarm.host.hostfile import HostFile, Learner, ReadHost, split_place
from swarm.launch.plan import SN, SWOP, Component
from swop.profile import parse_profile

PROFILE_NAME = "profile.yaml"  # of the generated one
USER_DIRECTORY = "usr"  # what an operator sees of the host's own directory
DATA_DIRECTORY = "/platform/swarm/SMLNODE"  # of a network node, in its container
CONTENTS = "contents of the profile"  # the key of its digest among the settings
IDENTITY_DIRECTORY = "/swarm/identity"  # where a learner's container sees its identity


@dataclass(frozen=True)
class Node:
    """One node to start."""

    component: Component
    name: str
    argv: tuple[str, ...]  # for its run-* command
    settings: Mapping[str, str]  # by key of the file: what it took at its start
    volume: str = ""  # of a container, with what it keeps between two starts

    @property
    def command(self) -> str:
        """What somebody would type to start it by hand."""
        return shlex.join([f"run-{self.component.name}", *self.argv])


@dataclass(frozen=True)
class Plan:
    """The nodes of a host in the order of their start, and a profile to write before."""

    nodes: tuple[Node, ...]
    profile: tuple[Path, str] | None = None


def node_name(host: HostFile, component: Component) -> str:
    """Name of a node of this host."""
    return f"{host.name}-{component.name}"


def make_plan(read: ReadHost, own: Path, join: str = "") -> Plan:
    """The nodes of a host. `own` is the directory for what is generated, `join` the SN to join.

    Raises LocalError: SW7001 to SW7003 for a bad profile.
    """
    host = read.host
    nodes, profile = [], None
    if host.network_node is not None:
        nodes.append(_network_node(read, join))
    if host.operator is not None:
        if host.operator.profile is None:
            profile = own / USER_DIRECTORY / PROFILE_NAME, profile_text(read)
            parse_profile(profile[1], PROFILE_NAME)
            where = profile[0]
        else:
            where = read.path(host.operator.profile)
        nodes.append(_operator(read, where, profile[1] if profile else _text_of(where)))
    return Plan(tuple(nodes), profile)


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """`key: old → new` for each setting that is another one."""
    keys = sorted({*before, *now})
    return [
        f"{key}: changed"
        if key in before and key in now and _hidden(key)
        else f"{key}: {_shown(before, key)} → {_shown(now, key)}"
        for key in keys
        if before.get(key) != now.get(key)
    ]


def _shown(settings: Mapping[str, str], key: str) -> str:
    return "not set" if key not in settings else "set" if _hidden(key) else settings[key]


def _hidden(key: str) -> bool:
    """Whether only a digest is kept: values of variables may be secrets."""
    return ".envvars." in key or key == CONTENTS


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _environment(part: str, variables: Mapping[str, str]) -> dict[str, str]:
    return {f"{part}.envvars.{name}": _digest(value) for name, value in variables.items()}


def _network_node(read: ReadHost, join: str) -> Node:
    host = read.host
    part = host.network_node
    assert part is not None, "the caller looked"
    name = node_name(host, SN)
    argv = [*_common(read, name, "sn"), f"--host-ip={host.address}"]
    argv += [f"--sn-api-port={part.api_port}", f"--sn-p2p-port={part.p2p_port}"]
    if part.join:
        address, port = split_place(join or part.join[0])
        argv += [f"--sentinel-ip={address}", f"--sentinel-api-port={port}"]
    else:
        argv.append("--sentinel")
        if part.fault_model is not None:
            argv.append(f"--fault-model={part.fault_model}")
    argv += [f"--env={key}={value}" for key, value in part.envvars.items()]
    volume = f"{name}-data" if host.runtime == "docker" else ""
    if volume:
        argv.append(f"--volume={volume}:{DATA_DIRECTORY}")
    settings = {
        **_settings(read, "sn"),
        "address": host.address,
        "network_node.api_port": str(part.api_port),
        "network_node.p2p_port": str(part.p2p_port),
        **_environment("network_node", part.envvars),
    }
    return Node(SN, name, tuple(argv), settings, volume)


def _operator(read: ReadHost, profile: Path, text: str) -> Node:
    host = read.host
    part = host.operator
    assert part is not None, "the caller looked"
    name = node_name(host, SWOP)
    address, port = read.api
    argv = [*_common(read, name, "swop"), f"--sn-ip={address}", f"--sn-api-port={port}"]
    argv += [f"--usr-dir={profile.parent}", f"--profile-file-name={profile.name}"]
    argv += [f"--env={key}={value}" for key, value in part.envvars.items()]
    settings = {
        **_settings(read, "swop"),
        "operator.sn": f"{address}:{port}",
        "operator.profile": str(profile),
        CONTENTS: _digest(text),
        **_environment("operator", part.envvars),
    }
    return Node(SWOP, name, tuple(argv), settings)


def _common(read: ReadHost, name: str, role: str) -> list[str]:
    """Options that all nodes of a host have."""
    cert, key = read.identity(role)
    words = ["--detach", f"--runtime={read.host.runtime}", f"--name={name}"]
    words += [f"--cert={cert}", f"--key={key}", f"--capath={read.capath}"]
    docker = read.host.docker
    if read.host.runtime == "docker" and docker is not None:
        words.append(f"--network={docker.network}")
        if docker.image is not None:
            words.append(f"--image={docker.image}")
    return words


def _settings(read: ReadHost, role: str) -> dict[str, str]:
    """What counts for every node. Contents of certificates do not: nodes follow them."""
    cert, key = read.identity(role)
    docker = read.host.docker if read.host.runtime == "docker" else None
    return {
        "runtime": read.host.runtime,
        "certificate": str(cert),
        "key": str(key),
        "certificates.capath": str(read.capath),
        **({"docker.network": docker.network} if docker else {}),
        **({"docker.image": docker.image} if docker and docker.image else {}),
    }


def profile_text(read: ReadHost) -> str:
    """The operator's profile that the file's learners stand for."""
    host, part = read.host, read.host.operator
    assert part is not None, "the caller looked"
    address, port = read.api
    profile = {
        "groupname": part.group,
        "taskrunner": part.taskrunner,
        "policyuri": None,
        "resourcemgr": {"mgrtype": host.runtime.upper()},
        "network": host.docker.network if host.runtime == "docker" and host.docker else None,
        "apisrv": {"locator": {"host": address, "port": port}},
        "envvars": None,
        "nodes": [
            {"slnodedef": _pair(read, index, learner)}
            for index, learner in enumerate(part.learners)
        ],
    }
    head = f"# Written by `swarm up` from {read.file}: change that file, not this one.\n"
    return head + yaml.safe_dump(profile, sort_keys=False)


def _pair(read: ReadHost, index: int, learner: Learner) -> dict[str, Any]:
    host = read.host
    cert, key = read.identity("sl")
    files = (("KEY", key, "key.pem"), ("CERT", cert, "cert.pem"), ("CAPATH", read.capath, "capath"))
    pair: dict[str, Any] = {
        "idx": index,
        "identity": [
            {
                "attribute": {
                    "aType": kind,
                    "mType": "BIND",
                    "src": str(source),
                    "tgt": f"{IDENTITY_DIRECTORY}/{target}",
                }
            }
            for kind, source, target in files
        ],
        "slhostip": host.address,
        "slport": learner.port,
        "slhostname": f"{host.name}-sl{index}",
        "privatedata": None,
        "slenvvars": None,
        "usrhostname": f"{host.name}-ml{index}",
        "usrenvvars": [{name: value} for name, value in learner.envvars.items()] or None,
    }
    if learner.data is not None:
        pair["privatedata"] = {"src": str(read.path(learner.data)), "mType": "BIND"}
    if learner.gpus is not None:
        pair["usrcontaineropts"] = [{"gpus": learner.gpus}]
    return pair


def _text_of(profile: Path) -> str:
    """Contents of a profile, checked. Raises LocalError SW7001 to SW7003."""
    try:
        text = profile.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError("SW7001", f"profile {profile}: {error}") from error
    parse_profile(text, profile.name)
    return text
