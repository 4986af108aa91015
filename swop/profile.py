"""The operator's profile: what this host offers to tasks, validated as a whole.

`read_profile` is the door: everything behind it works with a `Profile` that is known to be complete
and consistent. All problems of a file are reported at once, each with file, line, key path, what
was expected and what was found.

Compatibility: profiles written for HPE Swarm Learning are accepted as they are. The licence
server's address is taken and ignored, and so is, with a warning, a key that some profiles carry
though it never had an effect. Any other unknown key is an error: ignoring a misspelt one would
change what the profile means.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from swarm.address import service_address
from swarm.errors import LocalError
from swop.located_yaml import Located, YamlProblem, load

KeyPath = tuple[str | int, ...]
Port = Annotated[int, Field(ge=1, le=65535)]
Text = Annotated[str, Field(min_length=1)]


def _environment(value: Any) -> Any:
    """A list of maps (the usual form), one map, or null become one map; null values become ""."""
    if value is None:
        return {}
    entries = [value] if isinstance(value, dict) else value
    if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
        raise ValueError("expected null or a list of `NAME: value` entries")
    merged: dict[str, str] = {}
    for entry in entries:
        for name, content in entry.items():
            if isinstance(content, dict | list):
                raise ValueError(f"expected text as the value of {name}, found a structure")
            if not name or "=" in name or "\0" in name:
                raise ValueError(f"expected the name of an environment variable, found {name!r}")
            merged[name] = "" if content is None else str(content)
    return merged


def _options(value: Any) -> Any:
    """A list of one-key maps becomes one map; a key that is repeated collects its values."""
    if value is None:
        return {}
    entries = [value] if isinstance(value, dict) else value
    if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
        raise ValueError("expected null or a list of `option: value` entries")
    merged: dict[str, Any] = {}
    for entry in entries:
        for name, content in entry.items():
            if name in merged:
                first = merged[name] if isinstance(merged[name], list) else [merged[name]]
                more = content if isinstance(content, list) else [content]
                merged[name] = [*first, *more]
            else:
                merged[name] = content
    return merged


def _labels(value: Any) -> Any:
    """A map, a list of maps, or a list of `name` / `name=value` texts become one map."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return {name: "" if content is None else str(content) for name, content in value.items()}
    if not isinstance(value, list):
        raise ValueError("expected null, a map, or a list of labels")
    merged: dict[str, str] = {}
    for item in value:
        if isinstance(item, dict):
            merged.update(_labels(item))
        else:
            name, _, content = str(item).partition("=")
            merged[name] = content
    return merged


