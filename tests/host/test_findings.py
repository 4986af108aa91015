"""The doctor's judgement: for each kind of fact the good case, and each bad one with its remedy."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from swarm.error_catalogue import CATALOGUE
from swarm.host.doctor.command import report, verdict
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
    SnFact,
)
from swarm.host.doctor.findings import NODES, PROGRAMS, Finding, Level, goes, judge

NOW = datetime(2026, 11, 30, tzinfo=timezone.utc)
LATER = NOW + timedelta(days=400)
GIB = 1 << 30

IDENTITY = IdentityFact("SN", "sn.pem", "key.pem", None, LATER, 0o600, (("CA-1", LATER),))
PATH = PathFact("data of pair 0", "/data", "directory", "directory", must_write=True)
PORT = PortFact(30303, "mesh of the SN")
ADDRESS = AddressFact("10.0.0.1", ("10.0.0.1",), own=True, loopback=False)
SN = SnFact("10.0.0.2:30304", True, skew=0.2, seen_as="10.0.0.1", asked=(30303,), reached=(30303,))
DOOR = DoorFact("10.0.0.2:30303", "mesh of sn2", "")
ENGINE = EngineFact(None, "27.1", (("swarm-node:1", NODES, True),), (("net", True),))
GPU = GpuFact((("pair 0", "2"),), 2, in_engine=True, missing=())
DISK = DiskFact("data of pair 0", "/data", 100 * GIB)
WELL = Facts(
    now=NOW,
    founder=False,
    identities=(IDENTITY,),
    paths=(PATH,),
    address=ADDRESS,
    ports=(PORT,),
    sns=(SN,),
    doors=(DOOR,),
    engine=ENGINE,
    gpu=GPU,
    disks=(DISK,),
)


def wrong(facts: Facts) -> list[Finding]:
    return [finding for finding in judge(facts) if finding.level is not Level.OK]


def only(facts: Facts) -> Finding:
    (found,) = wrong(facts)
    return found


def change(fact: Any, **changes: Any) -> Any:
    return dataclasses.replace(fact, **changes)


def test_a_healthy_host() -> None:
    findings = judge(WELL)
    assert wrong(WELL) == []
    assert goes(findings)
    assert verdict(findings) == "go"
    assert (
        "\n".join(report(findings))
        == """\
certificates
  ok       SN: sn.pem is valid until 2028-01-04
  ok       trusted CAs: CA-1
paths
  ok       data of pair 0: /data
network
  ok       the address 10.0.0.1 is this host's
  ok       port 30303 (mesh of the SN) is free
  ok       10.0.0.2:30304 answers, and accepts this host's certificate
  ok       from here to 10.0.0.2:30303 (mesh of sn2): open
  ok       from 10.0.0.2:30304 to port 30303 of this host (mesh of the SN): open
clock
  ok       the clock of 10.0.0.2:30304 agrees with this host's
engine
  ok       the container engine answers: version 27.1
  ok       image swarm-node:1 (of the nodes)
  ok       network net
gpu
  ok       pair 0 asks for GPUs (2) of 2
