"""swarm.yaml: what one host runs, validated as a whole.

`read_host` is the door; everything behind it works with a `HostFile` that is known to be complete.
All problems of a file are reported at once, each with file, line, key, what was expected and what
was found. Paths are relative to the file, so that it can be moved together with what it names.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from swarm.address import service_address
from swarm.errors import LocalError
from swop.located_yaml import YamlProblem, load
from swop.profile import Environment, Text, describe, problems

FILE_NAME = "swarm.yaml"
API_PORT, P2P_PORT, FS_PORT = 30304, 30303, 30305
MAX_JOIN, MAX_LEARNERS = 25, 64
DEFAULT_RUNNER = "defaulttaskbb.taskdb.sml.hpe"

_WORD = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$"

Port = Annotated[int, Field(ge=1, le=65535)]
Word = Annotated[str, Field(pattern=_WORD)]


def checked_address(text: str) -> str:
    """An IP address or a host name. Raises ValueError."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    problem = f"expected an IP address or a host name, found {text!r}"
    if ":" in text or text.replace(".", "").isdigit():
        raise ValueError(problem)
    try:
        return service_address(text)[0]
    except ValueError as error:
        raise ValueError(problem) from error


def split_place(text: str) -> tuple[str, int]:
    """`host`, `host:port` or `[v6]:port` as host and port (default 30304). Raises ValueError."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError(f"expected [address]:port, found {text!r}")
        port = port[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"expected a port from 1 to 65535 behind the colon, found {text!r}")
    return checked_address(host), int(port or API_PORT)


def _place(text: str) -> str:
    split_place(text)
    return text


def _numbers_are_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _null_is_empty(value: Any) -> Any:
    return [] if value is None else [value] if isinstance(value, str) else value


Address = Annotated[str, AfterValidator(checked_address)]
Place = Annotated[str, AfterValidator(_place)]
Places = Annotated[
    list[Place], BeforeValidator(_null_is_empty), Field(default_factory=list, max_length=MAX_JOIN)
]


class Strict(BaseModel):
    """Unknown keys are errors; a value, once read, does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Certificates(Strict):
    """Where the identity files are, named as gen-cert names them."""

    directory: Text = Field(description="what gen-cert wrote: workspace/<example>/cert")
    index: Annotated[str, BeforeValidator(_numbers_are_text), Field(pattern=_WORD)] = Field(
        description="index of this host, as in sn-1-cert.pem"
    )
    capath: Text | None = Field(
        None, description="directory of trusted CAs (default: ca/capath in directory)"
    )


class NetworkNode(Strict):
    """The SN of this host."""

    join: Places = Field(description="API addresses of running SNs; empty: found a new network")
    api_port: Port = API_PORT
    p2p_port: Port = P2P_PORT
    fault_model: Literal["byzantine", "crash"] | None = Field(
        None, description="for a founder only; stays for ever"
    )
    envvars: Environment = Field(default_factory=dict)

    @model_validator(mode="after")
    def _only_a_founder_chooses(self) -> NetworkNode:
        if self.join and self.fault_model is not None:
            raise ValueError("fault_model: only the founder chooses it, and join is given")
        if self.api_port == self.p2p_port:
            raise ValueError(f"api_port and p2p_port: expected two ports, found {self.api_port}")
        return self


class Learner(Strict):
    """One pair of learner and user's program."""

    data: Text | None = Field(None, description="directory that the program sees as its own")
    port: Port = FS_PORT
    envvars: Environment = Field(default_factory=dict, description="of the user's program")
    gpus: Annotated[str | int | None, Field()] = Field(None, description='"all", or a number')


