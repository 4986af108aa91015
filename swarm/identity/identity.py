"""What a node needs to prove who it is, and to know whom it trusts."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from swarm.errors import LocalError, RemoteError
from swarm.identity.chain import Peer
from swarm.identity.files import read_certificates, read_private_key
from swarm.identity.keys import PrivateKey, public_der, sign
from swarm.identity.roles import Role
from swarm.identity.tls import make_context
from swarm.identity.trust import TrustStore

log = logging.getLogger("swarm.identity")

EXPIRY_WARNING = timedelta(days=30)


class Identity:
    """Certificate chain, private key and trust store of a node. Made by `load` or `from_env`."""

    def __init__(
        self, cert: Path, key: Path, chain: tuple[x509.Certificate, ...], private: PrivateKey,
        trust: TrustStore, peer: Peer,
    ) -> None:  # fmt: skip
        self.certificate = chain[0]
        self.chain_der = tuple(c.public_bytes(Encoding.DER) for c in chain)
        self.trust = trust
        self.fingerprint = peer.fingerprint
        self.role = peer.role
        self.organisation = peer.organisation
        self.common_name = peer.common_name
        self.public_key_der = peer.public_key_der
        self.not_after = self.certificate.not_valid_after_utc
        self._cert = cert
        self._key = key
        self._private = private

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
        chain = read_certificates(cert)
        private = read_private_key(key)
        if public_der(private.public_key()) != public_der(chain[0].public_key()):  # type: ignore[arg-type]
            raise LocalError("SW1209", f"the key {key} does not belong to the certificate {cert}")
        trust = TrustStore(capath=capath, cacert=cacert)
        now = datetime.now(timezone.utc)
        try:
            peer = trust.verify(chain, at=now)
        except RemoteError as fault:
            raise LocalError(fault.code, f"{cert}: {fault.cause}") from fault
        if role is not None and peer.role is not role:
            raise LocalError(
                "SW1207", f"{cert}: certificate {peer.common_name} is one of {peer.role}, "
                f"but {role} is needed here",
            )  # fmt: skip
        left = chain[0].not_valid_after_utc - now
        if left < EXPIRY_WARNING:
            log.warning("%s expires in %d days; renew it with gen-cert --renew", cert, left.days)
        sent = tuple(c for c in chain if c not in trust.cas)  # a root need not be sent
        return cls(cert, key, sent, private, trust, peer)

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

    def sign(self, data: bytes) -> bytes:
        """Signature over the bytes with the certificate's key; the same one for the same bytes."""
        return sign(self._private, data)

    def client_context(self) -> ssl.SSLContext:
        """TLS 1.3, own certificate presented, the server's verified. See `swarm.identity.tls`.

        A new one at each call, with the CAs that the trust store holds now.
        """
        return make_context(self._cert, self._key, self.trust, server=False)

    def server_context(self) -> ssl.SSLContext:
        """TLS 1.3, own certificate presented, the client's required. See `swarm.identity.tls`."""
        return make_context(self._cert, self._key, self.trust, server=True)