def _address(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        raise ValueError(f"expected an IPv4 address, found {value!r}") from None


_GPUS = re.compile(r"all|[1-9][0-9]{0,3}|device=[\w.:-]+(,[\w.:-]+)*")


def _gpus(value: Any) -> Any:
    """`"all"`, a number or `"device=…"`, with or without the quotes that shells want."""
    text = str(value).strip().strip("\"'").replace(" ", "")
    if not _GPUS.fullmatch(text) or isinstance(value, bool):
        raise ValueError(f'expected "all", a number from 1, or "device=0,1", found {value!r}')
    return text


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _service(value: str) -> str:
    service_address(value)
    return value


def _null_is_empty(value: Any) -> Any:
    return [] if value is None else value


Environment = Annotated[dict[str, str], BeforeValidator(_environment)]
Labels = Annotated[dict[str, str], BeforeValidator(_labels)]
TextList = Annotated[list[Text], BeforeValidator(_listed)]
Service = Annotated[str, AfterValidator(_service)]


class MountType(str, Enum):
    """Where a mount comes from: a path of this host, or a named volume."""

    BIND = "BIND"
    VOLUME = "VOLUME"


class AttributeType(str, Enum):
    """What an identity attribute holds."""

    KEY = "KEY"
    CERT = "CERT"
    CACERT = "CACERT"
    CAPATH = "CAPATH"
    SPIFFE_SOCKETPATH = "SPIFFE_SOCKETPATH"


class ManagerType(str, Enum):
    """How pairs are run."""

    DOCKER = "DOCKER"
    PROCESS = "PROCESS"


class AccessType(str, Enum):
    """How the engine is found: by its environment variables, or the usual socket."""

    FROMENV = "FROMENV"


class Strict(BaseModel):
    """Unknown keys are errors; a value, once read, does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AccessInfo(Strict):
    accesstype: AccessType = Field(AccessType.FROMENV, description="how the engine is found")


class ResourceManager(Strict):
    mgrtype: ManagerType = Field(description="containers, or plain local processes")
    accessinfo: AccessInfo = AccessInfo(accesstype=AccessType.FROMENV)


class LicenceLocator(Strict):
    host: str | None = None
    port: Port | None = None


class Licence(Strict):
    locator: LicenceLocator | None = None


class ApiLocator(Strict):
    host: str | None = Field(None, description="address of an SN; null = what run-swop was given")
    port: Port | None = Field(None, description="port of its API; null = what run-swop was given")
    service: Service | None = Field(
        None, description="name[:port] of the API behind a reverse proxy; comes before host"
    )


class ApiServer(Strict):
    locator: ApiLocator


class Attribute(Strict):
    aType: AttributeType = Field(description="which part of the identity this is")
    mType: MountType = Field(description="whether src is a path of this host or a volume")
    src: Text = Field(description="path on this host, or name of the volume")
    tgt: Text = Field(description="where the SL sees it (absolute)")
    subPath: str | None = Field(
        None,
        validation_alias=AliasChoices("subPath", "subpath"),
        description="path below tgt, when src is a volume that holds several files",
    )

    @model_validator(mode="after")
    def _target_is_absolute(self) -> Attribute:
        if not self.tgt.startswith("/"):
            raise ValueError(f"expected an absolute path as tgt, found {self.tgt!r}")
        return self

    @property
    def path(self) -> str:
        """What the SL's environment variable names."""
        return f"{self.tgt.rstrip('/')}/{self.subPath.strip('/')}" if self.subPath else self.tgt


class IdentityItem(Strict):
    attribute: Attribute


class PrivateData(Strict):
    src: Text = Field(description="path on this host, or name of the volume")
    mType: MountType = Field(description="whether src is a path of this host or a volume")


class NetworkOptions(Strict):
    ip: Annotated[Text, AfterValidator(_address)] | None = Field(
        None, description="fixed address of the container (IPv4), in the network's subnet"
    )


class ContainerOptions(Strict):
    """Devices for the user's program: NVIDIA (`gpus`) and AMD (the others)."""

    gpus: Annotated[str, BeforeValidator(_gpus)] | None = Field(
        None, description='NVIDIA: "all", a number, or "device=3,5"; the SL gets none'
    )
    device: TextList = Field(default_factory=list, description="device files, such as /dev/kfd")
    ipc: Text | None = Field(None, description="IPC mode, such as host")
    shm_size: str | int | None = Field(
        None, validation_alias="shm-size", description="size of /dev/shm, such as 16G"
    )
    group_add: TextList = Field(
        default_factory=list, validation_alias="group-add", description="further groups"
    )
    cap_add: TextList = Field(
        default_factory=list, validation_alias="cap-add", description="further capabilities"
    )
    security_opt: TextList = Field(
        default_factory=list, validation_alias="security-opt", description="security options"
    )
    privileged: bool = Field(False, description="full access to the host's devices")


MAX_PROBLEMS = 50  # told at a time
NO_NETWORK_OPTIONS = NetworkOptions.model_validate({})
NO_CONTAINER_OPTIONS = ContainerOptions.model_validate({})


# Keys of a slnodedef that never had an effect, and that profiles in circulation carry.
WITHOUT_EFFECT = frozenset({"sharedcontent"})


class Node(Strict):
    """One pair: a learner (SL) and the user's program (ML) beside it."""

    idx: Annotated[int, Field(ge=0)] = Field(description="number of the pair, unique, from 0")
    identity: Annotated[list[IdentityItem], Field(min_length=1)] = Field(
        description="certificate, key and trusted CAs of the SL"
    )
    slhostip: str | None = Field(
        None, description="address at which other hosts reach the SL; null = its host name"
    )
    slport: Port | None = Field(
        None, description="port of this host for the SL; null = not published (30305 inside)"
    )
    slfsservice: Service | None = Field(
        None, description="name[:port] of the SL behind a proxy; comes before slhostip"
    )
    slhostname: str | None = Field(description="host name of the SL's container")
    privatedata: PrivateData | None = Field(description="mounted at the task's PrivateContent")
    slenvvars: Environment = Field(description="environment of the SL; overrides envvars")
    sllabels: Labels = Field(default_factory=dict, description="labels of the SL's container")
    slnetworkopts: Annotated[NetworkOptions, BeforeValidator(_options)] = Field(
        NO_NETWORK_OPTIONS, description="fixed address of the SL's container"
    )
    usrnetworkopts: Annotated[NetworkOptions, BeforeValidator(_options)] = Field(
        NO_NETWORK_OPTIONS, description="fixed address of the ML's container"
    )
    usrlabels: Labels = Field(default_factory=dict, description="labels of the ML's container")
    usrhostname: str | None = Field(description="host name of the ML's container")
    usrenvvars: Environment = Field(description="environment of the ML; overrides the task's")
    usrcontaineropts: Annotated[ContainerOptions, BeforeValidator(_options)] = Field(
        NO_CONTAINER_OPTIONS, description="devices for the ML's container"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_effect(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if key not in WITHOUT_EFFECT}

    @model_validator(mode="after")
    def _identity_is_complete(self) -> Node:
        kinds = [item.attribute.aType for item in self.identity]
        twice = {kind.value for kind in kinds if kinds.count(kind) > 1}
        if twice:
            raise ValueError(f"identity: expected each aType once, found {', '.join(twice)} twice")
        if AttributeType.SPIFFE_SOCKETPATH in kinds:
            return self
        missing = [k.value for k in (AttributeType.CERT, AttributeType.KEY) if k not in kinds]
        if not {AttributeType.CACERT, AttributeType.CAPATH} & set(kinds):
            missing.append("CAPATH or CACERT")
        if missing:
            raise ValueError(f"identity: expected also an attribute {', '.join(missing)}")
        return self


class NodeItem(Strict):
    slnodedef: Node


class Profile(Strict):
    """A whole profile."""

    groupname: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = Field(
        description="first part of all container and volume names"
    )
    taskrunner: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:@+=~-]{0,159}$")] = Field(
        description="the taskrunner to listen to"
    )
    policyuri: None = Field(None, description="must be null: every task is accepted")
    resourcemgr: ResourceManager = Field(description="what runs the pairs")
    network: str | None = Field(description="Docker network of SL and ML; PROCESS has none")
    apls: Licence | None = Field(None, description="accepted and ignored: no licence is needed")
    apisrv: ApiServer = Field(description="the SN that operator and learners talk to")
    envvars: Environment = Field(description="environment of all SLs; its proxies serve builds")
    dns: Annotated[TextList, BeforeValidator(_null_is_empty)] = Field(
        default_factory=list, description="name servers of the containers"
    )
    nodes: Annotated[list[NodeItem], Field(min_length=1, max_length=64)] = Field(
        description="the pairs"
    )

    @property
    def pairs(self) -> list[Node]:
        """The nodes, by index."""
        return sorted((item.slnodedef for item in self.nodes), key=lambda node: node.idx)


