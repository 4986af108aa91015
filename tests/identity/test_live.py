"""Certificates and trust that change while an identity is in use. The tests move the clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509

from certs.authority import issue_ca, issue_crl, issue_leaf
from swarm.identity import Identity, live, node_uid
from tests import pki

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)


class World:
    """One identity with its files, watched; `at` moves the clock."""

    def __init__(self, directory: Path, **options: object) -> None:
        self.ca = pki.authority(directory)
        self.key = pki.key("ec")
        self.files = pki.files(directory, "SN-1", self.ca, key=self.key, **options)  # type: ignore[arg-type]
        self.identity = Identity.load(self.files.cert, self.files.key, capath=self.ca.capath)
        self.at = NOW
        self.watch = live.Watch(self.identity, lambda: self.at)

    def issue(self, name: str = "SN-1", ca: object = None, **options: object) -> bytes:
        """A further certificate, of the same key unless told otherwise."""
        options.setdefault("key", self.key)
        issuer = ca or self.ca.issued
        return issue_leaf(issuer, name, **options).certificate_pem  # type: ignore[arg-type]

    def look(self) -> live.News:
        """Look until nothing changes any more: a bad file is judged at the second look."""
        first = self.watch.look()
        second = self.watch.look()
        return live.News(first.certificate or second.certificate, first.trust or second.trust)


@pytest.fixture(autouse=True)
def log_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "swarm.identity")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def replace(path: Path, data: bytes) -> None:
    """In one step, as gen-cert does it."""
    draft = path.with_suffix(".new")
    draft.write_bytes(data)
    draft.replace(path)


def test_a_renewed_certificate_is_taken_over_by_the_same_member(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    identity = world.identity
    before = (identity.fingerprint, node_uid(identity.fingerprint), identity.public_key_der)
    version, chain = identity.version, identity.chain_der
    assert not world.look()
    replace(world.files.cert, world.issue(days=900))
    assert world.look() == live.News(certificate=True, trust=False)
    assert not world.look()
    assert (identity.fingerprint, node_uid(identity.fingerprint), identity.public_key_der) == before
    assert identity.chain_der != chain and identity.version != version
    assert identity.not_after - NOW > 899 * DAY
    assert "going on with the renewed certificate" in caplog.text
    again = Identity.load(world.files.cert, world.files.key, capath=world.ca.capath)
    assert again.fingerprint == identity.fingerprint


def other_key(world: World) -> bytes:
    return world.issue(key=pki.key("ec"))


def other_pair(world: World) -> bytes:
    key = pki.key("ec")
    replace(world.files.key, issue_leaf(world.ca.issued, "SN-1", key=key).key_pem)
    return world.issue(key=key)


def other_role(world: World) -> bytes:
    return world.issue("SL-1")


def two_roles(world: World) -> bytes:
    return world.issue(uris=["spiffe://org1.example/host-1/sl"])


def no_role(world: World) -> bytes:
    return world.issue("host-1.example")


def foreign_ca(world: World) -> bytes:
    return world.issue(ca=issue_ca("CA-9"))


def truncated(world: World) -> bytes:
    whole = world.issue()
    return whole[: len(whole) // 2]


def empty(_: World) -> bytes:
    return b""


def expired(world: World) -> bytes:
    return world.issue(not_before=NOW - 9 * DAY, not_after=NOW - DAY)


def too_early(world: World) -> bytes:
    return world.issue(not_before=NOW + DAY, not_after=NOW + 9 * DAY)


def revoked(world: World) -> bytes:
    pem = world.issue()
    crl = issue_crl(world.ca.issued, [x509.load_pem_x509_certificate(pem)])
    (world.ca.capath / "list.crl").write_bytes(crl)
    return pem


@pytest.mark.parametrize(
    ("make", "code", "remedy"),
    [
        (other_key, "SW1209", "made with this certificate"),
        (other_pair, "SW1213", "a new key is a new member"),
        (other_role, "SW1207", "use the certificate of this component"),
        (two_roles, "SW1207", "use the certificate of this component"),
        (no_role, "SW1207", "use the certificate of this component"),
        (foreign_ca, "SW1205", "copy the other host's"),
        (truncated, "SW1202", "check that the file"),
        (empty, "SW1202", "check that the file"),
        (expired, "SW1203", "gen-cert --renew"),
        (too_early, "SW1204", "set the clock"),
        (revoked, "SW1206", "ask that CA"),
    ],
)
def test_a_bad_renewal_changes_nothing_and_is_logged_once(
    world: World,
    make: Callable[[World], bytes],
    code: str,
    remedy: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    identity = world.identity
    chain = identity.chain_der
    replace(world.files.cert, make(world))
    for _ in range(3):
        assert not world.look().certificate
    assert identity.chain_der == chain
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == 1, errors
    assert code in errors[0] and remedy in errors[0]
    assert "the certificate in use stays in use until" in errors[0]
    identity.client_context(), identity.server_context()
    # The remedy works.
    replace(world.files.key, issue_leaf(world.ca.issued, "SN-1", key=world.key).key_pem)
    replace(world.files.cert, world.issue())
    assert world.look().certificate
    assert identity.chain_der != chain


def test_a_file_that_is_written_bit_by_bit_is_not_reported(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    whole = world.issue(days=900)
    with world.files.cert.open("wb") as file:
        for start in range(0, len(whole), 100):
            file.write(whole[start : start + 100])
            file.flush()
            taken = world.watch.look().certificate
            assert taken == (start + 100 >= len(whole))
    assert [r for r in caplog.records if r.levelno > 20] == []


def test_the_key_file_may_come_after_the_certificate(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Both written anew, the key unchanged: in between it is missing."""
    key = world.files.key.read_bytes()
    world.files.key.unlink()
    replace(world.files.cert, world.issue())
    assert not world.watch.look()
    world.files.key.write_bytes(key)
    assert world.watch.look().certificate
    assert "ERROR" not in caplog.text