disk
  ok       data of pair 0: 100.0 GiB free at /data"""
    )


ERROR, WARNING = Level.ERROR, Level.WARNING
BAD: list[tuple[dict[str, Any], Level, str, str]] = [
    # certificates
    ({"identities": (change(IDENTITY, problem=("SW1205", "sn.pem: CA-9 is not known")),)},
     ERROR, "SW1205", "SN: sn.pem: CA-9 is not known"),
    ({"identities": (change(IDENTITY, problem=("SW1203", "sn.pem: expired")),)},
     ERROR, "SW1203", "expired"),
    ({"identities": (change(IDENTITY, problem=("SW1207", "sn.pem: SL")),)},
     ERROR, "SW1207", "SL"),
    ({"identities": (change(IDENTITY, not_after=NOW + timedelta(days=29, hours=1)),)},
     WARNING, "SW9040", "29 days left"),
    ({"identities": (change(IDENTITY, key_mode=0o644),)},
     ERROR, "SW9041", "key.pem has mode 0644: everybody here may use it"),
    ({"identities": (change(IDENTITY, key_mode=0o640),)},
     WARNING, "SW9041", "key.pem has mode 0640: its group may use it"),
    ({"identities": (change(IDENTITY, trusted=(("CA-2", NOW - timedelta(days=1)),)),)},
     WARNING, "SW9040", "the trusted CA CA-2 expired on 2026-11-29"),
    ({"identities": (change(IDENTITY, trusted=(("CA-2", NOW + timedelta(days=1)),)),)},
     WARNING, "SW9040", "the trusted CA CA-2 expires on 2026-12-01: 1 day left"),
    # paths, disks
    ({"paths": (change(PATH, kind=""),)}, ERROR, "SW9042", "/data does not exist"),
    ({"paths": (change(PATH, kind="file"),)},
     ERROR, "SW9042", "/data is a file, and a directory is needed"),
    ({"paths": (change(PATH, readable=False),)}, ERROR, "SW9043", "cannot be read"),
    ({"paths": (change(PATH, writable=False),)}, ERROR, "SW9043", "cannot be written"),
    ({"paths": (PathFact("data of pair 0", "vol", "", "volume"),)},
     ERROR, "SW9042", "vol does not exist"),
    ({"disks": (change(DISK, free=GIB // 2),)}, ERROR, "SW9044", "0.5 GiB free at /data"),
    ({"disks": (change(DISK, free=2 * GIB),)}, WARNING, "SW9044", "2.0 GiB free at /data"),
    # address, ports
    ({"address": change(ADDRESS, resolved=(), own=False), "sns": (), "ports": ()},
     ERROR, "SW9045", "no known name"),
    ({"address": change(ADDRESS, loopback=True)}, WARNING, "SW9045", "loopback"),
    ({"address": change(ADDRESS, own=False)}, WARNING, "SW9045", "none of this host's own"),
    ({"ports": (change(PORT, user="nginx (process 7)"),)},
     ERROR, "SW9046", "port 30303 (mesh of the SN) is taken by nginx (process 7)"),
    ({"ports": (change(PORT, problem="Permission denied"),)},
     ERROR, "SW9046", "cannot be opened: Permission denied"),
    # the others, in both directions
    ({"sns": (change(SN, problem=("SW5001", "10.0.0.2:30304: nothing listens there")),),
      "ports": ()}, ERROR, "SW5001", "nothing listens there"),
    ({"sns": (SN, change(SN, needed=False, problem=("SW5001", "sn3 did not answer in time")))},
     WARNING, "SW5001", "sn3 did not answer in time"),
    ({"sns": (change(SN, problem=("SW5002", "it refused our certificate")),), "ports": ()},
     ERROR, "SW5002", "refused our certificate"),
    ({"sns": (change(SN, starting="it is joining the network"),)},
     WARNING, "SW9050", "is not ready: it is joining the network"),
    ({"doors": (change(DOOR, problem="no answer within 3 s"),)},
     ERROR, "SW9047", "from here to 10.0.0.2:30303 (mesh of sn2): no answer within 3 s"),
    ({"sns": (change(SN, reached=()),)}, ERROR, "SW9049",
     "from 10.0.0.2:30304 to port 30303 of this host (mesh of the SN): blocked"),
    ({"sns": (change(SN, seen_as="192.0.2.9", reached=()),)},
     WARNING, "SW9050", "sees this host come from 192.0.2.9, not from 10.0.0.1"),
    ({"sns": (change(SN, asked=(), reached=(), no_look_back="its version cannot look back"),)},
     WARNING, "SW9050", "could not try the ports of this host: its version"),
    ({"sns": (), "founder": True}, WARNING, "SW9050",
     "nobody could try port 30303 of this host: no network node elsewhere is known"),
    # clocks
    ({"sns": (change(SN, skew=61.0),)}, ERROR, "SW9048", "is 61 s ahead of this host's"),
    ({"sns": (change(SN, skew=-6.0),)}, WARNING, "SW9048", "is 6 s behind this host's"),
    # engine, GPUs
    ({"engine": EngineFact(("SW9002", "there is no docker command"))},
     ERROR, "SW9002", "there is no docker"),
    ({"engine": change(ENGINE, images=(("swarm-node:1", NODES, False),))},
     ERROR, "SW9051", "no image swarm-node:1 (of the nodes)"),
    ({"engine": change(ENGINE, images=(("user-ml", PROGRAMS, False),))},
     WARNING, "SW9051", "no image user-ml"),
    ({"engine": change(ENGINE, networks=(("net", False),))},
     ERROR, "SW9052", "no Docker network net"),
    ({"gpu": change(GPU, devices=0)}, ERROR, "SW9053", "this host has no NVIDIA device"),
    ({"gpu": change(GPU, devices=1)}, ERROR, "SW9053", "pair 0 asks for GPUs (2): this host has 1"),
    ({"gpu": change(GPU, requests=(("pair 0", "device=0,5"),))},
     ERROR, "SW9053", "this host has no device 5"),
    ({"gpu": change(GPU, in_engine=False)}, ERROR, "SW9053", "the engine cannot hand them out"),
    ({"gpu": change(GPU, missing=(("pair 1", "/dev/kfd"),))},
     ERROR, "SW9053", "pair 1 asks for /dev/kfd"),
    # what shall be checked
    ({"problems": (("SW7003", "profile.yaml, line 3: groupname: expected text"),)},
     ERROR, "SW7003", "line 3"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "level", "code", "text"), BAD, ids=lambda value: str(value)[:40]
)
def test_bad_cases(changes: dict[str, Any], level: Level, code: str, text: str) -> None:
    facts = change(WELL, **changes)
    found = only(facts)
    assert (found.level, found.code) == (level, code)
    assert text in found.text
    assert found.remedy
    assert goes(judge(facts)) is (level is Level.WARNING)


def test_every_code_of_the_doctor_has_its_bad_case() -> None:
    here = {code for code in CATALOGUE if "SW9040" <= code <= "SW9053"}
    assert here <= {code for _, _, code, _ in BAD}


def test_a_node_that_runs_already_is_no_mistake() -> None:
    facts = change(WELL, ports=(change(PORT, problem="in use", user="h-sn", ours=True),))
    assert wrong(facts) == []
    assert any("in use by h-sn, which runs" in one.text for one in judge(facts))


def test_alone_on_loopback_is_fine() -> None:
    """Somebody who tries it on one machine is told nothing about other hosts."""
    facts = change(WELL, address=change(ADDRESS, loopback=True), founder=True, sns=(), ports=())
    assert wrong(facts) == []


def test_warnings_of_the_profile() -> None:
    found = only(change(WELL, notices=("profile.yaml, line 9: unknown key, ignored",)))
    assert found.level is Level.WARNING


def test_the_report_of_a_bad_host() -> None:
    findings = wrong(change(WELL, disks=(change(DISK, free=1),), sns=(change(SN, skew=9.0),)))
    assert (
        "\n".join([*report(findings), verdict(findings)])
        == """\
clock
  WARNING  SW9048: the clock of 10.0.0.2:30304 is 9 s ahead of this host's
           → synchronise both with NTP: certificates are judged by each host's own clock
disk
  ERROR    SW9044: data of pair 0: 0.0 GiB free at /data
           → free some, or move data and SWARM_HOME elsewhere
no-go: 1 error, 1 warning"""
    )


def test_what_others_said_cannot_drive_a_terminal() -> None:
    """Names, and the answers of network nodes, come from other members."""
    facts = change(WELL, sns=(change(SN, asked=(), no_look_back="\x1b[2J\r\n\u202e", reached=()),))
    shown = "".join(report(judge(facts)))
    assert "\x1b" not in shown and "\r" not in shown and "\u202e" not in shown
