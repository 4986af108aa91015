"""The own options of run-sn, run-sl, run-swop and run-swci, and what they mean.

Each function takes a parsed command line and returns a `Launch`; it looks at files, since a path
that is not there should be an error of the command and not of the node a second later, but starts
nothing. The texts of the errors are those that users of these commands know.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from swarm.launch import arguments, spiffe
from swarm.launch.arguments import Arguments, Option, UsageError
from swarm.launch.plan import (
    LINK_DIRECTORY,
    ML,
    OPERATOR_DIRECTORY,
    SL,
    SN,
    SWCI,
    SWOP,
    USER_DIRECTORY,
    Component,
    DockerArguments,
    Launch,
    Mount,
    Sidecar,
)

API_PORT, P2P_PORT, FS_PORT, WEB_PORT = 30304, 30303, 30305, 30306
DOCKER_SOCKET = "/var/run/docker.sock"

COMMON = (
    Option(("help",), "show this text", takes_value=False),
    Option(("detach", "d"), "run in the background", takes_value=False),
    Option(("runtime",), "docker (default), or process: a local process without containers"),
    Option(("image",), "image of the node (default: swarm-node of the installed version)"),
    Option(("cmd",), "arguments for the node's program, split as a shell does"),
    Option(("sudo",), "call docker through sudo", takes_value=False),
    Option(("sidecar",), "declare a further container, configured by --<its name>-<option>"),
    Option(("cert",), "certificate of the node"),
    Option(("key",), "private key of the certificate"),
    Option(("capath",), "directory of trusted CA certificates"),
    Option(("cacert",), "file of trusted CA certificates"),
    Option(("socket-path",), "SPIFFE agent: socket file, volume:path, volume or container"),
)
LICENCE = tuple(
    Option(names, "accepted and ignored: no licence is needed")
    for names in (
        ("primary-apls-ip", "apls-ip"),
        ("primary-apls-port", "apls-port"),
        ("secondary-apls-ip",),
        ("secondary-apls-port",),
        ("apls-pdf",),
    )
)
NETWORK_NODE = (
    Option(("sn-ip",), "address of a network node"),
    Option(("sn-api-port",), f"its API port (default {API_PORT})"),
    Option(("sn-api-service",), "its name[:port] behind a reverse proxy"),
)

SN_OPTIONS = (
    Option(("host-ip",), "address at which other hosts reach this node"),
    Option(("sentinel",), "this is the first node of a new network", takes_value=False),
    Option(("sentinel-ip",), "address of a node of the network to join"),
    Option(("sentinel-api-port",), f"API port of that node (default {API_PORT})"),
    Option(("sentinel-api-service",), "its name[:port] behind a reverse proxy"),
    Option(("sn-api-port",), f"API port to publish (default {API_PORT}, not published)"),
    Option(("sn-api-service",), "name[:port] of this node's API behind a reverse proxy"),
    Option(("sn-p2p-port",), f"peer-to-peer port to publish (default {P2P_PORT})"),
    Option(("sn-p2p-service",), "name[:port] of this node's peer-to-peer port behind a proxy"),
    Option(("fault-model",), "with --sentinel: byzantine (default), or crash; stays for ever"),
    Option(("orderer",), "with --sentinel: embedded (default), or ethereum; stays for ever"),
    Option(("rpc",), "URL of an Ethereum node, or several with commas, where one orders"),
    Option(("account-key",), "file with the private key of this node's account there"),
    Option(("contract",), "with --orderer ethereum: address of the contract"),
    Option(("confirmations",), "with --orderer ethereum: blocks until an entry is final"),
)
SL_OPTIONS = (
    Option(("host-ip",), "address at which other learners reach this one"),
    *NETWORK_NODE,
    Option(("sn-docker-name",), "container of a local network node, to find its address"),
    Option(("sn-image",), "image of a local network node, to find its address"),
    Option(("sl-fs-port",), f"port for weights to publish (default {FS_PORT})"),
    Option(("sl-fs-service",), "name[:port] of this learner behind a reverse proxy"),
)
SWOP_OPTIONS = (
    Option(("usr-dir",), "directory of the profile"),
    Option(("profile-file-name",), "profile, a file in --usr-dir"),
    Option(("docker-socket-file",), "socket of the engine (default /var/run/docker.sock)"),
    Option(("docker-group-id",), "group that may use the engine (default: group docker)"),
    Option(("swop-uid",), "user of the programs that it starts (default: you)"),
    *NETWORK_NODE,
)
SWCI_OPTIONS = (
    Option(("usr-dir",), "directory of scripts and task definitions"),
    Option(("init-script-name",), "script to run first, a file in --usr-dir (default swci-init)"),
    Option(("web-port",), f"take commands by HTTPS at this port (usually {WEB_PORT})"),
    Option(("output",), "text (default), or json: the result of each command as a JSON document"),
)


class _Builder:
    """Collects a launch from a command line."""

    def __init__(self, component: Component, parsed: Arguments) -> None:
        self.component = component
        self.parsed = parsed
        self.env: dict[str, str] = {}
        self.container_env: dict[str, str] = {}
        self.process_env: dict[str, str] = {}
        self.mounts: list[Mount] = []
        self.ports: list[tuple[int, int]] = []
        self.labels: dict[str, str] = {}

    def get(self, option: str) -> str | None:
        return self.parsed.own.get(option)

    def copy(self, option: str, variable: str) -> None:
        """Hand an option's value on as it is."""
        if (value := self.get(option)) is not None:
            self.env[variable] = value

    def port(self, option: str) -> int | None:
        text = self.get(option)
        if text is None:
            return None
        return _port(text, option)

    def service(self, option: str, variable: str, inside: int) -> bool:
        """`name[:port]` of this node behind a proxy: publish that port. Is it given?"""
        value = self.get(option)
        if value is None:
            return False
        _, _, text = value.partition(":")
        self.env[variable] = value
        self.ports.append((_port(text, option) if text else inside, inside))
        return True

    def identity(self) -> None:
        for option, variable, fits, complaint in (
            ("cacert", "SWARM_ID_CACERT", Path.is_file, "bad file"),
            ("capath", "SWARM_ID_CAPATH", Path.is_dir, "bad directory"),
            ("cert", "SWARM_ID_CERT", Path.is_file, "bad file"),
            ("key", "SWARM_ID_KEY", Path.is_file, "bad file"),
        ):
            if (value := self.get(option)) is not None:
                path = existing(value, option, fits, complaint)
                self.env[variable] = path
                self.mounts.append(Mount(path, path))
        if (value := self.get("socket-path")) is not None:
            place = spiffe.place_of(value, container=self.get("runtime") != "process")
            self.container_env[spiffe.VARIABLE] = place.in_container
            self.process_env[spiffe.VARIABLE] = place.on_host
            self.mounts.append(Mount(place.source, spiffe.DIRECTORY))
            self.labels[spiffe.LABEL] = self.component.name

    def network_node(self) -> None:
        self.copy("sn-ip", "SN_NODE_IP")
        if (port := self.port("sn-api-port")) is not None:
            self.env["SN_API_SERVER_PORT"] = str(port)
        self.copy("sn-api-service", "SN_API_SERVICE")

    def user_directory(self) -> Path | None:
        value = self.get("usr-dir")
        if value is None:
            return None
        path = existing(value, "usr-dir", Path.is_dir, "bad path")
        self.mounts.append(Mount(path, USER_DIRECTORY, read_only=False))
        self.container_env["USR_DIR"] = USER_DIRECTORY
        self.process_env["USR_DIR"] = path
        return Path(path)

    def launch(self, *, remove: bool = False) -> Launch:
        self.identity()
        docker = self.parsed.docker
        detach = self.parsed.flag("detach")
        if detach and arguments.has(docker, "attach"):
            raise UsageError("conflicting options: --detach and --attach")
        command = shlex.split(self.get("cmd") or "") + self.parsed.rest
        return Launch(
            component=self.component,
            name=arguments.last(docker, "name") or "",
            env=self.env,
            container_env=self.container_env,
            process_env=self.process_env,
            mounts=tuple(self.mounts),
            ports=tuple(dict.fromkeys(self.ports)),
            labels=self.labels,
            docker=checked_volumes(docker),
            arguments=tuple(command),
            image=self.get("image") or "",
            detach=detach,
            remove=arguments.flag(docker, "rm", remove),
            sidecars=tuple(
                _sidecar(self.parsed, kind, options)
                for kind, options in self.parsed.sidecars.items()
            ),
        )