@dataclass(frozen=True)
class Checked:
    """A valid profile and what its reader should tell the user."""

    profile: Profile
    warnings: tuple[str, ...]


def read_profile(path: Path) -> Checked:
    """Read and validate a profile. Raises LocalError SW7001 (file), SW7002 (YAML), SW7003."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError("SW7001", f"profile {path}: {error}") from error
    return parse_profile(text, path.name)


def parse_profile(text: str, name: str) -> Checked:
    """`read_profile` for text that is already there; `name` goes into messages."""
    try:
        located = load(text)
    except YamlProblem as error:
        raise LocalError("SW7002", f"{name}, line {error.line}: {error.text}") from error
    if not isinstance(located.value, dict):
        found = describe(located.value)
        raise LocalError("SW7003", f"{name}, line 1: expected `key: value` lines, found {found}")
    try:
        profile = Profile.model_validate(located.value)
    except ValidationError as error:
        raise LocalError("SW7003", "; ".join(problems(error, located, name))) from error
    collisions = [_told(path, said, located, name) for path, said in relations(profile)]
    if collisions:
        raise LocalError("SW7003", "; ".join(collisions[:MAX_PROBLEMS]))
    return Checked(profile, tuple(_warnings(located, name)))


def relations(profile: Profile) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong between keys that are right each by itself: where, and what was expected."""
    if profile.resourcemgr.mgrtype is ManagerType.DOCKER and not profile.network:
        yield ("network",), "expected the name of a Docker network, found null"
    taken: dict[tuple[str, Any], KeyPath] = {}
    for number, item in enumerate(profile.nodes):
        for what, key, value in _claims(item.slnodedef):
            if what == "slhostname" and profile.resourcemgr.mgrtype is not ManagerType.DOCKER:
                continue  # a local process has no host name of its own
            path = ("nodes", number, "slnodedef", *key)
            other = taken.setdefault((what, value), path)
            if other is not path:
                yield path, f"expected a different {what} each, found {value} at {key_path(other)}"
        yield from _mounts_of_one(number, item.slnodedef)


