"""An SVID that delegates to a lasting key: what it is worth, and what it is not worth to others."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from certs.authority import issue_ca, issue_leaf
from swarm.errors import RemoteError
from swarm.identity import Peer, Role, TrustStore, member_fingerprint, verify_chain
from swarm.identity.delegation import OID, delegate
from swarm.identity.keys import public_der, sign
from swarm.identity.tls import check_peer, make_context
from swarm.identity.trust import Bundles
from swarm.identity.uid import fingerprint_of
from tests.identity.test_tls import connect
from tests.spire import HOUR, Svid, TrustDomain, make_svid, now


def der(*certificates: x509.Certificate) -> list[bytes]:
    return [one.public_bytes(Encoding.DER) for one in certificates]


def lasting() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    return fingerprint_of(public_der(key.public_key()))


def cas(*domains: TrustDomain) -> dict[str, bytes]:
    ders = [ca.certificate.public_bytes(Encoding.DER) for one in domains for ca in one.cas]
    return {fingerprint_of(one): one for one in ders}


def trust(*domains: TrustDomain) -> TrustStore:
    bundles = {one.name: tuple(ca.certificate for ca in one.cas) for one in domains}
    return TrustStore(bundles=lambda: Bundles(1, bundles))


ORG = TrustDomain("org1.test")
OTHER = TrustDomain("org2.test")
KEY = lasting()
SVID = ORG.svid("/host-1/sn")
CHAIN = der(SVID.leaf, delegate(SVID.leaf, SVID.key, KEY))


def test_the_member_is_the_lasting_key() -> None:
    peer = verify_chain(CHAIN, cas(ORG, OTHER))
    assert peer.fingerprint == fingerprint(KEY) == member_fingerprint(CHAIN)
    assert peer.public_key_der == public_der(KEY.public_key())
    assert peer.role is Role.SN and peer.common_name == "spiffe://org1.test/host-1/sn"
    assert peer.vouched is not None and peer.vouched.domain == "org1.test"
    assert peer.vouched.ends == int(SVID.leaf.not_valid_after_utc.timestamp())


def test_renewal_is_the_same_member() -> None:
    """Another SVID, of another CA even: the key, and what stands for the id, stay."""
    before = verify_chain(CHAIN, cas(ORG))
    domain = TrustDomain("org1.test")
    svid = domain.svid("/host-1/sn")
    after = verify_chain(der(svid.leaf, delegate(svid.leaf, svid.key, KEY)), cas(domain))
    assert (before.fingerprint, before.holder) == (after.fingerprint, after.holder)
    assert before.organisation != after.organisation
    again = verify_chain(der(svid.leaf, delegate(svid.leaf, svid.key, lasting())), cas(domain))
    assert again.fingerprint != after.fingerprint and again.holder == after.holder


def test_who_leaves_the_delegation_out_is_held_by_the_same_id() -> None:
    """Another member with each key, but limited and barred like all others of that id."""
    plain, whole = verify_chain(der(SVID.leaf), cas(ORG)), verify_chain(CHAIN, cas(ORG))
    assert plain.fingerprint != whole.fingerprint and plain.holder == whole.holder
    with pytest.raises(RemoteError, match="SW1223"):
        verify_chain(der(make_svid(OTHER.cas[0], "spiffe://org1.test/sn").leaf), cas(ORG, OTHER))


def test_an_ordinary_certificate_is_held_by_its_key() -> None:
    """One with an id, too, when no SPIFFE CA issued it."""
    ca = issue_ca("CA-1")
    leaf = issue_leaf(ca, "SN-1", uris=["spiffe://org1.test/host-1/sn"])
    known = {fingerprint_of(d): d for d in der(ca.certificate)}
    peer = verify_chain(der(leaf.certificate), known)
    assert peer.vouched is None and peer.holder == peer.fingerprint
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    chain = der(leaf.certificate, delegate(leaf.certificate, leaf.key, KEY))
    with pytest.raises(RemoteError, match="SW1223"):
        verify_chain(chain, known)


# ------------------------------------------------------------------ forgeries


def forge(
    svid: Svid,
    key: ec.EllipticCurvePrivateKey,
    *,
    signer: ec.EllipticCurvePrivateKey | None = None,
    proof: bytes | None = None,
    later: timedelta = timedelta(0),
    earlier: timedelta = timedelta(0),
    extra: Sequence[x509.ExtensionType] = (),
    size: int = 0,
) -> x509.Certificate:
    """A delegation, with one thing wrong."""
    honest = delegate(svid.leaf, svid.key, key)
    (extension,) = honest.extensions
    value = extension.value.value if proof is None else proof
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * min(size, 64) or "d")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(svid.leaf.not_valid_before_utc - earlier)
        .not_valid_after(svid.leaf.not_valid_after_utc + later)
        .add_extension(x509.UnrecognizedExtension(OID, value), critical=True)
    )
    for one in extra:
        builder = builder.add_extension(one, critical=False)
    return builder.sign(signer or svid.key, SHA256())


def octets(data: bytes) -> bytes:
    return bytes([4, len(data)]) + data


THIEF = lasting()
MALLORY = ORG.svid("/host-2/sn")
EXT = CHAIN[1]
FORGERIES = {
    "another's SVID, which is public": ("SW1221", SVID, forge(SVID, THIEF, signer=THIEF)),
    "another's lasting key, which is public": (
        "SW1221",
        MALLORY,
        forge(MALLORY, KEY, proof=octets(sign(THIEF, b"mine"))),
    ),
    "a delegation of another SVID": ("SW1221", MALLORY, delegate(SVID.leaf, SVID.key, KEY)),
    "the proof of another SVID": (
        "SW1221",
        MALLORY,
        forge(
            MALLORY,
            KEY,
            proof=next(iter(delegate(SVID.leaf, SVID.key, KEY).extensions)).value.value,
        ),
    ),
    "longer than its SVID": ("SW1222", SVID, forge(SVID, KEY, later=HOUR)),
    "earlier than its SVID": ("SW1222", SVID, forge(SVID, KEY, earlier=HOUR)),
    "no proof": ("SW1220", SVID, forge(SVID, KEY, proof=b"")),
    "a proof of odd length": ("SW1220", SVID, forge(SVID, KEY, proof=b"\x04\x09abc")),
    "a CA": (
        "SW1220",
        SVID,
        forge(SVID, KEY, extra=[x509.BasicConstraints(ca=True, path_length=None)]),
    ),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_forgeries(what: str) -> None:
    code, svid, delegation = FORGERIES[what]
    with pytest.raises(RemoteError) as caught:
        verify_chain(der(svid.leaf, delegation), cas(ORG, OTHER))
    assert caught.value.code == code


def test_kinds_of_keys_and_numbers() -> None:
    big = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(RemoteError, match="SW1220"):
        verify_chain(der(SVID.leaf, forge(SVID, big, proof=octets(b"x"))), cas(ORG))
    with pytest.raises(RemoteError, match="SW1220"):
        verify_chain([*CHAIN, CHAIN[1]], cas(ORG))
    with pytest.raises(RemoteError, match="SW1211"):
        verify_chain([CHAIN[1], CHAIN[0]], cas(ORG))  # a delegation is no leaf
    with pytest.raises(RemoteError, match="SW1211"):
        verify_chain(CHAIN * 3, cas(ORG))
    changed = bytearray(CHAIN[1])
    changed[-1] ^= 1
    with pytest.raises(RemoteError, match="SW1221"):
        verify_chain([CHAIN[0], bytes(changed)], cas(ORG))


@given(st.integers(0, len(CHAIN[1]) - 1), st.integers(1, 255), st.integers(0, 3))
def test_damaged_delegations_are_refused_and_nothing_else(at: int, flip: int, cut: int) -> None:
    damaged = bytearray(CHAIN[1])
    damaged[at] ^= flip
    try:
        peer = verify_chain([CHAIN[0], bytes(damaged[: len(damaged) - cut])], cas(ORG))
    except RemoteError as fault:
        assert fault.code.startswith("SW12")
    else:  # what its mark has gone from is one more certificate that belongs to no path
        assert peer.fingerprint != fingerprint(KEY)


def test_who_may_delegate() -> None:
    """One id, a proper one, by a CA of its own domain."""
    dns = x509.DNSName("sn-1.example")
    unnamed = TrustDomain("org1.test", names_itself=False)
    assert verify_with(ORG.svid("/host-1/sn", extra=[dns]), ORG).role is Role.SN
    second = x509.UniformResourceIdentifier("https://org1.test/")
    for svid in (
        ORG.svid("/host-1/sn", extra=[second]),
        make_svid(ORG.cas[0], "spiffe://ORG1.test/sn"),
        make_svid(ORG.cas[0], "spiffe://org1.test/a%2f/sn"),
        make_svid(ORG.cas[0], "spiffe://org1.test/" + "a/" * 1100 + "sn"),
        make_svid(OTHER.cas[0], "spiffe://org1.test/host-1/sn"),
        unnamed.svid("/sn"),
    ):
        with pytest.raises(RemoteError, match="SW1223"):
            verify_with(svid, ORG, OTHER, unnamed)


def verify_with(svid: Svid, *domains: TrustDomain) -> Peer:
    return verify_chain(der(svid.leaf, delegate(svid.leaf, svid.key, KEY)), cas(*domains))


# ------------------------------------------------------------------ at the doors


def test_dates_end_a_delegation() -> None:
    """A recorded chain is useless once its SVID has expired, as is one of a CA that has."""
    store = trust(ORG)
    assert store.verify(CHAIN, at=now()).role is Role.SN
    with pytest.raises(RemoteError, match="SW1203"):
        store.verify(CHAIN, at=now() + 2 * HOUR)
    with pytest.raises(RemoteError, match="SW1204"):
        store.verify(CHAIN, at=now() - HOUR)
    short = forge(SVID, KEY, later=-timedelta(minutes=30))
    assert store.verify(der(SVID.leaf, short), at=now())
    with pytest.raises(RemoteError, match="SW1203"):
        store.verify(der(SVID.leaf, short), at=now() + timedelta(minutes=45))


def test_a_ca_that_was_rotated_out_lets_nobody_in() -> None:
    domain = TrustDomain("org1.test")
    svid = domain.svid("/host-1/sn")
    chain = der(svid.leaf, delegate(svid.leaf, svid.key, KEY))
    held = {"org1.test": tuple(ca.certificate for ca in domain.cas)}
    version = 1
    store = TrustStore(bundles=lambda: Bundles(version, held))
    assert store.verify(chain, at=now())
    domain.prepare()
    domain.retire()
    held, version = {"org1.test": tuple(ca.certificate for ca in domain.cas)}, 2
    assert store.reload() and not store.reload()
    with pytest.raises(RemoteError, match="SW1205"):
        store.verify(chain, at=now())


def test_bundles_count_for_their_own_domain() -> None:
    """A federated domain's CA vouches for no other domain, nor for names without a domain."""
    store = trust(ORG, OTHER)
    rogue = make_svid(OTHER.cas[0], "spiffe://org1.test/host-1/sn")
    with pytest.raises(RemoteError, match="SW1223"):
        store.verify(der(rogue.leaf), at=now())
    with pytest.raises(RemoteError, match="SW1223"):
        store.verify(der(rogue.leaf, delegate(rogue.leaf, rogue.key, KEY)), at=now())
    unnamed = TrustDomain("org3.test", names_itself=False)
    store = trust(unnamed, ORG)
    rogue = make_svid(unnamed.cas[0], "spiffe://org1.test/host-1/sn")
    with pytest.raises(RemoteError, match="SW1223"):
        store.verify(der(rogue.leaf), at=now())
    liar = {"org9.test": (ORG.cas[0].certificate, OTHER.cas[0].certificate)}
    with pytest.raises(Exception, match="SW1212"):
        TrustStore(bundles=lambda: Bundles(1, liar))