def sn(parsed: Arguments) -> Launch:
    """A network node."""
    build = _Builder(SN, parsed)
    behind_proxy = parsed.own.keys() >= {"sn-api-service", "sn-p2p-service"}
    if build.get("host-ip") is None and not behind_proxy:
        raise UsageError("mandatory parameter --host-ip not specified")
    sentinel = parsed.flag("sentinel")
    joined = sorted(parsed.own.keys() & {"sentinel-ip", "sentinel-api-service"})
    if not sentinel and not joined:
        raise UsageError("either --sentinel or --sentinel-ip must be specified")
    if sentinel and joined:
        raise UsageError(f"conflicting options: --sentinel and --{joined[0]}")
    build.copy("host-ip", "THIS_NODE_IP")
    _listen_locally(build)
    if sentinel:
        build.env["SN_I_AM_SENTINEL"] = "1"
    _fault_model(build, sentinel)
    _orderer(build, sentinel)
    build.copy("sentinel-ip", "SENTINEL_NODE_IP")
    if (port := build.port("sentinel-api-port")) is not None:
        build.env["SENTINEL_API_SERVER_PORT"] = str(port)
    build.copy("sentinel-api-service", "SENTINEL_API_SERVICE")
    if (api := build.port("sn-api-port")) is not None:
        build.env["SN_API_SERVER_PORT"] = str(api)
        build.ports.append((api, api))
    build.service("sn-api-service", "SN_API_SERVICE", API_PORT)
    if (p2p := build.port("sn-p2p-port")) is not None:
        # A container listens on the usual port inside; a process listens on the one announced.
        build.env["SN_ETH_PORT_EXT"] = str(p2p)
        build.process_env["SN_P2P_PORT"] = str(p2p)
        build.ports.append((p2p, P2P_PORT))
    build.service("sn-p2p-service", "SN_ETH_P2P_SERVICE", P2P_PORT)
    return build.launch()


