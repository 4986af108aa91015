"""gen-cert as a user runs it, and against the openssl program."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from certs.gen_cert import main, make_host
from swarm.errors import LocalError
from swarm.identity import Identity, Role
from swarm.identity.files import read_certificates
from swarm.identity.live import Watch

ROOT = Path(__file__).parents[2]
NAMES = ("sn", "sl", "swop", "swci")

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl program here")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    return run


def openssl(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        ["openssl", *map(str, arguments)], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_files_and_modes(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("-e", "mnist", "-i", "1")
    assert result.exit_code == 0, result.output
    cert = tmp_path / "workspace" / "mnist" / "cert"
    found = {str(p.relative_to(cert)) for p in cert.rglob("*") if p.is_file()}
    assert found == {
        "ca/ca-1-key.pem",
        "ca/ca-1-srl.srl",
        "ca/capath/ca-1-cert.pem",
        *(f"{name}-1-{kind}.pem" for name in NAMES for kind in ("cert", "key")),
    }
    for path in cert.rglob("*-key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for role in Role:
        name = role.lower()
        identity = Identity.load(
            cert / f"{name}-1-cert.pem", cert / f"{name}-1-key.pem", capath=cert / "ca" / "capath"
        )
        assert (identity.role, identity.common_name) == (role, f"{role}-1")
    assert "Copy workspace/mnist/cert/ca/capath/ca-1-cert.pem into" in result.output


def test_nothing_is_overwritten(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run("-e", "mnist", "-i", "1")
    key = tmp_path / "workspace/mnist/cert/sn-1-key.pem"
    ca = tmp_path / "workspace/mnist/cert/ca/capath/ca-1-cert.pem"
    before = key.read_bytes(), ca.read_bytes()
    refused = run("-e", "mnist", "-i", "1")
    assert refused.exit_code == 1
    assert "SW1101: workspace/mnist/cert/ca/ca-1-key.pem and 10 more exist" in refused.output
    assert (key.read_bytes(), ca.read_bytes()) == before
    assert run("-e", "mnist", "-i", "2").exit_code == 0, "another host may share the directory"
    assert run("-e", "mnist", "-i", "1", "--renew").exit_code == 0
    assert (key.read_bytes(), ca.read_bytes()) == before, "renewing keeps the keys"
    forced = run("-e", "mnist", "-i", "1", "--force")
    assert forced.exit_code == 0 and "All keys are new" in forced.output
    assert key.read_bytes() != before[0]
    assert ca.read_bytes() != before[1]


def test_renewing_keeps_the_members(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Same keys, same uids, same names; another certificate that ends later."""
    options = ("--days", "9", "--host", "172.1.1.1", "--host", "n1.example", "--key-type", "rsa")
    assert run("-e", "mnist", "-i", "1", *options).exit_code == 0
    cert = tmp_path / "workspace" / "mnist" / "cert"

    def identities() -> list[Identity]:
        return [
            Identity.load(
                cert / f"{role.lower()}-1-cert.pem",
                cert / f"{role.lower()}-1-key.pem",
                capath=cert / "ca" / "capath",
            )
            for role in Role
        ]

    before = identities()
    (cert / "swci-1-key.pem").unlink()
    said = run("-e", "mnist", "-i", "1", "--renew")
    assert said.exit_code == 0
    assert "keys are unchanged" in said.output and "same members" in said.output
    after = identities()
    assert [i.fingerprint for i in after[:3]] == [i.fingerprint for i in before[:3]]
    assert after[3].fingerprint != before[3].fingerprint, "its key was gone"
    for old, new in zip(before[:3], after, strict=False):
        assert new.chain_der != old.chain_der
        assert (new.not_after - old.not_after).days > 700
        names = new.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.value.get_values_for_type(x509.DNSName) == [new.common_name, "n1.example"]
        assert names.value.get_values_for_type(x509.IPAddress) == [ip_address("172.1.1.1")]
    assert run("-e", "mnist", "-i", "1", "--renew", "--host", "10.0.0.9").exit_code == 0
    names = identities()[0].certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.9")]


