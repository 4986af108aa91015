"""From facts to findings: pure, one function for each kind of fact.

A finding says what is wrong and what to do about it. An error means that training would fail or
never begin (no-go); a warning is something that the doctor could not check, or that will hurt
later; "ok" tells what was looked at, so that silence never stands for health.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from swarm.error_catalogue import CATALOGUE
from swarm.host.doctor.facts import (
    AddressFact,
    DiskFact,
    DoorFact,
    EngineFact,
    Facts,
    GpuFact,
    IdentityFact,
    PathFact,
    PortFact,
    Problem,
    SnFact,
)

EXPIRES_SOON = timedelta(days=30)
SKEW_WARNING, SKEW_ERROR = 5.0, 60.0  # seconds
DISK_ERROR, DISK_WARNING = 1 << 30, 10 << 30  # bytes free
OTHERS, GROUP = 0o007, 0o070


class Level(str, Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One sentence about one thing. `code` and `remedy` are "" where nothing is wrong."""

    level: Level
    topic: str
    text: str
    code: str = ""
    remedy: str = ""


def judge(facts: Facts) -> list[Finding]:
    """All findings, by topic."""
    return [
        *(_problem("file", problem) for problem in facts.problems),
        *(Finding(Level.WARNING, "file", notice) for notice in facts.notices),
        *(found for fact in facts.identities for found in _identity(fact, facts.now)),
        *_authorities(facts.identities, facts.now),
        *(found for fact in facts.paths for found in _path(fact)),
        *_address(facts.address, alone=facts.founder and not facts.sns),
        *(_port(fact) for fact in facts.ports),
        *(found for fact in facts.sns for found in _sn(fact)),
        *(_door(fact) for fact in facts.doors),
        *_looked_back(facts),
        *_engine(facts.engine),
        *_gpu(facts.gpu),
        *(_disk(fact) for fact in facts.disks),
    ]


def goes(findings: Sequence[Finding]) -> bool:
    """Go, or no-go."""
    return not any(finding.level is Level.ERROR for finding in findings)


def _error(topic: str, code: str, text: str, remedy: str = "") -> Finding:
    return Finding(Level.ERROR, topic, text, code, remedy or CATALOGUE[code].remedy)


def _warning(topic: str, code: str, text: str, remedy: str = "") -> Finding:
    return Finding(Level.WARNING, topic, text, code, remedy or CATALOGUE[code].remedy)


def _problem(topic: str, problem: Problem) -> Finding:
    return _error(topic, problem[0], problem[1])


# ------------------------------------------------------------------ certificates

CERTIFICATES = "certificates"


def _identity(fact: IdentityFact, now: datetime) -> Iterator[Finding]:
    if fact.problem is not None:
        yield _error(CERTIFICATES, fact.problem[0], f"{fact.who}: {fact.problem[1]}")
    elif fact.not_after is not None:
        left = fact.not_after - now
        until = f"{fact.who}: {fact.cert} is valid until {fact.not_after:%Y-%m-%d}"
        if left < EXPIRES_SOON:
            yield _warning(CERTIFICATES, "SW9040", f"{until}: {_days(left)} left")
        else:
            yield Finding(Level.OK, CERTIFICATES, until)
    if fact.key_mode is None:
        return
    if fact.key_mode & OTHERS:
        text = f"{fact.who}: {fact.key} has mode {fact.key_mode:04o}: everybody here may use it"
        yield _error(CERTIFICATES, "SW9041", text, f"chmod 600 {fact.key}")
    elif fact.key_mode & GROUP:
        text = f"{fact.who}: {fact.key} has mode {fact.key_mode:04o}: its group may use it"
        yield _warning(CERTIFICATES, "SW9041", text, f"chmod 600 {fact.key}")


def _authorities(identities: Sequence[IdentityFact], now: datetime) -> Iterator[Finding]:
    """CAs expire as well, and take every certificate below them along."""
    cas = {ca for fact in identities for ca in fact.trusted}
    for name, until in sorted(cas):
        left = until - now
        if left < timedelta(0):
            text = f"the trusted CA {name} expired on {until:%Y-%m-%d}"
            yield _warning(CERTIFICATES, "SW9040", text, _NEW_CA)
        elif left < EXPIRES_SOON:
            text = f"the trusted CA {name} expires on {until:%Y-%m-%d}: {_days(left)} left"
            yield _warning(CERTIFICATES, "SW9040", text, _NEW_CA)
    if cas:
        names = ", ".join(sorted(name for name, _ in cas))
        yield Finding(Level.OK, CERTIFICATES, f"trusted CAs: {names}")


