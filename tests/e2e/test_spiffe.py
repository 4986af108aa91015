"""A network whose members have SPIFFE identities and nothing else, while everything is rotated.

Two organisations with a trust domain each, federated; two network nodes and two learners, each with
an agent of its own, and a client. During a training all certificates and keys are exchanged, then
the CAs of both domains; an agent is away for a while; a network node starts again.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from swarm.api.client import ApiClient
from swarm.identity import Identity, Role, fingerprint_of
from swarm.identity.live import follow
from swarm.identity.roles import spiffe_id_of
from swarm.launch.cli import swarm
from swarmlearning import link
from tests import pki
from tests.learner.program import BOUND, Program
from tests.processes import Daemon, Processes, free_port, until
from tests.spire import Ca, TrustDomain, WorkloadApi

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
pytest.importorskip("spiffe")

RENEWED = "going on with the renewed certificate"
SIZE = 250_000  # floats of the model


class World:
    """All agents and processes."""

    def __init__(self, run: Processes, directory: Path) -> None:
        self.run = run
        self.directory = directory
        self.domains = [TrustDomain("org1.test"), TrustDomain("org2.test")]
        self.agents: dict[str, WorkloadApi] = {}
        self.signers: dict[str, Ca] = {}
        self.daemons: dict[str, Daemon] = {}
        # `Processes.sn` writes files for it, which the nodes are not told of.
        self.unused = pki.authority(directory / "unused")
        for name in ("sn-1", "sn-2", "sl-1", "sl-2", "swci-1"):
            self.agents[name] = WorkloadApi(directory / f"{name}.sock")
        self.rotate()
        self.sn("sn-1")
        self.sn("sn-2", self.daemons["sn-1"])
        self.me = Identity.from_env(self.identity("swci-1"), Role.SWCI, directory / "me")
        self.client = run.close_later(
            ApiClient(self.me, [(sn.host, sn.port) for sn in self.daemons.values()])
        )
        self.following = follow(self.me, self.client.audit)
        self.programs = [self.learner(n) for n in (1, 2)]

    def domain(self, name: str) -> TrustDomain:
        return self.domains[int(name[-1]) - 1]

    def rotate(self, *names: str) -> None:
        """New certificates with new keys, and the bundles of the moment, from these agents."""
        for name in names or self.agents:
            role, _, host = name.partition("-")
            own = self.domain(name)
            others = [one for one in self.domains if one is not own]
            svid = own.svid(f"/host-{host}/{role}", ca=self.signers.get(own.name))
            self.agents[name].publish([svid], own, *others)

    def identity(self, name: str) -> dict[str, str]:
        return {"SWARM_SPIFFE_WORKLOAD_API_SOCKET_PATH": str(self.agents[name].socket)}

    def sn(self, name: str, sentinel: Daemon | None = None) -> None:
        none = {f"SWARM_ID_{part}": "" for part in ("CERT", "KEY", "CAPATH")}
        self.daemons[name] = self.run.sn(
            name, self.unused, sentinel=sentinel, env={**none, **self.identity(name)}
        )

    def learner(self, number: int) -> Program:
        folder = self.directory / f"sl{number}"
        folder.mkdir()
        port = str(free_port())
        sn = self.daemons[f"sn-{number}"]
        env = {
            **self.identity(f"sl-{number}"),
            "SN_NODE_IP": "127.0.0.1",
            "SN_API_SERVER_PORT": str(sn.port),
            "THIS_NODE_IP": "127.0.0.1",
            "SWARM_LISTEN": "127.0.0.1",
            "SL_FS_PORT": port,
            "SL_LISTEN_PORT": port,
            "SWARM_NODE_NAME": f"sl-{number}",
            "SWARM_LINK": str(folder),
        }
        self.daemons[f"sl-{number}"] = self.run.start(f"sl-{number}", "swarm.learner", env)
        bell = threading.Event()
        for _ in range(int(BOUND / 0.05)):
            try:
                return Program(folder)
            except link.LinkError:
                bell.wait(0.05)
        raise AssertionError(self.daemons[f"sl-{number}"].log)

    def count(self, text: str) -> dict[str, int]:
        return {name: daemon.log.count(text) for name, daemon in self.daemons.items()}

    def heard(self, text: str, before: dict[str, int], *but: str) -> None:
        """Wait until every process (`but` these) has logged it once more."""
        for name in self.daemons:
            if name not in but:
                until(
                    lambda name=name: self.count(text)[name] > before[name],  # type: ignore[misc]
                    30,
                    f"{name}: {text}",
                )


class Training(threading.Thread):
    """Rounds, one after the other, until `stop`. Each ends with the same bytes on both sides."""

    def __init__(self, programs: list[Program]) -> None:
        super().__init__(daemon=True)
        self.programs = programs
        self.rounds = 0
        self.fault: BaseException | None = None
        self._stop_asked = threading.Event()
        for program in programs:
            program.send_open(min_peers=2)
        for program in programs:
            program.receive("opened")
        self.start()

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                self.round()
        except BaseException as fault:
            self.fault = fault

    def round(self) -> None:
        for add, program in zip((1.0, 3.0), self.programs, strict=True):
            program.send_sync({"w": np.full(SIZE, self.rounds + add, np.float32)})
        results = [program.merged()[1]["w"] for program in self.programs]
        assert results[0].tobytes() == results[1].tobytes()
        assert results[0][0] == self.rounds + 2.0
        self.rounds += 1

    def more(self, rounds: int) -> None:
        """Wait for so many more."""
        goal = self.rounds + rounds
        until(lambda: self.rounds >= goal or self.fault, 60, f"round {goal}")
        if self.fault:
            raise self.fault

    def stop(self) -> int:
        self._stop_asked.set()
        self.join(60)
        if self.fault:
            raise self.fault
        return self.rounds


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Processes(tmp_path) as run:
        world = World(run, tmp_path)
        try:
            yield world
        finally:
            world.following.set()
            for agent in world.agents.values():
                agent.stop()


def test_all_is_rotated_during_a_training(world: World) -> None:
    client = world.client
    nodes = {uid: node for uid, node in client.table("nodes").items() if node["active"]}
    assert {node["type"] for node in nodes.values()} == {"SENTINEL", "SN"}
    training = Training(world.programs)
    training.more(3)
    members = {uid: n for uid, n in client.table("nodes").items() if n["active"]}
    assert len(members) == 4
    ordinary_tools_verify_the_door(world)

    # All certificates and keys, twice.
    for _ in range(2):
        before = world.count(RENEWED)
        world.rotate()
        world.heard(RENEWED, before)
        training.more(3)

    # The CAs of both domains, as SPIRE does it: known before they sign, and for a while after.
    first = [domain.cas[0] for domain in world.domains]
    world.signers = {d.name: ca for d, ca in zip(world.domains, first, strict=True)}
    new = [domain.prepare() for domain in world.domains]
    world.rotate()
    marks = [fingerprint_of(ca.certificate.public_bytes(Encoding.DER)) for ca in new]
    for mark in marks:
        until(lambda: admitted(client, mark), 30, f"CA {mark}")  # noqa: B023
    training.more(2)
    world.signers.clear()
    before = world.count(RENEWED)
    world.rotate()
    world.heard(RENEWED, before)
    until(lambda: organisations(client) == set(marks), 30, "the nodes belong to the new CAs")
    training.more(2)
    for domain in world.domains:
        domain.retire()
    before = world.count("trusted CAs")
    world.rotate()
    world.heard("trusted CAs", before)
    training.more(3)

    # An agent is away; the others rotate.
    world.agents["sl-1"].stop()
    world.daemons["sl-1"].wait_for("does not answer.*going on with the certificate in use", 30)
    before = world.count(RENEWED)
    world.rotate("sn-1", "sn-2", "sl-2")
    world.heard(RENEWED, before, "sl-1")
    training.more(3)
    world.rotate("sl-1")
    world.agents["sl-1"].start()
    world.daemons["sl-1"].wait_for("answers again", 30)
    training.more(2)

    assert training.stop() > 15
    after = client.table("nodes")
    for uid, node in members.items():
        now = after[uid]
        assert (now["public_key"], now["holder"]) == (node["public_key"], node["holder"])
    assert len(after) == 4, "nobody became another member"
    assert not any("SW" in line and "ERROR" in line for line in all_lines(world)), "no error at all"

    # A network node that starts again is the member that it was.
    second = world.daemons["sn-2"]
    uid = next(uid for uid, node in after.items() if node["name"] == "sn-2")
    assert second.terminate(30) == 0
    outsiders_check_the_ledger(world, second, first + new)
    world.run.restart(second, 60)
    assert f"({uid})" in second.wait_for("This is a network node")
    until(lambda: (client.record("nodes", uid) or {}).get("active"), 30, "it is back")


def ordinary_tools_verify_the_door(world: World) -> None:
    """A TLS client that has never heard of us, with an SVID as it comes, and the bundles."""
    sn, domain = world.daemons["sn-2"], world.domains[0]
    context = ssl.create_default_context(cadata="".join(
        ca.certificate.public_bytes(Encoding.PEM).decode() for d in world.domains for ca in d.cas
    ))  # fmt: skip
    context.check_hostname = False  # SPIFFE compares ids, not host names
    mine = domain.svid("/tools/swci")
    file = world.directory / "plain.pem"
    file.touch(mode=0o600)
    file.write_bytes(
        mine.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + mine.leaf.public_bytes(Encoding.PEM)
    )
    context.load_cert_chain(file)
    with socket.create_connection((sn.host, sn.port), 10) as raw, context.wrap_socket(raw) as tls:
        shown = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
        assert spiffe_id_of(shown) == "spiffe://org2.test/host-2/sn"
        tls.sendall(b"GET /is_up HTTP/1.1\r\nHost: sn\r\nConnection: close\r\n\r\n")
        assert tls.recv(4096).startswith(b"HTTP/1.1 200")


def outsiders_check_the_ledger(world: World, stopped: Daemon, cas: list[Ca]) -> None:
    """Whoever has the CAs of both domains, those that are gone too, can verify all signatures."""
    capath = world.directory / "capath"
    capath.mkdir()
    for number, ca in enumerate(cas):
        (capath / f"{number}.pem").write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    data = stopped.env["SWARM_DATA_DIR"]
    assert swarm(["ledger", "verify", data, "--capath", str(capath)]) == 0


def admitted(client: ApiClient, mark: str) -> bool:
    record = client.record("cas", mark)
    return record is not None and record["admitted"]


def organisations(client: ApiClient) -> set[str]:
    return {n["organisation"] for n in client.table("nodes").values() if n["validator"]}


def all_lines(world: World) -> list[str]:
    return [line for daemon in world.daemons.values() for line in daemon.lines]
