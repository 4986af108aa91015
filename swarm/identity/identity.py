"""What a node needs to prove who it is, and to know whom it trusts.

The certificate may be renewed while the node runs (see `swarm.identity.live`). What makes the
member, its key and its role, never changes in an `Identity`; everything that hangs on the
certificate is read from one value that is exchanged as a whole.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from swarm.errors import LocalError, RemoteError
from swarm.identity.chain import Peer
from swarm.identity.keys import PrivateKey, public_der, sign
from swarm.identity.roles import Role
from swarm.identity.source import FileSource, Material, Source
from swarm.identity.tls import make_context
from swarm.identity.trust import TrustStore

log = logging.getLogger("swarm.identity")

SOCKET_VARIABLE = "SWARM_SPIFFE_WORKLOAD_API_SOCKET_PATH"
KEYS_VARIABLE = "SWARM_SPIFFE_KEY_DIR"


@dataclass(frozen=True)
class Credentials:
    """A certificate chain that was verified, with its keys."""

    peer: Peer
    chain: tuple[x509.Certificate, ...]  # as it is sent: leaf first, without the root
    chain_der: tuple[bytes, ...]
    private: PrivateKey  # of the member: the leaf's, or the lasting one that it delegates to
    pem: bytes  # the leaf's key and the chain, for OpenSSL


class Identity:
    """Certificate chain, private key and trust store of a node. Made by `load` or `from_env`."""

    def __init__(self, source: Source, held: Credentials, trust: TrustStore) -> None:
        self.source = source
        self.trust = trust
        self.fingerprint = held.peer.fingerprint
        self.role = held.peer.role
        self.public_key_der = held.peer.public_key_der
        self._renewals = 0
        self._private = held.private
        self._held = held

    @property
    def version(self) -> tuple[int, int]:
        """Changes whenever the certificate or the trust store does: contexts must be made anew."""
        return self._renewals, self.trust.version

    @property
    def certificate(self) -> x509.Certificate:
        """The present certificate."""
        return self._held.chain[0]

    @property
    def chain_der(self) -> tuple[bytes, ...]:
        """The present certificate and what is sent along, DER."""
        return self._held.chain_der

    @property
    def organisation(self) -> str:
        """Fingerprint of the CA at the end of the chain."""
        return self._held.peer.organisation

    @property
    def common_name(self) -> str:
        """Common name in the present certificate."""
        return self._held.peer.common_name

    @property
    def holder(self) -> str:
        """Fingerprint of what the certificates are issued to, see `Peer.holder`."""
        return self._held.peer.holder

    @property
    def not_after(self) -> datetime:
        """When the present certificate expires."""
        return self.certificate.not_valid_after_utc

    def warning(self, at: datetime) -> str:
        """That the certificate ends soon, and what to do; "" before, and afterwards."""
        left = self.not_after - at
        if not timedelta(0) < left <= self.source.warn_at(lifetime_of(self.certificate))[0]:
            return ""
        return (
            f"the certificate {self.common_name} expires in {words(left)}, "
            f"on {self.not_after:%Y-%m-%d %H:%M} UTC; {self.source.remedy}"
        )

    @classmethod
    def load(
        cls,
        cert: Path,
        key: Path,
        *,
        capath: Path | None = None,
        cacert: Path | None = None,
        role: Role | None = None,
    ) -> Identity:
        """Read and check everything, so that a mistake shows now and not in a handshake.

        `role`: the one that this program needs. Raises LocalError, one code for each cause: SW1202
        unreadable, SW1203 expired, SW1204 not yet valid, SW1205 unknown CA, SW1206 revoked, SW1207
        wrong role, SW1208 key missing, SW1209 key of another certificate, SW1210 kind of key,
        SW1211 malformed, SW1212 no CA.
        """
        source = FileSource(cert, key)
        source.read()  # before the CAs: its mistakes are the usual ones
        return cls.of(source, TrustStore(capath=capath, cacert=cacert), role)

    @classmethod
    def of(cls, source: Source, trust: TrustStore, role: Role | None = None) -> Identity:
        """With what a source has now. Raises LocalError as `load`."""
        now = datetime.now(timezone.utc)
        held = _verified(source, source.read(), trust, role, now)
        left = held.chain[0].not_valid_after_utc - now
        if left < source.warn_at(lifetime_of(held.chain[0]))[0]:
            log.warning("%s expires in %s; %s", source.where, words(left), source.remedy)
        return cls(source, held, trust)

    @classmethod
    def from_env(
        cls, env: Mapping[str, str], role: Role | None = None, keys: Path | None = None
    ) -> Identity:
        """Identity that SWARM_ID_CERT, SWARM_ID_KEY, SWARM_ID_CAPATH, SWARM_ID_CACERT name.

        Or that of a SPIFFE agent, whose socket SWARM_SPIFFE_WORKLOAD_API_SOCKET_PATH names; the
        node's lasting key is kept in SWARM_SPIFFE_KEY_DIR, else in `keys`, else in memory only.

        Raises LocalError SW1201 when nothing is given, SW1208 without a key; else as `load`, and
        SW1224 to SW1228 for an agent.
        """
        cert, key, capath, cacert = (
            Path(value) if value else None
            for value in (
                env.get(f"SWARM_ID_{name}") for name in ("CERT", "KEY", "CAPATH", "CACERT")
            )
        )
        if socket := env.get(SOCKET_VARIABLE):
            if cert is not None or key is not None:
                raise LocalError("SW1224", f"{SOCKET_VARIABLE} and SWARM_ID_CERT are both given")
            from swarm.identity.spiffe import connect  # takes half a second and 40 MB

            place = Path(env[KEYS_VARIABLE]) if env.get(KEYS_VARIABLE) else keys
            source = connect(socket, role, place)
            trust = TrustStore(capath=capath, cacert=cacert, bundles=source.bundles)
            return cls.of(source, trust, role)
        if cert is None:
            raise LocalError("SW1201", "No identity specified")
        if key is None:
            raise LocalError("SW1208", f"no key was given for the certificate {cert}")
        return cls.load(cert, key, capath=capath, cacert=cacert, role=role)

    def renew(self, at: datetime) -> bool:
        """Go on with what the source has now. True when that is another certificate.

        Nothing is changed unless that is whole, valid at that moment and of the same member.
        Raises LocalError: as `load`, and SW1213 for another key.
        """
        material = self.source.read()
        if public_der(material.member_key.public_key()) != self.public_key_der:
            text = f"{self.source.where} is for another key than the one in use"
            raise LocalError("SW1213", text)
        held = _verified(self.source, material, self.trust, self.role, at)
        if held.chain_der == self._held.chain_der:
            return False
        make_context(held.pem, self.trust, server=True)  # OpenSSL has its own idea of what is good
        self._held = held
        self._renewals += 1
        return True

    def sign(self, data: bytes) -> bytes:
        """Signature over the bytes with the certificate's key; the same one for the same bytes."""
        return sign(self._private, data)

    def client_context(self) -> ssl.SSLContext:
        """TLS 1.3, own certificate presented, the server's verified. See `swarm.identity.tls`.

        A new one at each call, with the certificate and the CAs of this moment.
        """
        return make_context(self._held.pem, self.trust, server=False)

    def server_context(self) -> ssl.SSLContext:
        """TLS 1.3, own certificate presented, the client's required. See `swarm.identity.tls`."""
        return make_context(self._held.pem, self.trust, server=True)