def _claims(node: Node) -> Iterator[tuple[str, KeyPath, Any]]:
    """What a pair takes for itself alone: what it is, the key below the node, the value."""
    yield "idx", ("idx",), node.idx
    if node.slport is not None:
        yield "slport", ("slport",), node.slport
    for key in ("slnetworkopts", "usrnetworkopts"):
        address = getattr(node, key).ip
        if address is not None:
            yield "address", (key,), address
    if node.slhostname and not node.slhostip:  # others reach the SL by this name
        yield "slhostname", ("slhostname",), node.slhostname


def _mounts_of_one(number: int, node: Node) -> Iterator[tuple[KeyPath, str]]:
    """Two attributes may share a mount, but not a place for different sources."""
    seen: dict[str, str] = {}
    for place, item in enumerate(node.identity):
        attribute = item.attribute
        source = f"{attribute.mType.value} {attribute.src}"
        other = seen.setdefault(attribute.tgt.rstrip("/"), source)
        if other != source:
            path = ("nodes", number, "slnodedef", "identity", place, "attribute", "tgt")
            yield path, f"expected a place of its own for {source}, found {other} there"


def problems(error: ValidationError, located: Located, name: str) -> list[str]:
    """One text for each problem: file, line, key path, expected, found."""
    texts = []
    for item in error.errors(include_url=False)[:MAX_PROBLEMS]:
        path = tuple(part for part in item["loc"] if not str(part).startswith("function-"))
        texts.append(_told(path, _expectation(item), located, name))
    return texts


def _told(path: KeyPath, text: str, located: Located, name: str) -> str:
    """A problem with its place."""
    shown = key_path(path)
    return f"{name}, line {located.line(path)}{': ' + shown if shown else ''}: {text}"


def key_path(path: KeyPath) -> str:
    """`("nodes", 0, "slnodedef", "slport")` as `nodes[0].slnodedef.slport`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _keys() -> tuple[str, ...]:
    """Every key that a profile can have, for those who misspell one."""
    names = []
    for model in Strict.__subclasses__():
        for name, info in model.model_fields.items():
            alias = info.validation_alias
            names.append(alias if isinstance(alias, str) else name)
    return tuple(names)


KEYS = _keys()

# What each kind of pydantic error expected; the names in braces come from the error.
EXPECTED = {
    "enum": "one of {expected}",
    "literal_error": "{expected}",
    "none_required": "null (no policy engine is supported)",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text that fits {pattern}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
    "list_type": "a list",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "model_type": "`key: value` lines",
    "dict_type": "`key: value` lines",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
}


def _expectation(item: Mapping[str, Any]) -> str:
    """What one pydantic error says, in the words of a profile's author."""
    kind, context, found = item["type"], item.get("ctx", {}), describe(item["input"])
    if kind == "missing":
        return "expected a value for this key, found nothing"
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(item["loc"][-1]), KEYS, n=1, cutoff=0.75)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"expected no such key, found it with {found}{hint}"
    if kind == "value_error":
        return str(context.get("error", item["msg"]))
    template = EXPECTED.get(kind)
    expected = template.format(**context) if template else str(item["msg"])
    return f"expected {expected}, found {found}"


def describe(value: Any) -> str:
    """A found value, short."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return f"{len(value)} keys" if value else "an empty map"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _warnings(located: Located, name: str) -> list[str]:
    texts = []
    for number, item in enumerate(located.value["nodes"]):
        for key in sorted(WITHOUT_EFFECT & set(item["slnodedef"])):
            path = ("nodes", number, "slnodedef", key)
            texts.append(_told(path, "has no effect, and is ignored", located, name))
    return texts