def test_a_renewal_with_a_damaged_key_touches_nothing(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert run("-e", "mnist", "-i", "1").exit_code == 0
    cert = tmp_path / "workspace" / "mnist" / "cert"
    before = (cert / "sn-1-cert.pem").read_bytes()
    (cert / "swci-1-key.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n")
    result = run("-e", "mnist", "-i", "1", "--renew")
    assert result.exit_code == 1 and "SW1202" in result.output
    assert (cert / "sn-1-cert.pem").read_bytes() == before


@needs_openssl
def test_a_certificate_renewed_by_openssl_is_the_same_member(tmp_path: Path) -> None:
    """By hand, for the same key: the running node takes it over."""
    files = make_host(tmp_path, 1)
    cert, key = files.cert(Role.SN), files.key(Role.SN)
    identity = Identity.load(cert, key, capath=files.capath)
    watch = Watch(identity)
    chain = identity.chain_der
    extensions = tmp_path / "ext"
    extensions.write_text("basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:SN-1\n")
    request = tmp_path / "sn.csr"
    openssl("req", "-new", "-key", key, "-subj", "/CN=SN-1", "-out", request, cwd=tmp_path)
    openssl(
        "x509", "-req", "-in", request, "-CA", files.ca_cert, "-CAkey", files.ca_key,
        "-days", "3", "-extfile", extensions, "-set_serial", "7", "-out", cert, cwd=tmp_path,
    )  # fmt: skip
    assert watch.look().certificate
    assert identity.chain_der != chain
    assert identity.certificate.serial_number == 7


def test_serials_of_one_ca_never_repeat(tmp_path: Path) -> None:
    serials = set()
    for renew in (False, True, True):
        files = make_host(tmp_path, 1, renew=renew)
        serials |= {read_certificates(files.cert(role))[0].serial_number for role in Role}
    assert len(serials) == 12


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_kinds_of_keys(run, tmp_path: Path, kind: str) -> None:  # type: ignore[no-untyped-def]
    assert run("-e", "mnist", "-i", "1", "--key-type", kind).exit_code == 0
    cert = tmp_path / "workspace" / "mnist" / "cert"
    identity = Identity.load(
        cert / "sn-1-cert.pem", cert / "sn-1-key.pem", capath=cert / "ca" / "capath"
    )
    assert kind in type(identity.certificate.public_key()).__name__.lower()


def test_days_and_hosts(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert run(
        "-e", "mnist", "-i", "1", "--days", "9", "--host", "172.1.1.1", "--host", "n1.example"
    ).exit_code == 0  # fmt: skip
    certificate = read_certificates(tmp_path / "workspace/mnist/cert/sl-1-cert.pem")[0]
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 9
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["SL-1", "n1.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["172.1.1.1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Some or all of the parameters are empty"),
        (("-e", "mnist"), "Some or all of the parameters are empty"),
        (("-e", "../etc", "-i", "1"), "SW1102: --example '../etc'"),
        (("-e", "mnist", "-i", "../1"), "SW1102: the host index '../1'"),
        (("-e", "mnist", "-i", "1", "--days", "0"), "SW1102: --days 0"),
        (("-e", "mnist", "-i", "1", "--host", "a b"), "SW1102: --host 'a b'"),
        (("-e", "mnist", "-i", "1", "--renew", "--force"), "SW1102: --renew and --force"),
        (("-e", "mnist", "-i", "1", "--renew"), "SW1202: cannot read"),
    ],
)
def test_mistakes(run, arguments: tuple[str, ...], message: str) -> None:  # type: ignore[no-untyped-def]
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.output


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cert").write_text("a file where the directory should be")
    with pytest.raises(LocalError, match=r"SW1103: cannot write"):
        make_host(tmp_path / "cert", 1)


@needs_openssl
@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_openssl_accepts_them(tmp_path: Path, kind: str) -> None:
    files = make_host(tmp_path, 1, key_type=kind, hosts=["172.1.1.1"])  # type: ignore[arg-type]
    for role in Role:
        for purpose in ("sslclient", "sslserver"):
            said = openssl(
                "verify", "-x509_strict", "-purpose", purpose, "-CAfile", files.ca_cert,
                files.cert(role), cwd=tmp_path,
            )  # fmt: skip
            assert said.strip().endswith("OK")


@needs_openssl
def test_certificates_made_by_openssl(tmp_path: Path) -> None:
    """RSA-2048, keyUsage digitalSignature and keyCertSign, no extended key usage."""
    capath = tmp_path / "ca" / "capath"
    capath.mkdir(parents=True)
    usage = "keyUsage=critical,digitalSignature,keyCertSign"
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-keyout", "ca.key", "-out",
        capath / "ca-1-cert.pem", "-subj", "/OU=Swarm-Learning/CN=CA-1", "-days", "30",
        "-addext", usage, "-addext", "subjectAltName=DNS:CA-1", cwd=tmp_path,
    )  # fmt: skip
    identities = []
    for name in ("SN-1", "SL-1"):
        (tmp_path / "ext").write_text(
            f"basicConstraints=critical,CA:FALSE\n{usage}\nauthorityKeyIdentifier=keyid\n"
            f"subjectKeyIdentifier=hash\nsubjectAltName=DNS:{name}\n"
        )
        openssl(
            "req", "-new", "-newkey", "rsa:2048", "-nodes", "-sha256", "-keyout", f"{name}.key",
            "-out", f"{name}.csr", "-subj", f"/OU=Swarm-Learning/CN={name}", cwd=tmp_path,
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", capath / "ca-1-cert.pem", "-CAkey",
            "ca.key", "-CAcreateserial", "-extfile", "ext", "-out", f"{name}.pem", "-days", "30",
            cwd=tmp_path,
        )  # fmt: skip
        identities.append(
            Identity.load(tmp_path / f"{name}.pem", tmp_path / f"{name}.key", capath=capath)
        )
    from tests.identity.test_tls import check_peer, connect

    server, client = identities
    wire = connect(client, server)
    assert check_peer(wire.server, server.trust, {Role.SL}).common_name == "SL-1"
    assert check_peer(wire.client, client.trust, {Role.SN}).common_name == "SN-1"


