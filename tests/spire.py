"""A small SPIFFE deployment for tests: trust domains with CAs that rotate, and an agent for each
process, which serves the Workload API (gRPC over a Unix socket, streaming FetchX509SVID).

    org1 = TrustDomain("org1.test")
    agent = WorkloadApi(tmp_path / "agent.sock")
    agent.publish([org1.svid("/host-1/sn")], org1, org2)        # the others are federated bundles

Certificates look like those of SPIRE: a subject without a common name, the id as a URI, key usages
as it sets them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from spiffe._proto import workload_pb2 as pb
from spiffe._proto import workload_pb2_grpc as rpc

HOUR = timedelta(hours=1)
SKEW = timedelta(seconds=10)  # what SPIRE puts before the present moment


@dataclass(frozen=True)
class Svid:
    """A certificate with its key and what is sent between it and the bundle."""

    chain: tuple[x509.Certificate, ...]
    key: Any

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def spiffe_id(self) -> str:
        names = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


@dataclass(frozen=True)
class Ca:
    """A CA of a trust domain."""

    certificate: x509.Certificate
    key: Any


class TrustDomain:
    """One organisation's SPIRE server: `cas` is its bundle, the last one signs."""

    def __init__(self, name: str, *, ttl: timedelta = HOUR, names_itself: bool = True) -> None:
        self.name = name
        self.ttl = ttl
        self._names_itself = names_itself
        self._count = 0
        self.cas: list[Ca] = []
        self.prepare()

    def prepare(self, until: datetime | None = None) -> Ca:
        """Put a new CA into the bundle; it signs from now on unless `signer` is told otherwise."""
        self._count += 1
        ca = make_ca(
            f"spiffe://{self.name}" if self._names_itself else "",
            f"{self.name} {self._count}",
            until=until,
        )
        self.cas.append(ca)
        return ca

    def retire(self) -> None:
        """Take the oldest CA out of the bundle."""
        del self.cas[0]

    def svid(
        self, path: str, *, ca: Ca | None = None, ttl: timedelta | None = None, **more: Any
    ) -> Svid:
        """A new SVID with a new key."""
        return make_svid(ca or self.cas[-1], f"spiffe://{self.name}{path}", ttl or self.ttl, **more)

    @property
    def bundle(self) -> bytes:
        return b"".join(ca.certificate.public_bytes(Encoding.DER) for ca in self.cas)


def now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


def make_ca(spiffe_id: str, name: str, *, until: datetime | None = None) -> Ca:
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([
        x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE"),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, name),
    ])  # fmt: skip
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - 100 * HOUR)
        .not_valid_after(until or now() + 100 * HOUR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if spiffe_id:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
        builder = builder.add_extension(names, critical=False)
    return Ca(builder.sign(key, SHA256()), key)


def make_svid(
    ca: Ca,
    spiffe_id: str,
    ttl: timedelta = HOUR,
    *,
    begin: datetime | None = None,
    extra: Sequence[x509.GeneralName] = (),
) -> Svid:
    key = ec.generate_private_key(ec.SECP256R1())
    begin = begin or now() - SKEW
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    usage = x509.KeyUsage(True, False, True, False, True, False, False, False, False)
    subject = x509.Name([
        x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE"),
    ])  # fmt: skip
    names = [x509.UniformResourceIdentifier(spiffe_id), *extra]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + ttl)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca.key, SHA256())
    )
    return Svid((certificate,), key)


class WorkloadApi(rpc.SpiffeWorkloadAPIServicer):
    """An agent's socket. `publish` sends to all that listen; `stop` and `start` are its absence."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._news = threading.Condition()
        self._response: pb.X509SVIDResponse | None = None
        self._version = 0
        self._refusal: grpc.StatusCode | None = None
        self._server: grpc.Server | None = None
        self.streams = 0  # begun so far
        self.start()

    def start(self) -> None:
        """Listen, again after a stop. What was published last is what the agent says."""
        self._running = True
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        rpc.add_SpiffeWorkloadAPIServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        assert self._server.add_insecure_port(f"unix:{self.socket}")
        self._server.start()

    def stop(self) -> None:
        """End all streams and take the socket away."""
        with self._news:
            self._running = False
            self._news.notify_all()
        assert self._server is not None
        self._server.stop(0).wait(10)
        self.socket.unlink(missing_ok=True)

    def publish(self, svids: Sequence[Svid], own: TrustDomain, *federated: TrustDomain) -> None:
        """Give these SVIDs, the bundle of their domain and of those it is federated with."""
        response = pb.X509SVIDResponse(
            svids=[
                pb.X509SVID(
                    spiffe_id=svid.spiffe_id,
                    x509_svid=b"".join(c.public_bytes(Encoding.DER) for c in svid.chain),
                    x509_svid_key=svid.key.private_bytes(
                        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
                    ),
                    bundle=own.bundle,
                )
                for svid in svids
            ],
            federated_bundles={f"spiffe://{one.name}": one.bundle for one in federated},
        )
        with self._news:
            self._response, self._refusal = response, None
            self._version += 1
            self._news.notify_all()

    def refuse(self, code: grpc.StatusCode = grpc.StatusCode.PERMISSION_DENIED) -> None:
        """Know no identity for whoever asks."""
        with self._news:
            self._refusal = code
            self._version += 1
            self._news.notify_all()

    def FetchX509SVID(
        self, request: Any, context: grpc.ServicerContext
    ) -> Iterator[pb.X509SVIDResponse]:
        if ("workload.spiffe.io", "true") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing")
        self.streams += 1
        seen = 0
        while True:
            with self._news:
                self._news.wait_for(lambda: self._version > seen or not self._running, 3600)  # noqa: B023
                if not self._running:
                    return
                seen, response, refusal = self._version, self._response, self._refusal
            if refusal is not None:
                context.abort(refusal, "no identity issued")
            if response is not None:
                yield response