def _fault_model(build: _Builder, sentinel: bool) -> None:
    model = build.get("fault-model")
    if model is None:
        return
    if model not in ("byzantine", "crash"):
        raise UsageError(f"--fault-model: byzantine or crash expected, not {model}")
    if not sentinel:
        raise UsageError("--fault-model: only the founder of a network chooses it (--sentinel)")
    build.env["SWARM_FAULT_MODEL"] = model


def _orderer(build: _Builder, sentinel: bool) -> None:
    orderer = build.get("orderer")
    if orderer is not None and orderer not in ("embedded", "ethereum"):
        raise UsageError(f"--orderer: embedded or ethereum expected, not {orderer}")
    if orderer is not None and not sentinel:
        raise UsageError("--orderer: only the founder of a network chooses it (--sentinel)")
    build.copy("orderer", "SWARM_ORDERER")
    build.copy("rpc", "SWARM_ETH_RPC")
    build.copy("contract", "SWARM_ETH_CONTRACT")
    build.copy("confirmations", "SWARM_ETH_CONFIRMATIONS")
    if (value := build.get("account-key")) is not None:
        path = existing(value, "account-key", Path.is_file, "bad file")
        build.env["SWARM_ETH_KEY"] = path
        build.mounts.append(Mount(path, path))


def sl(parsed: Arguments, find_network_node: Callable[[str, str], str]) -> Launch:
    """A learner, and the user's program beside it where --ml-… options describe one.

    `find_network_node(name, image)` gives the address of a local network node's container.
    """
    build = _Builder(SL, parsed)
    if build.get("host-ip") is None and build.get("sl-fs-service") is None:
        raise UsageError("mandatory parameter --host-ip not specified")
    build.copy("host-ip", "THIS_NODE_IP")
    _listen_locally(build)
    build.network_node()
    if not parsed.own.keys() & {"sn-ip", "sn-api-service"}:
        build.env["SN_NODE_IP"] = find_network_node(
            build.get("sn-docker-name") or "", build.get("sn-image") or ""
        )
    if (port := build.port("sl-fs-port")) is not None:
        build.env["SL_FS_PORT"] = str(port)
        build.process_env["SL_LISTEN_PORT"] = str(port)
        build.ports.append((port, FS_PORT))
    build.service("sl-fs-service", "SL_FS_SERVICE", FS_PORT)
    build.container_env["SWARM_LINK"] = LINK_DIRECTORY
    return build.launch()


def swop(parsed: Arguments, default_socket: Callable[[], str]) -> Launch:
    """An operator. `default_socket` says where the engine listens."""
    build = _Builder(SWOP, parsed)
    directory = build.user_directory()
    if directory is None:
        raise UsageError("mandatory parameter --usr-dir not specified")
    profile = build.get("profile-file-name")
    if profile is None:
        raise UsageError("mandatory parameter --profile-file-name not specified")
    if Path(profile).name != profile or not (directory / profile).is_file():
        raise UsageError(f"--profile-file-name: {profile}: bad profile file")
    build.env["SWOP_PROFILE"] = profile
    build.network_node()
    uid = _number(build.get("swop-uid"), "swop-uid", "bad user id", os.getuid())
    build.env["SWOP_UID"] = str(uid)
    build.env["SWOP_GID"] = str(_primary_group(uid))
    build.process_env["SWARM_RUNTIME"] = "PROCESS"
    build.container_env["SWARM_DATA_DIR"] = OPERATOR_DIRECTORY
    if build.get("runtime") != "process":
        _docker_socket(build, default_socket)
    return build.launch()


