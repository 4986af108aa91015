"""`swarm cert`: keys stay on their host, and the CA signs what it would have issued itself."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID

from certs.authority import issue_request, new_key
from certs.gen_cert import make_host
from certs.host import HostFiles, hosts_of
from certs.request import MAX_NAMES, MAX_REQUEST, judge, same_fingerprint, spoken
from certs.signing import read_request
from swarm.errors import LocalError
from swarm.identity import Identity, Role
from swarm.identity.files import read_certificates
from swarm.identity.live import Watch
from swarm.launch.cli import swarm


class Hosts:
    """The CA's host, a node's host, and what is carried between them by hand."""

    def __init__(self, directory: Path) -> None:
        self.ca = make_host(directory / "ca-host", 1)
        self.node = directory / "node-host"
        self.inbox = directory / "inbox"
        self.inbox.mkdir()

    def request(self, *words: str) -> int:
        return swarm(["cert", *words, "--directory", str(self.node)])

    def carry(self, name: str) -> Path:
        return Path(shutil.copy(self.node / f"{name}-request.pem", self.inbox))

    def sign(self, file: Path, *words: str, fingerprint: str = "") -> int:
        given = fingerprint or read_request(file).fingerprint
        return swarm(
            ["cert", "sign", str(file), "--ca", str(self.ca.directory), "-i", "1",
             "--fingerprint", given, *words]
        )  # fmt: skip

    def bring_back(self, name: str) -> Path:
        return Path(shutil.copy(self.inbox / f"{name}-cert.pem", self.node))


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


def test_the_key_never_leaves_its_host(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert hosts.request("request", "sn-3", "--host", "10.0.0.3", "--host", "sn3.example") == 0
    key = hosts.node / "sn-3-key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    file = hosts.carry("sn-3")
    assert b"PRIVATE" not in file.read_bytes()
    told = capsys.readouterr().out
    asked = read_request(file)
    assert spoken(asked.fingerprint) in told and "telephone" in told
    assert hosts.sign(file, "--days", "9", fingerprint=spoken(asked.fingerprint).upper()) == 0
    assert spoken(asked.fingerprint) in capsys.readouterr().out, "both see the same"
    certificate = hosts.bring_back("sn-3")

    identity = Identity.load(certificate, key, capath=hosts.ca.capath, role=Role.SN)
    assert (identity.common_name, identity.fingerprint) == ("SN-3", asked.fingerprint)
    assert hosts_of(identity.certificate) == ("SN-3", "sn3.example", "10.0.0.3")
    lasts = identity.certificate.not_valid_after_utc - identity.certificate.not_valid_before_utc
    assert lasts.days == 9
    (kept,) = (hosts.ca.directory / "ca" / "issued").iterdir()
    assert kept.read_bytes() == certificate.read_bytes(), "to revoke it some day"
    if shutil.which("openssl"):
        said = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-CAfile", hosts.ca.ca_cert, certificate],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert said.stdout.strip().endswith("OK")


def test_a_renewal_is_the_same_member(hosts: Hosts) -> None:
    assert hosts.request("request", "sl-3", "--host", "10.0.0.3") == 0
    assert hosts.sign(hosts.carry("sl-3"), "--days", "9") == 0
    path = hosts.bring_back("sl-3")
    identity = Identity.load(path, hosts.node / "sl-3-key.pem", capath=hosts.ca.capath)
    watch, member, first = Watch(identity), identity.fingerprint, identity.certificate

    assert hosts.request("renew", "sl-3") == 0
    assert hosts.sign(hosts.carry("sl-3")) == 0, "the name has this very key"
    hosts.bring_back("sl-3")
    assert watch.look().certificate, "the running node goes on with it"
    assert identity.fingerprint == member and identity.certificate != first
    assert hosts_of(identity.certificate) == hosts_of(first)
    issued = read_certificates(hosts.ca.cert(Role.SWCI))[0].serial_number
    serials = [c.serial_number for c in (first, identity.certificate)]
    assert serials == [issued + 1, issued + 2], "gen-cert's count goes on"


def test_nothing_is_overwritten(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert hosts.request("request", "sn-3") == 0
    key = (hosts.node / "sn-3-key.pem").read_bytes()
    assert hosts.request("request", "sn-3") == 1
    assert "SW1101" in capsys.readouterr().err
    assert (hosts.node / "sn-3-key.pem").read_bytes() == key
    assert hosts.request("renew", "sn-4") == 1
    assert "SW1208" in capsys.readouterr().err, "there is nothing to renew"


def test_a_name_is_one_keys(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a name that gen-cert gave away, nor one that was signed before."""
    assert hosts.request("request", "sn-1") == 0
    file = hosts.carry("sn-1")
    assert hosts.sign(file) == 1
    assert "SW1107: SN-1 was issued for the key" in capsys.readouterr().err
    assert hosts.request("request", "sn-3") == 0
    assert hosts.sign(hosts.carry("sn-3")) == 0
    (hosts.node / "sn-3-key.pem").unlink()
    assert hosts.request("request", "sn-3") == 0
    again = hosts.carry("sn-3")
    assert hosts.sign(again) == 1
    assert "SW1107" in capsys.readouterr().err
    assert hosts.sign(again, "--replace") == 1
    assert "SW1101" in capsys.readouterr().err, "the first one's certificate lies there"
    assert hosts.sign(again, "--replace", "--out", str(hosts.inbox / "new.pem")) == 0


