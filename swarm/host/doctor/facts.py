"""What the doctor knows about a host: plain values, gathered by others, judged by `findings`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

Problem = tuple[str, str]  # code and cause


@dataclass(frozen=True)
class IdentityFact:
    """One component's certificate and key."""

    who: str  # "SN", "SL of pair 0"
    cert: str
    key: str
    problem: Problem | None  # why it cannot be used
    not_after: datetime | None = None
    key_mode: int | None = None  # permission bits; None where there is no file
    trusted: tuple[tuple[str, datetime], ...] = ()  # CAs: name, and until when


@dataclass(frozen=True)
class PathFact:
    """A file or directory that is mounted, or a volume."""

    what: str  # "data of pair 0"
    path: str
    kind: str  # "directory", "file", "volume", or "" for nothing there
    expected: str  # "directory", "file" or "volume"
    readable: bool = True
    writable: bool = True
    must_write: bool = False


@dataclass(frozen=True)
class PortFact:
    """A port of this host that others use."""

    port: int
    what: str  # "API of the network node"
    problem: str = ""  # why it cannot be opened, "" when it can
    user: str = ""  # who has it open
    ours: bool = False  # that is a node of this host


@dataclass(frozen=True)
class AddressFact:
    """The address under which others know this host."""

    address: str
    resolved: tuple[str, ...]  # what it stands for; empty: unknown
    own: bool  # one of them is of an interface of this host
    loopback: bool


@dataclass(frozen=True)
class DoorFact:
    """A port of another host, tried from here."""

    place: str
    what: str  # "mesh of sn2"
    problem: str  # "" when a connection was made


@dataclass(frozen=True)
class SnFact:
    """A network node that was asked."""

    place: str
    needed: bool  # it was named to be joined or used; else the ledger knows it
    problem: Problem | None = None  # of connecting and being accepted
    starting: str = ""  # it is not ready yet, and why
    skew: float | None = None  # seconds that its clock is ahead of ours
    seen_as: str = ""  # the address from which it sees us come
    asked: tuple[int, ...] = ()  # ports that it was asked to reach
    reached: tuple[int, ...] = ()
    no_look_back: str = ""  # why it could not be asked


@dataclass(frozen=True)
class EngineFact:
    """The container engine, where one is needed."""

    problem: Problem | None
    version: str = ""
    images: tuple[tuple[str, str, bool], ...] = ()  # name, what for, whether it is there
    networks: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True)
class GpuFact:
    """What programs ask for, and what the host has."""

    requests: tuple[tuple[str, str], ...]  # who ("pair 0"), what ("all", "2", "device=0,1")
    devices: int  # NVIDIA devices of this host
    in_engine: bool | None  # whether the engine can hand them out; None: no engine
    missing: tuple[tuple[str, str], ...] = ()  # who, device file that is not there


@dataclass(frozen=True)
class DiskFact:
    """Space where something is written."""

    what: str
    path: str
    free: int  # bytes


@dataclass(frozen=True)
class Facts:
    """All of it."""

    now: datetime
    founder: bool  # this host founds the network, so there may be nobody to ask yet
    problems: tuple[Problem, ...] = ()  # of reading what shall be checked
    notices: tuple[str, ...] = ()  # of the profile's reader
    identities: tuple[IdentityFact, ...] = ()
    paths: tuple[PathFact, ...] = ()
    address: AddressFact | None = None
    ports: tuple[PortFact, ...] = ()
    sns: tuple[SnFact, ...] = ()
    doors: tuple[DoorFact, ...] = ()
    engine: EngineFact | None = None
    gpu: GpuFact | None = None
    disks: tuple[DiskFact, ...] = field(default=())