def test_eviction_bars_the_id_whatever_key_comes_with_it() -> None:
    store = trust(ORG)
    peer = verify_chain(CHAIN, cas(ORG))
    svid = ORG.svid("/host-1/sn")
    fresh = der(svid.leaf, delegate(svid.leaf, svid.key, lasting()))
    plain = der(ORG.svid("/host-1/sn").leaf)
    assert store.verify(fresh, at=now()) and store.verify(plain, at=now())
    store.bar({peer.holder: "voted out"})
    for chain in (CHAIN, fresh, plain):
        with pytest.raises(RemoteError, match=r"SW4015.*voted out"):
            store.verify(chain, at=now())
    other = der(MALLORY.leaf, delegate(MALLORY.leaf, MALLORY.key, KEY))
    assert store.verify(other, at=now()), "another id of the same domain"


def test_tls_is_made_with_the_plain_svid() -> None:
    """An ordinary verifier (OpenSSL, as it comes) accepts the door; ours learns who it is."""
    store = trust(ORG)

    class Side:
        def __init__(self, svid: Svid, key: ec.EllipticCurvePrivateKey) -> None:
            chain = (svid.leaf, delegate(svid.leaf, svid.key, key))
            pem = svid.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            self.pem = pem + b"".join(c.public_bytes(Encoding.PEM) for c in chain)

        def server_context(self) -> ssl.SSLContext:
            return make_context(self.pem, store, server=True)

        def client_context(self) -> ssl.SSLContext:
            return make_context(self.pem, store, server=False)

    other = lasting()
    wire = connect(Side(ORG.svid("/a/swci"), other), Side(SVID, KEY))  # type: ignore[arg-type]
    assert check_peer(wire.server, store, {Role.SWCI}).fingerprint == fingerprint(other)
    assert check_peer(wire.client, store, {Role.SN}).fingerprint == fingerprint(KEY)
    shown = wire.client.getpeercert(binary_form=True)
    assert shown == CHAIN[0], "the certificate of the handshake is the SVID"


