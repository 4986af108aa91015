"""Network nodes as processes whose certificates are renewed, revoked and replaced meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certs.authority import issue_ca, issue_leaf
from swarm.api.client import ApiClient
from swarm.identity import Identity
from swarm.identity.files import read_private_key
from swarm.identity.live import follow
from tests import pki
from tests.processes import Daemon, Processes, until
from tests.sentinel.test_network import create, direct

BOUND = 15.0  # seconds in which a revocation must have had its effect; 5 are promised
PATIENCE = 120.0  # seconds for everything else


@pytest.fixture
def ca(tmp_path: Path) -> pki.Authority:
    return pki.authority(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        yield processes


def pair(run: Processes, ca: pki.Authority) -> tuple[Daemon, Daemon]:
    first = run.sn("sn1", ca, wait=PATIENCE)
    return first, run.sn("sn2", ca, sentinel=first, wait=PATIENCE)


def cert_of(sn: Daemon) -> Path:
    return Path(sn.env["SWARM_ID_CERT"])


def renew(path: Path, key: Path, ca: pki.Authority, name: str, **options: object) -> None:
    """A new certificate for the same key, put in place in one step."""
    issued = issue_leaf(ca.issued, name, key=read_private_key(key), **options)  # type: ignore[arg-type]
    draft = path.with_suffix(".new")
    draft.write_bytes(issued.certificate_pem)
    draft.replace(path)


def peers(client: ApiClient) -> list[str]:
    return [peer["name"] for peer in client.status()["peers"]]


class Traffic:
    """A client that submits one transaction after the other, and counts what fails."""

    def __init__(self, client: ApiClient) -> None:
        self.done = 0
        self.failures: list[str] = []
        self.slowest = 0.0
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                if self.done % 2:
                    self._client.submit("task.delete", {"task": "t"})
                else:
                    create(self._client, "t")
            except Exception as fault:
                self.failures.append(repr(fault))
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.done += 1

    def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        aim = self.done + count
        until(lambda: self.done >= aim, PATIENCE, f"{count} more transactions")


def test_nodes_and_a_client_renew_by_way_of_a_new_ca_under_traffic(
    run: Processes, ca: pki.Authority, tmp_path: Path
) -> None:
    sn1, sn2 = pair(run, ca)
    files = pki.files(tmp_path / "cert" / "client", "SWCI-1", ca)
    identity = Identity.load(files.cert, files.key, capath=ca.capath)
    client = ApiClient(identity, [(sn1.host, sn1.port)], learn=False)
    run._clients.append(client)
    stop = follow(identity, client.audit)
    old = organisations(client)
    uids = {v["uid"] for v in client.status()["validators"]}
    until(lambda: peers(client) == ["sn2"], PATIENCE, "the mesh is up")
    holders = [
        (cert_of(sn1), Path(sn1.env["SWARM_ID_KEY"]), "SN-sn1"),
        (cert_of(sn2), Path(sn2.env["SWARM_ID_KEY"]), "SN-sn2"),
        (files.cert, files.key, "SWCI-1"),
    ]
    with Traffic(client) as traffic:
        traffic.more(5)
        # What is no good changes nothing.
        good = cert_of(sn1).read_bytes()
        for bad, code in (
            (good[: len(good) // 2], "SW1202"),
            (issue_leaf(ca.issued, "SN-sn1").certificate_pem, "SW1209"),
            (
                issue_leaf(issue_ca("CA-9"), "SN-sn1", key=read_private_key(holders[0][1])),
                "SW1205",
            ),
        ):
            cert_of(sn1).write_bytes(bad if isinstance(bad, bytes) else bad.certificate_pem)
            sn1.wait_for(f"{code}: .*the certificate in use stays in use until", PATIENCE)
        # By the same CA.
        for path, key, name in holders:
            renew(path, key, ca, name, days=400)
        for sn in (sn1, sn2):
            sn.wait_for("going on with the renewed certificate", PATIENCE)
        traffic.more(5)
        # By another one, which takes the old one's place.
        new = pki.authority(tmp_path, 2)
        until(lambda: len(admitted(client)) == 2, PATIENCE, "the new CA is on the ledger")
        for path, key, name in holders:
            renew(path, key, new, name, days=500)
        for sn in (sn1, sn2):
            until(lambda: days_left(run, ca, sn) > 480, PATIENCE, f"{sn.name} goes on with it")  # noqa: B023
        until(lambda: (identity.not_after - identity.certificate.not_valid_before_utc).days > 480,
              PATIENCE, "the client goes on with it")  # fmt: skip
        until(lambda: organisations(client).isdisjoint(old), PATIENCE, "the ledger knows of it")
        ca.path.unlink()
        for sn in (sn1, sn2):
            until(
                lambda: sn.log.count("trusted CAs, revocations or barred keys have changed") >= 2,  # noqa: B023
                PATIENCE,
                f"{sn.name} has dropped the old CA",
            )
        traffic.more(20)
        until(lambda: peers(client) == ["sn2"], PATIENCE, "the mesh is up again")
        traffic.more(5)
    stop.set()
    print(f"{traffic.done} transactions, the slowest took {traffic.slowest:.2f} s")
    assert traffic.failures == []
    assert {v["uid"] for v in client.status()["validators"]} == uids, "the same members"
    assert "Traceback" not in sn1.log + sn2.log


def organisations(client: ApiClient) -> set[str]:
    return {record["organisation"] for record in client.table("nodes").values()}


def admitted(client: ApiClient) -> list[str]:
    return [key for key, record in client.table("cas").items() if record["admitted"]]


def days_left(run: Processes, ca: pki.Authority, sn: Daemon) -> float:
    client = next((c for c in run._clients if c.endpoints == ((sn.host, sn.port),)), None)
    return float((client or direct(run, ca, sn)).status()["certificate"]["days_left"])


def test_a_revoked_node_is_put_out_of_the_mesh_and_hears_why(
    run: Processes, ca: pki.Authority
) -> None:
    sn1, sn2 = pair(run, ca)
    one = direct(run, ca, sn1)
    until(lambda: peers(one) == ["sn2"], PATIENCE, "the mesh is up")
    victim = Identity.load(cert_of(sn2), Path(sn2.env["SWARM_ID_KEY"]), capath=ca.capath)
    started = time.monotonic()
    crl = ca.revoke(victim)
    until(lambda: peers(one) == [], BOUND, "the session is closed")
    print(f"the session was closed after {time.monotonic() - started:.2f} s")
    sn1.wait_for(r"is gone: certificate SN-sn2 was revoked by its CA on", BOUND)
    sn2.wait_for(r"is gone: .*SN-sn2 was revoked by its CA on", BOUND)
    sn1.wait_for(r"refused: certificate SN-sn2 was revoked|SN-sn2 was revoked", PATIENCE)
    sn2.wait_for("SW1206|this node's own certificate is not valid: .*was revoked", BOUND)
    sn2.wait_for("the peer refused our certificate: .*SN-sn2 was revoked", PATIENCE)
    crl.unlink()  # a mistake: taken back
    until(lambda: peers(one) == ["sn2"], PATIENCE, "it returns")


def test_a_node_whose_certificate_expires_says_so(run: Processes, ca: pki.Authority) -> None:
    """It goes on serving what it may, is cut off by the others, and comes back when renewed."""
    sn1, sn2 = pair(run, ca)
    one = direct(run, ca, sn1)
    until(lambda: peers(one) == ["sn2"], PATIENCE, "the mesh is up")
    key = Path(sn2.env["SWARM_ID_KEY"])
    short = issue_leaf(ca.issued, "SN-sn2", key=read_private_key(key), not_after=soon(4))
    cert_of(sn2).write_bytes(short.certificate_pem)
    sn2.wait_for("going on with the renewed certificate", PATIENCE)
    two = direct(run, ca, sn2)
    sn2.wait_for("this node's own certificate is not valid: .* expired on", PATIENCE)
    renew(cert_of(sn2), key, ca, "SN-sn2", days=77)
    sn2.wait_for("this node's own certificate is valid again", PATIENCE)
    until(lambda: peers(one) == ["sn2"], PATIENCE, "it is back")
    assert create(one, "after", patience=PATIENCE).ok
    assert 75 < metric(two, "swarm_certificate_days_left") < 77


def soon(seconds: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def metric(client: ApiClient, name: str) -> float:
    connection = client._all()[0].connect(30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return float(next(x for x in text.splitlines() if x.startswith(name + " ")).split()[1])