_NEW_CA = "have its owner make a new one, and exchange the CA certificates again"


def _days(left: timedelta) -> str:
    return f"{left.days} day{'' if left.days == 1 else 's'}"


# ------------------------------------------------------------------ paths, disks

PATHS = "paths"


def _path(fact: PathFact) -> Iterator[Finding]:
    shown = f"{fact.what}: {fact.path}"
    if not fact.kind:
        yield _error(PATHS, "SW9042", f"{shown} does not exist")
    elif fact.kind != fact.expected:
        yield _error(PATHS, "SW9042", f"{shown} is a {fact.kind}, and a {fact.expected} is needed")
    elif not fact.readable:
        yield _error(PATHS, "SW9043", f"{shown} cannot be read by this user")
    elif fact.must_write and not fact.writable:
        yield _error(PATHS, "SW9043", f"{shown} cannot be written by this user")
    else:
        yield Finding(Level.OK, PATHS, shown)


def _disk(fact: DiskFact) -> Finding:
    text = f"{fact.what}: {fact.free / (1 << 30):.1f} GiB free at {fact.path}"
    if fact.free < DISK_ERROR:
        return _error("disk", "SW9044", text)
    if fact.free < DISK_WARNING:
        return _warning("disk", "SW9044", text)
    return Finding(Level.OK, "disk", text)


# ------------------------------------------------------------------ network

NETWORK = "network"


def _address(fact: AddressFact | None, *, alone: bool) -> Iterator[Finding]:
    if fact is None:
        return
    if not fact.resolved:
        yield _error(NETWORK, "SW9045", f"the address {fact.address} is no known name here")
    elif fact.loopback and not alone:
        text = f"the address {fact.address} is this host's loopback: no other host reaches it"
        yield _warning(NETWORK, "SW9045", text)
    elif not fact.own:
        text = f"the address {fact.address} is none of this host's own"
        remedy = "right behind a NAT or a proxy that forwards the ports; else correct the address"
        yield _warning(NETWORK, "SW9045", text, remedy)
    else:
        yield Finding(Level.OK, NETWORK, f"the address {fact.address} is this host's")


def _port(fact: PortFact) -> Finding:
    shown = f"port {fact.port} ({fact.what})"
    if fact.ours:
        return Finding(Level.OK, NETWORK, f"{shown} is in use by {fact.user}, which runs")
    if fact.user:
        return _error(NETWORK, "SW9046", f"{shown} is taken by {fact.user}")
    if fact.problem:
        return _error(NETWORK, "SW9046", f"{shown} cannot be opened: {fact.problem}")
    return Finding(Level.OK, NETWORK, f"{shown} is free")


def _sn(fact: SnFact) -> Iterator[Finding]:
    """From here to there, and the two clocks."""
    if fact.problem is not None:
        code, cause = fact.problem
        if fact.needed:
            yield _error(NETWORK, code, cause, _REACH if code == "SW5001" else "")
        else:
            yield _warning(NETWORK, code, cause, _REACH if code == "SW5001" else "")
        return
    yield Finding(Level.OK, NETWORK, f"{fact.place} answers, and accepts this host's certificate")
    if fact.starting:
        text = f"{fact.place} is not ready: {fact.starting}"
        yield _warning(NETWORK, "SW9050", text)
    yield from _clock(fact)


_REACH = "start it, or open its port: a firewall of this host, of that one, or between them"


def _door(fact: DoorFact) -> Finding:
    shown = f"from here to {fact.place} ({fact.what})"
    if fact.problem:
        return _error(NETWORK, "SW9047", f"{shown}: {fact.problem}")
    return Finding(Level.OK, NETWORK, f"{shown}: open")


def _clock(fact: SnFact) -> Iterator[Finding]:
    if fact.skew is None:
        return
    ahead = f"{abs(fact.skew):.0f} s {'ahead of' if fact.skew > 0 else 'behind'} this host's"
    text = f"the clock of {fact.place} is {ahead}"
    if abs(fact.skew) >= SKEW_ERROR:
        yield _error("clock", "SW9048", text)
    elif abs(fact.skew) >= SKEW_WARNING:
        yield _warning("clock", "SW9048", text)
    else:
        yield Finding(Level.OK, "clock", f"the clock of {fact.place} agrees with this host's")