@needs_openssl
def test_openssl_can_go_on_with_our_ca(tmp_path: Path) -> None:
    """The serial file is one that `openssl x509 -CAserial` reads and counts on."""
    files = make_host(tmp_path, 1)
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "k.pem", "-out", "r.csr",
            "-subj", "/CN=SL-9", cwd=tmp_path)  # fmt: skip
    openssl("x509", "-req", "-in", "r.csr", "-CA", files.ca_cert, "-CAkey", files.ca_key,
            "-CAserial", files.ca_serial, "-out", "c.pem", "-days", "9", cwd=tmp_path)  # fmt: skip
    last = read_certificates(files.cert(Role.SWCI))[0].serial_number
    assert read_certificates(tmp_path / "c.pem")[0].serial_number == last + 1
    loaded = Identity.load(tmp_path / "c.pem", tmp_path / "k.pem", capath=files.capath)
    assert loaded.role is Role.SL


def test_wrapper_finds_the_program_beside_its_workspace(tmp_path: Path) -> None:
    """Copied to workspace/mnist as the example says, and run from the root."""
    (tmp_path / "workspace" / "mnist").mkdir(parents=True)
    wrapper = shutil.copy(ROOT / "examples/utils/gen-cert", tmp_path / "workspace/mnist/gen-cert")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    program = tmp_path / ".venv/bin/gen-cert"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m certs.gen_cert "$@"\n')
    program.chmod(0o755)
    system = {**os.environ, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["./workspace/mnist/gen-cert", "-e", "mnist", "-i", "1"],
        cwd=tmp_path, env=system, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(wrapper).parent.joinpath("cert", "sn-1-cert.pem").exists()
    program.unlink()
    done = subprocess.run(
        ["./workspace/mnist/gen-cert", "-e", "mnist", "-i", "1"],
        cwd=tmp_path, env=system, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "not installed" in done.stderr
