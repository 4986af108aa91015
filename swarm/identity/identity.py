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
from swarm.identity.files import read_certificates, read_private_key
from swarm.identity.keys import PrivateKey, public_der, sign
from swarm.identity.roles import Role
from swarm.identity.tls import make_context
from swarm.identity.trust import TrustStore

log = logging.getLogger("swarm.identity")

EXPIRY_WARNING = timedelta(days=30)


@dataclass(frozen=True)
class Credentials:
    """A certificate chain that was verified, with the private key of its leaf."""

    peer: Peer
    chain: tuple[x509.Certificate, ...]  # as it is sent: leaf first, without the root
    chain_der: tuple[bytes, ...]
    private: PrivateKey
    pem: bytes  # key and chain, for OpenSSL


class Identity:
    """Certificate chain, private key and trust store of a node. Made by `load` or `from_env`."""

    def __init__(self, cert: Path, key: Path, held: Credentials, trust: TrustStore) -> None:
        self.cert_path = cert
        self.key_path = key
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
    def not_after(self) -> datetime:
        """When the present certificate expires."""
        return self.certificate.not_valid_after_utc

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
        chain, private = _read(cert, key)  # before the CAs: its mistakes are the usual ones
        trust = TrustStore(capath=capath, cacert=cacert)
        now = datetime.now(timezone.utc)
        held = _verified(cert, chain, private, trust, role, now)
        left = held.chain[0].not_valid_after_utc - now
        if left < EXPIRY_WARNING:
            log.warning("%s expires in %d days; renew it with gen-cert --renew", cert, left.days)
        return cls(cert, key, held, trust)

    @classmethod
    def from_env(cls, env: Mapping[str, str], role: Role | None = None) -> Identity:
        """Identity that SWARM_ID_CERT, SWARM_ID_KEY, SWARM_ID_CAPATH, SWARM_ID_CACERT name.

        Raises LocalError SW1201 when nothing is given, SW1208 without a key; else as `load`.
        """
        cert, key, capath, cacert = (
            Path(value) if value else None
            for value in (
                env.get(f"SWARM_ID_{name}") for name in ("CERT", "KEY", "CAPATH", "CACERT")
            )
        )
        if cert is None:
            raise LocalError("SW1201", "No identity specified")
        if key is None:
            raise LocalError("SW1208", f"no key was given for the certificate {cert}")
        return cls.load(cert, key, capath=capath, cacert=cacert, role=role)

    def renew(self, at: datetime) -> bool:
        """Go on with what the files hold now. True when that is another certificate.

        Nothing is changed unless the files are whole, valid at that moment and of the same member.
        Raises LocalError: as `load`, and SW1213 for another key.
        """
        chain, private = _read(self.cert_path, self.key_path)
        if public_der(private.public_key()) != self.public_key_der:
            raise LocalError("SW1213", f"{self.cert_path} is for another key than the one in use")
        held = _verified(self.cert_path, chain, private, self.trust, self.role, at)
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


def _read(cert: Path, key: Path) -> tuple[tuple[x509.Certificate, ...], PrivateKey]:
    """Raises LocalError SW1202, SW1208, SW1209, SW1210."""
    chain = read_certificates(cert)
    private = read_private_key(key)
    if public_der(private.public_key()) != public_der(chain[0].public_key()):  # type: ignore[arg-type]
        raise LocalError("SW1209", f"the key {key} does not belong to the certificate {cert}")
    return chain, private


def _verified(
    cert: Path,
    chain: tuple[x509.Certificate, ...],
    private: PrivateKey,
    trust: TrustStore,
    role: Role | None,
    at: datetime,
) -> Credentials:
    """Raises LocalError SW1203 to SW1207, SW1210, SW1211."""
    try:
        peer = trust.verify(chain, at=at)
    except RemoteError as fault:
        raise LocalError(fault.code, f"{cert}: {fault.cause}") from fault
    if role is not None and peer.role is not role:
        raise LocalError(
            "SW1207", f"{cert}: certificate {peer.common_name} is one of {peer.role}, "
            f"but {role} is needed here",
        )  # fmt: skip
    sent = tuple(c for c in chain if c not in trust.cas)  # a root need not be sent
    key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Credentials(
        peer=peer,
        chain=sent,
        chain_der=tuple(c.public_bytes(Encoding.DER) for c in sent),
        private=private,
        pem=key + b"".join(c.public_bytes(Encoding.PEM) for c in sent),
    )