def _looked_back(facts: Facts) -> Iterator[Finding]:
    """From the others to here: only they can tell."""
    names = {fact.port: fact.what for fact in facts.ports}
    open_here = [fact.port for fact in facts.ports if not (fact.problem or fact.user)]
    answering = [fact for fact in facts.sns if fact.problem is None]
    if open_here and not answering:
        ports = ", ".join(str(port) for port in open_here)
        why = "no network node answers" if facts.sns else "no network node elsewhere is known"
        text = f"nobody could try port{'s' * (len(open_here) > 1)} {ports} of this host: {why}"
        yield _warning(NETWORK, "SW9050", text)
    for fact in answering:
        if fact.no_look_back:
            text = f"{fact.place} could not try the ports of this host: {fact.no_look_back}"
            yield _warning(NETWORK, "SW9050", text)
        elif fact.asked and _elsewhere(fact, facts.address):
            text = (
                f"{fact.place} sees this host come from {fact.seen_as}, not from "
                f"{facts.address.address if facts.address else '?'}, so it could not try its ports"
            )
            yield _warning(NETWORK, "SW9050", text)
        else:
            yield from _directions(fact, names)


def _elsewhere(fact: SnFact, address: AddressFact | None) -> bool:
    return address is not None and fact.seen_as not in address.resolved


def _directions(fact: SnFact, names: dict[int, str]) -> Iterator[Finding]:
    for port in fact.asked:
        shown = f"from {fact.place} to port {port} of this host ({names.get(port, '?')})"
        if port in fact.reached:
            yield Finding(Level.OK, NETWORK, f"{shown}: open")
        else:
            yield _error(NETWORK, "SW9049", f"{shown}: blocked")


# ------------------------------------------------------------------ engine, GPU

ENGINE = "engine"


def _engine(fact: EngineFact | None) -> Iterator[Finding]:
    if fact is None:
        return
    if fact.problem is not None:
        yield _problem(ENGINE, fact.problem)
        return
    yield Finding(Level.OK, ENGINE, f"the container engine answers: version {fact.version}")
    for name, purpose, there in fact.images:
        if there:
            yield Finding(Level.OK, ENGINE, f"image {name} ({purpose})")
        elif purpose == PROGRAMS:
            remedy = "run the task that builds or pulls it first, or build it here"
            yield _warning(ENGINE, "SW9051", f"there is no image {name} ({purpose})", remedy)
        else:
            yield _error(ENGINE, "SW9051", f"there is no image {name} ({purpose})")
    for name, there in fact.networks:
        if there:
            yield Finding(Level.OK, ENGINE, f"network {name}")
        else:
            remedy = f"docker network create {name}"
            yield _error(ENGINE, "SW9052", f"there is no Docker network {name}", remedy)


NODES, PROGRAMS = "of the nodes", "of the user's program"


def _gpu(fact: GpuFact | None) -> Iterator[Finding]:
    if fact is None:
        return
    for who, device in fact.missing:
        yield _error("gpu", "SW9053", f"{who} asks for {device}, which this host does not have")
    for who, wanted in fact.requests:
        missing = _gpus_missing(wanted, fact.devices)
        if missing:
            yield _error("gpu", "SW9053", f"{who} asks for GPUs ({wanted}): {missing}")
        elif fact.in_engine is False:
            text = f"{who} asks for GPUs ({wanted}), and the engine cannot hand them out"
            remedy = "install the NVIDIA container toolkit, and restart the engine"
            yield _error("gpu", "SW9053", text, remedy)
        else:
            yield Finding(Level.OK, "gpu", f"{who} asks for GPUs ({wanted}) of {fact.devices}")


def _gpus_missing(wanted: str, devices: int) -> str:
    """What a request needs and the host does not have; "" for nothing."""
    if not devices:
        return "this host has no NVIDIA device"
    text = wanted.strip().strip('"').removeprefix("count=")
    if text.isdecimal() and int(text) > devices:
        return f"this host has {devices}"
    if text.startswith("device="):
        named = [item for item in text.removeprefix("device=").split(",") if item.isdecimal()]
        absent = [item for item in named if int(item) >= devices]
        if absent:
            return f"this host has no device {', '.join(absent)}"
    return ""
