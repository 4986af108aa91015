"""Identity from an agent's Workload API: real gRPC over a Unix socket. The tests move the clock."""

from __future__ import annotations

import stat
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from swarm.errors import LocalError
from swarm.identity import Identity, Role, fingerprint_of, spiffe, verify_chain
from swarm.identity.keys import public_der
from swarm.identity.live import Watch
from swarm.identity.spiffe import Agent, connect
from tests import pki
from tests.processes import until
from tests.spire import TrustDomain, WorkloadApi, now

pytest.importorskip("spiffe")
LIMIT = 20.0


class World:
    """One agent and a process that has its identity from it; `at` moves the clock."""

    def __init__(self, directory: Path) -> None:
        self.org = TrustDomain("org1.test")
        self.other = TrustDomain("org2.test")
        self.directory = directory
        self.api = WorkloadApi(directory / "agent.sock")
        self.publish()

    def publish(self) -> None:
        self.api.publish([self.org.svid("/host-1/sn")], self.org, self.other)

    def load(self, role: Role = Role.SN, **env: str) -> Identity:
        keys = self.directory / "keys"
        given = {"SWARM_SPIFFE_WORKLOAD_API_SOCKET_PATH": str(self.api.socket), **env}
        self.identity = Identity.from_env(given, role, keys)
        self.at = now()
        self.watch = Watch(self.identity, self.clock)
        return self.identity

    def clock(self) -> datetime:
        return self.at

    def look_until(self, what: str) -> None:
        """Look until the certificate (or the trust) is another one."""
        until(lambda: getattr(self.watch.look(), what), LIMIT, f"another {what}")


@pytest.fixture(autouse=True)
def log_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "swarm.identity")