def test_a_certificate_of_a_new_ca_is_taken_over_once_that_is_trusted(world: World) -> None:
    new = issue_ca("CA-2")
    replace(world.files.cert, world.issue(ca=new))
    assert not world.look()
    (world.ca.capath / "ca-2-cert.pem").write_bytes(new.certificate_pem)
    assert world.look() == live.News(certificate=True, trust=True)
    fingerprint = world.identity.fingerprint
    world.ca.path.unlink()
    assert world.look() == live.News(certificate=False, trust=True)
    assert world.watch.problem() == ""
    assert world.identity.fingerprint == fingerprint


def test_the_role_may_move_into_the_alternative_name(world: World) -> None:
    """The organisation changes over to SPIFFE ids; names and addresses differ as well."""
    uris = ["spiffe://org1.example/host-1/sn"]
    replace(world.files.cert, world.issue("host-1.example", uris=uris, hosts=["172.1.1.9"]))
    assert world.look().certificate
    assert world.identity.common_name == "host-1.example" and world.watch.problem() == ""


def test_a_certificate_that_begins_later_is_taken_over_when_it_does(world: World) -> None:
    replace(world.files.cert, world.issue(not_before=NOW + DAY, not_after=NOW + 99 * DAY))
    assert not world.look()
    world.at = NOW + DAY + timedelta(seconds=1)
    assert world.look().certificate


def test_own_certificate_that_became_invalid_is_said_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.ca.revoke(world.identity)
    world.look(), world.look()
    assert caplog.text.count("own certificate is not valid: certificate SN-1 was revoked") == 1
    assert "was revoked" in world.watch.problem()
    (world.ca.capath / "ca-1.crl").unlink()
    world.look()
    assert "valid again" in caplog.text and world.watch.problem() == ""


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "expires in" in r.getMessage()]


def test_expiry_is_announced_three_times_and_then_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    end = (NOW + 100 * DAY).replace(microsecond=0)
    world = World(tmp_path, not_after=end)
    seen = []
    for left in (50.0, 31.0, 30.1, 29.9, 29.0, 8.0, 6.9, 6.0, 2.0, 0.9, 0.5, 0.1):
        world.at = end - left * DAY
        world.look()
        assert world.watch.days_left == pytest.approx(left)
        assert bool(world.watch.warning()) == (left < 30), "told in the status for all the time"
        seen.append(len(warnings(caplog)))
    assert seen == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert "SN-1 expires in 29 days" in warnings(caplog)[0]
    assert "renew it with gen-cert --renew" in warnings(caplog)[0]
    assert "22 hours" in warnings(caplog)[2]
    world.at = end  # the last second counts
    world.look()
    assert world.watch.problem() == ""
    world.at = end + timedelta(seconds=1)
    world.look(), world.look()
    assert "expired on" in world.watch.problem() and world.watch.days_left < 0
    assert caplog.text.count("own certificate is not valid: certificate SN-1 expired") == 1
    replace(world.files.cert, world.issue(not_after=world.at + 20 * DAY))
    assert world.look().certificate
    assert world.watch.problem() == "" and "valid again" in caplog.text
    assert len(warnings(caplog)) == 4, "the new one has its own warnings"


def test_a_long_sleep_warns_once_of_what_is_nearest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    end = (NOW + 100 * DAY).replace(microsecond=0)
    world = World(tmp_path, not_after=end)
    world.at = end - timedelta(hours=5)
    world.look()
    assert len(warnings(caplog)) == 1 and "5 hours" in warnings(caplog)[0]


def test_a_clock_that_is_wrong_at_first(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A host that falls back to 1970 and hears the time later."""
    world.look()
    world.at = datetime(1970, 1, 1, tzinfo=timezone.utc)
    world.look()
    assert "valid only from" in world.watch.problem()
    world.at = NOW
    world.look()
    assert world.watch.problem() == "" and "valid again" in caplog.text


def test_a_thread_follows_for_programs_without_a_loop(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "LOOK_EVERY", 0.01)
    chain = world.identity.chain_der
    came, again = threading.Event(), threading.Event()
    monkeypatch.setattr(live, "AUDIT_EVERY", 0.02)

    def audit() -> None:
        if came.is_set():
            again.set()
        if world.identity.chain_der != chain:
            came.set()
        raise RuntimeError("a mistake of the program must not end it")

    stop = live.follow(world.identity, audit)
    try:
        replace(world.files.cert, world.issue())
        assert came.wait(60) and again.wait(60)
    finally:
        stop.set()
    assert "certificates could not be looked at" in caplog.text