def swci(parsed: Arguments) -> Launch:
    """A command interface."""
    build = _Builder(SWCI, parsed)
    directory = build.user_directory()
    script = build.get("init-script-name")
    if script is not None:
        if directory is None:
            raise UsageError("--init-script-name: --usr-dir says where it is, and is missing")
        if Path(script).name != script or not (directory / script).is_file():
            raise UsageError(f"--init-script-name: {script}: bad file")
        build.env["SWCI_STARTUP_SCRIPT"] = script
    if (port := build.port("web-port")) is not None:
        build.env["SWCI_MODE"] = "WEB"
        build.process_env["SWCI_WEB_PORT"] = str(port)
        build.ports.append((port, WEB_PORT))
    output = build.get("output")
    if output is not None:
        if output not in ("text", "json"):
            raise UsageError(f"--output: {output}: text or json")
        build.env["SWCI_OUTPUT"] = output
    return build.launch(remove=True)


def existing(value: str, option: str, fits: Callable[[Path], bool], complaint: str) -> str:
    """`value` as an absolute path. Raises UsageError when nothing fitting is there."""
    path = Path(value)
    if not fits(path):
        raise UsageError(f"--{option}: {value}: {complaint}")
    return str(path.absolute())


def checked_volumes(
    options: Sequence[tuple[str, str | None]], sidecar: str = ""
) -> DockerArguments:
    """The options with the sources of --volume made absolute; those must exist."""
    prefix = f"{sidecar}-" if sidecar else ""
    checked: list[tuple[str, str | None]] = []
    for name, value in options:
        if name == "volume" and value is not None:
            source, colon, rest = value.partition(":")
            if colon and "/" in source:
                if not Path(source).exists():
                    raise UsageError(f"--{prefix}volume: {source}: bad mount")
                value = f"{Path(source).absolute()}:{rest}"
        checked.append((name, value))
    return tuple(checked)


def _sidecar(parsed: Arguments, kind: str, options: Sequence[tuple[str, str | None]]) -> Sidecar:
    image = arguments.last(options, "image")
    if image is None and parsed.own.get("runtime") != "process":
        raise UsageError(f"mandatory parameter --{kind}-image not specified")
    own = {"entrypoint", "name", *arguments.SIDECAR_VALUES, *arguments.SIDECAR_FLAGS}
    docker = [option for option in options if option[0] not in own]
    if kind == ML.name:
        docker = [("user", _program_user(options)), *(o for o in docker if o[0] != "user")]
    return Sidecar(
        kind=kind,
        name=arguments.last(options, "name") or "",
        image=image or "",
        entrypoint=tuple(shlex.split(arguments.last(options, "entrypoint") or "")),
        command=tuple(shlex.split(arguments.last(options, "cmd") or "")),
        docker=checked_volumes(docker, kind),
        pid_main=arguments.flag(options, "pid-main", False),
        volumes_from_main=arguments.flag(options, "volumes-from-main", False),
    )


def _program_user(options: Sequence[tuple[str, str | None]]) -> str:
    """uid:gid of the user's program: --ml-user, its group looked up if it has none; or ours."""
    user = arguments.last(options, "user")
    if not user:
        return f"{os.getuid()}:{os.getgid()}"
    if ":" in user:
        return user
    return f"{user}:{_primary_group(_number(user, 'ml-user', 'bad user id', 0))}"


def _docker_socket(build: _Builder, default_socket: Callable[[], str]) -> None:
    path = existing(
        build.get("docker-socket-file") or default_socket(),
        "docker-socket-file",
        Path.is_socket,
        "bad docker socket file",
    )
    build.mounts.append(Mount(path, DOCKER_SOCKET, read_only=False))
    owner = Path(path).stat().st_gid
    group = _number(build.get("docker-group-id"), "docker-group-id", "bad group id", owner)
    build.container_env["SWOP_DOCKER_GID"] = str(group)


def _listen_locally(build: _Builder) -> None:
    """A local process that is announced on loopback needs no door to other hosts."""
    try:
        local = ipaddress.ip_address(build.get("host-ip") or "").is_loopback
    except ValueError:
        local = build.get("host-ip") == "localhost"
    if local:
        build.process_env["SWARM_LISTEN"] = "127.0.0.1"


def _port(text: str, option: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise UsageError(f"--{option}: {text}: bad port")
    return int(text)


def _number(text: str | None, option: str, complaint: str, default: int) -> int:
    if text is None:
        return default
    if not text.isdigit():
        raise UsageError(f"--{option}: {text}: {complaint}")
    return int(text)


def _primary_group(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


USED_BY = {
    SN.name: SN_OPTIONS,
    SL.name: SL_OPTIONS,
    SWOP.name: SWOP_OPTIONS,
    SWCI.name: SWCI_OPTIONS,
    ML.name: (),
}