@pytest.fixture
def world(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = World(tmp_path)
    yield made
    made.api.stop()


def cas(identity: Identity) -> dict[str, bytes]:
    return identity.trust.ca_ders


def test_identity_and_trust_come_from_the_agent(world: World) -> None:
    identity = world.load()
    assert identity.role is Role.SN and identity.common_name == "spiffe://org1.test/host-1/sn"
    peer = verify_chain(identity.chain_der, cas(identity))
    assert peer.fingerprint == identity.fingerprint
    (key,) = (world.directory / "keys").iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    foreign = world.other.svid("/host-2/sn")
    assert identity.trust.verify(foreign.chain, at=now()).role is Role.SN, "federated"
    assert world.load().fingerprint == identity.fingerprint, "started again, it is the same member"


def test_rotation_keeps_the_member(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """New keys with each SVID, and another CA: signatures stay those of one key."""
    identity = world.load()
    member, first, version = identity.fingerprint, identity.chain_der, identity.version
    old_ca = world.org.cas[0]
    assert not world.watch.look()
    world.publish()
    world.look_until("certificate")
    second = identity.chain_der
    assert second != first and identity.version != version
    assert "going on with the renewed certificate" in caplog.text
    assert not world.watch.look(), "a delegation is made once for each SVID"

    new_ca = world.org.prepare()
    world.api.publish([world.org.svid("/host-1/sn", ca=old_ca)], world.org, world.other)
    world.look_until("trust")
    assert {new_ca.certificate, old_ca.certificate} < set(identity.trust.cas)
    world.publish()
    world.look_until("certificate")
    world.org.retire()
    world.publish()
    world.look_until("trust")
    assert identity.fingerprint == member
    peer = verify_chain(identity.chain_der, cas(identity))
    assert peer.fingerprint == member and old_ca.certificate not in identity.trust.cas
    for past in (first, second):
        with pytest.raises(Exception, match="SW1205"):
            identity.trust.verify(past, at=now())


def test_another_id_is_not_taken_over(world: World, caplog: pytest.LogCaptureFixture) -> None:
    identity = world.load()
    before = identity.chain_der
    world.api.publish([world.org.svid("/host-9/sn")], world.org)
    until(lambda: (world.watch.look() and False) or "SW1226" in caplog.text, LIMIT, "a complaint")
    assert identity.chain_der == before
    assert "gives spiffe://org1.test/host-9/sn, not spiffe://org1.test/host-1/sn" in caplog.text
    world.publish()
    world.look_until("certificate")


def test_a_renewal_that_is_no_good_changes_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Expired, or of a CA that is in no bundle."""
    identity = world.load()
    before = identity.chain_der
    stranger = TrustDomain("org1.test").svid("/host-1/sn")
    world.api.publish([stranger], world.org)
    until(lambda: (world.watch.look() and False) or "SW1205" in caplog.text, LIMIT, "a complaint")
    stale = world.org.svid("/host-1/sn", begin=now() - timedelta(hours=5))
    world.api.publish([stale], world.org)
    until(lambda: (world.watch.look() and False) or "SW1203" in caplog.text, LIMIT, "a complaint")
    assert identity.chain_der == before and "stays in use until" in caplog.text


def test_the_agent_is_away_for_a_while(world: World, caplog: pytest.LogCaptureFixture) -> None:
    identity = world.load()
    before = identity.chain_der
    world.api.stop()
    until(lambda: world.watch.look() or world.watch.warning(), LIMIT, "a warning")
    assert "does not answer" in world.watch.warning()
    assert (
        "does not answer" in caplog.text and "going on with the certificate in use" in caplog.text
    )
    assert world.watch.problem() == "" and identity.chain_der == before
    world.at = identity.not_after - timedelta(minutes=5)
    world.watch.look()
    assert "expires in 5 minutes" in caplog.text and "the SPIFFE agent should" in caplog.text
    world.at = identity.not_after + timedelta(seconds=1)
    world.watch.look()
    assert "expired on" in world.watch.problem()
    world.at = now()
    world.publish()
    world.api.start()
    world.look_until("certificate")
    until(lambda: world.watch.look() or not world.watch.warning(), LIMIT, "all is well")
    assert "answers again" in caplog.text and identity.chain_der != before


def test_roles_and_several_ids(world: World) -> None:
    """The first id of the role that the program needs."""
    svids = [world.org.svid(path) for path in ("/db", "/host-1/swop", "/host-1/sn", "/b/sn")]
    world.api.publish(svids, world.org)
    assert world.load(Role.SN).common_name == "spiffe://org1.test/host-1/sn"
    assert world.load(Role.SWOP).role is Role.SWOP
    with pytest.raises(LocalError, match=r"SW1226.*for SL the path has to end with /sl"):
        world.load(Role.SL)


def test_keys_are_kept_apart_by_id(world: World) -> None:
    first = world.load().fingerprint
    world.api.publish([world.org.svid("/host-2/sn")], world.org)
    second = connect(str(world.api.socket), Role.SN, world.directory / "keys")
    assert len(list((world.directory / "keys").iterdir())) == 2
    third = connect(str(world.api.socket), Role.SN, None)
    keys = [public_der(one.read().member_key.public_key()) for one in (second, third)]
    prints = {fingerprint_of(key) for key in keys}
    assert len(prints | {first}) == 3, "without a directory the key is another at each start"


def test_mistakes(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spiffe, "PATIENCE", 0.3)
    files = pki.environment(tmp_path, Role.SN, pki.authority(tmp_path))
    with pytest.raises(LocalError, match="SW1224"):
        world.load(SWARM_ID_CERT=files["SWARM_ID_CERT"])
    with pytest.raises(LocalError, match=r"SW1225.*no socket"):
        connect(str(tmp_path / "none.sock"), Role.SN, None)
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="SW1227"):
        connect(str(world.api.socket), Role.SN, tmp_path / "file")
    world.load()
    (key,) = (world.directory / "keys").iterdir()
    key.write_bytes((tmp_path / "sn-1-cert.pem").read_bytes())
    with pytest.raises(LocalError, match="SW1208"):
        world.load()
    monkeypatch.setattr(spiffe, "PATIENCE", 5.0)
    world.api.refuse()
    agent = Agent(f"unix://{world.api.socket}")
    until(lambda: "knows no identity" in agent.trouble, LIMIT, "the agent's refusal")
    with pytest.raises(LocalError, match=r"SW1225.*PERMISSION_DENIED"):
        agent.wait(0)
    world.publish()
    assert agent.wait(LIMIT).svids, "an entry that is registered later is heard of"
    agent.close()


def test_files_may_add_cas(world: World, tmp_path: Path) -> None:
    """A network in which others have certificates of the usual kind."""
    ca = pki.authority(tmp_path / "x")
    identity = world.load(SWARM_ID_CAPATH=str(ca.capath))
    other = pki.identity(tmp_path / "y", Role.SN, ca)
    assert identity.trust.verify(other.chain_der, at=now()).common_name == "SN-1"