class Operator(Strict):
    """The SWOP of this host."""

    sn: Place | None = Field(None, description="the SN to use, where this host has none")
    profile: Text | None = Field(None, description="a profile file, instead of learners")
    group: Word = Field("swarm", description="first part of container names")
    taskrunner: Text = DEFAULT_RUNNER
    learners: Annotated[list[Learner], Field(max_length=MAX_LEARNERS)] = Field(
        default_factory=list, description="the pairs of this host, instead of a profile"
    )
    envvars: Environment = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_description(self) -> Operator:
        if (self.profile is None) == (not self.learners):
            raise ValueError("expected either profile or learners")
        ports = [learner.port for learner in self.learners]
        if twice := {port for port in ports if ports.count(port) > 1}:
            raise ValueError(f"learners: expected a different port each, found {min(twice)} twice")
        return self


class Docker(Strict):
    """What containers need."""

    network: Text = Field(description="name of the Docker network of this host's containers")
    image: Text | None = Field(None, description="image of the nodes (default: swarm-node:…)")
    image_of_programs: Text | None = Field(
        None, description="image of the user's program, for the doctor to look for"
    )


class HostFile(Strict):
    """A whole host."""

    name: Word = Field(description="first part of the names of this host's nodes")
    runtime: Literal["process", "docker"] = "process"
    address: Address = Field(description="at which other hosts reach this one")
    certificates: Certificates
    network_node: NetworkNode | None = None
    operator: Operator | None = None
    docker: Docker | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> HostFile:
        if self.network_node is None and self.operator is None:
            raise ValueError("expected network_node, operator, or both")
        if self.runtime == "docker" and self.docker is None:
            raise ValueError("docker: expected its network, as runtime is docker")
        if self.operator is not None:
            if self.network_node is None and self.operator.sn is None:
                raise ValueError("operator.sn: expected an SN to use, as there is no network_node")
            if self.network_node is not None and self.operator.sn is not None:
                raise ValueError("operator.sn: expected no such key, as the host's own SN is used")
        if twice := _shared_ports(self):
            raise ValueError(f"expected a different port for each node, found {min(twice)} twice")
        return self


def _shared_ports(host: HostFile) -> set[int]:
    ports = [learner.port for learner in host.operator.learners] if host.operator else []
    if host.network_node is not None:
        ports += [host.network_node.api_port, host.network_node.p2p_port]
    return {port for port in ports if ports.count(port) > 1}


@dataclass(frozen=True)
class ReadHost:
    """A valid file, and where it lies."""

    file: Path
    host: HostFile

    def path(self, text: str) -> Path:
        """A path that the file names."""
        return (self.file.parent / Path(text).expanduser()).absolute()

    def identity(self, role: str) -> tuple[Path, Path]:
        """Certificate and key of a component: sn, sl, swop or swci."""
        certificates = self.host.certificates
        stem = f"{role}-{certificates.index}"
        directory = self.path(certificates.directory)
        return directory / f"{stem}-cert.pem", directory / f"{stem}-key.pem"

    @property
    def capath(self) -> Path:
        """Directory of trusted CAs."""
        given = self.host.certificates.capath
        if given is not None:
            return self.path(given)
        return self.path(self.host.certificates.directory) / "ca" / "capath"

    @property
    def api(self) -> tuple[str, int]:
        """The SN that this host's operator uses."""
        if self.host.network_node is not None:
            return self.host.address, self.host.network_node.api_port
        assert self.host.operator is not None and self.host.operator.sn is not None, "validated"
        return split_place(self.host.operator.sn)


def read_host(file: Path) -> ReadHost:
    """Read and validate a file. Raises LocalError SW9030 (file), SW9031 (what is in it)."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise LocalError("SW9030", f"{file}: {why}") from error
    return ReadHost(file.absolute(), parse_host(text, file.name))


def parse_host(text: str, name: str) -> HostFile:
    """`read_host` for text that is already there; `name` goes into messages."""
    try:
        located = load(text)
    except YamlProblem as error:
        raise LocalError("SW9031", f"{name}, line {error.line}: {error.text}") from error
    if not isinstance(located.value, dict):
        found = describe(located.value)
        raise LocalError("SW9031", f"{name}, line 1: expected `key: value` lines, found {found}")
    try:
        return HostFile.model_validate(located.value)
    except ValidationError as error:
        raise LocalError("SW9031", "; ".join(problems(error, located, name))) from error