def lifetime_of(certificate: x509.Certificate) -> timedelta:
    """How long it is valid in all."""
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def words(left: timedelta) -> str:
    """A time that is left, for people."""
    if left.days > 1:
        return f"{left.days} days"
    if left < timedelta(hours=2):
        return f"{left / timedelta(minutes=1):.0f} minutes"
    return f"{left / timedelta(hours=1):.0f} hours"


def _verified(
    source: Source, material: Material, trust: TrustStore, role: Role | None, at: datetime
) -> Credentials:
    """Raises LocalError SW1203 to SW1207, SW1210, SW1211, SW1220 to SW1223."""
    try:
        peer = trust.verify(material.chain, at=at)
    except RemoteError as fault:
        raise LocalError(fault.code, f"{source.where}: {fault.cause}") from fault
    if role is not None and peer.role is not role:
        raise LocalError(
            "SW1207", f"{source.where}: certificate {peer.common_name} is one of {peer.role}, "
            f"but {role} is needed here",
        )  # fmt: skip
    sent = tuple(c for c in material.chain if c not in trust.cas)  # a root need not be sent
    key = material.tls_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Credentials(
        peer=peer,
        chain=sent,
        chain_der=tuple(c.public_bytes(Encoding.DER) for c in sent),
        private=material.member_key,
        pem=key + b"".join(c.public_bytes(Encoding.PEM) for c in sent),
    )