def test_programs_that_know_nothing_of_it(tmp_path: Path) -> None:
    """openssl and curl, host name and all; others were tried by hand: Go, Java, Node."""
    assert all(int(arc) < 1 << 31 for arc in OID.dotted_string.split(".")), "Go refuses longer ones"
    svid = ORG.svid("/host-1/sn", extra=[x509.DNSName("localhost")])
    chain = (svid.leaf, delegate(svid.leaf, svid.key, KEY))
    door, bundle = tmp_path / "door.pem", tmp_path / "ca.pem"
    door.write_bytes(
        svid.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + b"".join(c.public_bytes(Encoding.PEM) for c in chain)
    )
    bundle.write_bytes(ORG.cas[0].certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(door)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        programs = {
            "openssl": ["s_client", "-CAfile", str(bundle), "-verify_return_error",
                        "-verify_hostname", "localhost", "-connect", f"127.0.0.1:{port}"],
            "curl": ["--silent", "--show-error", "--max-time", "20", "--cacert", str(bundle),
                     "--resolve", f"localhost:{port}:127.0.0.1", f"https://localhost:{port}/"],
        }  # fmt: skip
        for program, words in programs.items():
            if not shutil.which(program):
                continue
            client = subprocess.Popen(
                [program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            listener.settimeout(20)
            with context.wrap_socket(listener.accept()[0], server_side=True) as tls:
                if program == "curl":
                    tls.recv(4096)
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
                    tls.recv(4096)
            said = client.communicate(timeout=20)[0].decode()
            assert ("Verify return code: 0 (ok)" in said) or said.endswith("OK"), said