def test_somebody_elses_request(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    """Who exchanges the file on its way is found out by the fingerprint."""
    assert hosts.request("request", "sn-3") == 0
    file = hosts.carry("sn-3")
    real = read_request(file).fingerprint
    file.write_bytes(issue_request("SN-3", new_key()))
    assert hosts.sign(file, fingerprint=real) == 1
    assert "SW1108" in capsys.readouterr().err
    assert not (hosts.ca.directory / "ca" / "issued").exists()
    command = ["cert", "sign", str(file), "--ca", str(hosts.ca.directory), "-i", "1"]
    assert swarm(command) == 1, "nobody is at the terminal"
    assert "SW1108" in capsys.readouterr().err


def test_the_ca_must_be_there(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert hosts.request("request", "sn-3") == 0
    file = hosts.carry("sn-3")
    HostFiles(hosts.ca.directory, "1").ca_key.unlink()
    assert hosts.sign(file) == 1
    assert "SW1208: there is no key of the CA" in capsys.readouterr().err


# ------------------------------------------------------------------ hostile requests

KEY = new_key()


def request(
    *extensions: x509.ExtensionType,
    subject: tuple[tuple[x509.ObjectIdentifier, str], ...] = ((NameOID.COMMON_NAME, "SN-3"),),
    key: object = KEY,
    password: bytes = b"",
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(oid, text) for oid, text in subject])
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    if password:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, password)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


def names(*entries: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(entries)


DNS, URI = x509.DNSName, x509.UniformResourceIdentifier
USAGE = x509.KeyUsage(True, False, False, False, False, True, False, False, False)
GREEDY = {
    "a CA": request(x509.BasicConstraints(ca=True, path_length=None)),
    "to sign certificates": request(USAGE),
    "a SPIFFE id": request(names(URI("spiffe://org.example/sn"))),
    "a wildcard": request(names(DNS("*.example"))),
    "another node's name": request(names(DNS("SN-1"))),
    "odd characters": request(names(DNS("a/../b"))),
    "an address": request(names(x509.RFC822Name("a@b.example"))),
    "many names": request(names(*(DNS(f"h{n}.example") for n in range(MAX_NAMES + 1)))),
    "no role": request(subject=((NameOID.COMMON_NAME, "CA-3"),)),
    "no index": request(subject=((NameOID.COMMON_NAME, "SN-"),)),
    "a path": request(subject=((NameOID.COMMON_NAME, "SN-../../x"),)),
    "no name": request(subject=((NameOID.ORGANIZATIONAL_UNIT_NAME, "Swarm-Learning"),)),
    "two names": request(subject=((NameOID.COMMON_NAME, "SN-3"), (NameOID.COMMON_NAME, "SN-1"))),
    "an organisation": request(
        subject=((NameOID.COMMON_NAME, "SN-3"), (NameOID.ORGANIZATION_NAME, "Bank"))
    ),
    "a password": request(password=b"please"),
}


@pytest.mark.parametrize("what", GREEDY)
def test_what_is_not_issued(what: str) -> None:
    with pytest.raises(LocalError, match="SW1106"):
        judge(GREEDY[what])


def test_what_is_issued() -> None:
    asked = judge(request(names(DNS("SN-3"), DNS("h.example"), DNS("h.example"))))
    assert (asked.name, asked.role, asked.hosts) == ("SN-3", Role.SN, ("h.example",))


def test_a_request_for_anothers_key_proves_nothing() -> None:
    """The victim's public key in a request that somebody else signed."""
    victim = x509.load_pem_x509_csr(request())
    der = bytearray(victim.public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    with pytest.raises(LocalError, match="SW1105"):
        judge(forged)
    renamed = victim.public_bytes(Encoding.DER).replace(b"SN-3", b"SN-4")
    with pytest.raises(LocalError, match="SW1105"):
        judge(x509.load_der_x509_csr(renamed).public_bytes(Encoding.PEM))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "SW1104"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", "SW1104"),
        (b"x" * (MAX_REQUEST + 1), "SW1104"),
        (request(key=ec.generate_private_key(ec.SECP384R1())), "SW1210"),
    ],
)
def test_what_is_no_request(data: bytes, code: str) -> None:
    with pytest.raises(LocalError, match=code):
        judge(data)


def test_a_certificate_is_no_request(hosts: Hosts) -> None:
    with pytest.raises(LocalError, match="SW1104"):
        judge(hosts.ca.cert(Role.SN).read_bytes())


def test_fingerprints_are_compared_whole() -> None:
    mark = judge(issue_request("SN-3", KEY)).fingerprint
    assert same_fingerprint(spoken(mark).upper(), mark)
    assert same_fingerprint(":".join(mark), mark)
    assert not same_fingerprint(mark[:63], mark) and not same_fingerprint("", mark)


def test_openssl_requests_are_welcome(hosts: Hosts, tmp_path: Path) -> None:
    """Who makes keys with other tools, in a hardware module perhaps, can do so."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl program here")
    file = hosts.inbox / "swop-7-request.pem"
    subprocess.run(
        ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "k.pem",
         "-subj", "/CN=SWOP-7", "-addext", "subjectAltName=IP:10.0.0.7", "-out", file],
        capture_output=True, check=True,
    )  # fmt: skip
    assert hosts.sign(file) == 0
    cert = hosts.inbox / "swop-7-cert.pem"
    assert Identity.load(cert, tmp_path / "k.pem", capath=hosts.ca.capath).role is Role.SWOP
