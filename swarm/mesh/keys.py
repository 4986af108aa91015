"""Certificate keys as libp2p keys, so that the peer id is the certificate's key.

libp2p (specs/peer-ids) knows four kinds of keys, each with an encoding of its own:

- Ed25519: the 32 raw bytes; short enough that the peer id holds the key itself.
- ECDSA: DER SubjectPublicKeyInfo. RSA: the same. Their peer ids hold the SHA-256 of it.

Python's libp2p 0.8.1 has no ECDSA key that works (`crypto/ecc.py` raises NotImplementedError), so
`register` adds ours, in the two tables that it looks keys up in: the general one, and a hard-coded
copy for signed envelopes, without which identify and pubsub drop everything of an ECDSA peer with
only a log line. The mesh itself uses neither; whoever adds circuit relays later needs both.

The private key never enters libp2p: the object given to it can sign, and refuses to be serialised.
"""

from __future__ import annotations

from typing import Any

import libp2p.peer.envelope as envelope
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from libp2p.crypto import serialization as tables
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.crypto.keys import KeyPair, KeyType, PrivateKey, PublicKey
from libp2p.crypto.rsa import RSAPublicKey
from libp2p.peer.id import ID

from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, verify_signature

MAX_RSA_BITS = 4096  # libp2p's own limit


class EcdsaPublicKey(PublicKey):  # type: ignore[misc]  # libp2p is untyped for us
    """An ECDSA P-256 public key."""

    def __init__(self, spki: bytes) -> None:
        self._spki = spki

    def to_bytes(self) -> bytes:
        return self._spki

    @classmethod
    def from_bytes(cls, data: bytes) -> EcdsaPublicKey:
        key = _load(data)
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise ValueError("not an ECDSA P-256 public key")
        return cls(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def get_type(self) -> Any:
        return KeyType.ECDSA

    def verify(self, data: bytes, signature: bytes) -> bool:
        return verify_signature(self._spki, data, signature)


class IdentityKey(PrivateKey):  # type: ignore[misc]
    """Signs with a node's certificate key; does not give it away."""

    def __init__(self, identity: Identity, public: Any) -> None:
        self._identity = identity
        self._public = public

    def to_bytes(self) -> bytes:
        raise NotImplementedError("the key of a certificate stays where it is")

    def get_type(self) -> Any:
        return self._public.get_type()

    def sign(self, data: bytes) -> bytes:
        return self._identity.sign(data)

    def get_public_key(self) -> Any:
        return self._public


def public_key(spki: bytes) -> Any:
    """The libp2p public key of a certificate's (DER SubjectPublicKeyInfo).

    Raises ValueError for a kind of key that libp2p cannot use.
    """
    key = _load(spki)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Ed25519PublicKey.from_bytes(key.public_bytes_raw())
    if isinstance(key, ec.EllipticCurvePublicKey):
        return EcdsaPublicKey.from_bytes(spki)
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size > MAX_RSA_BITS:
            raise ValueError(f"an RSA key of {key.key_size} bits; at most {MAX_RSA_BITS} here")
        return RSAPublicKey.from_bytes(spki)
    raise ValueError(f"a key of the kind {type(key).__name__}")


def _load(spki: bytes) -> Any:
    """The key in a SubjectPublicKeyInfo. Raises ValueError, whatever is the matter with it."""
    try:
        return load_der_public_key(spki)
    except (UnsupportedAlgorithm, TypeError) as error:
        raise ValueError(f"a key that cannot be read ({error})") from None


def key_pair(identity: Identity) -> Any:
    """What a libp2p host needs of an identity. Raises `LocalError` SW2021."""
    try:
        public = public_key(identity.public_key_der)
    except ValueError as error:
        raise LocalError("SW2021", f"{identity.common_name}: {error}") from error
    return KeyPair(IdentityKey(identity, public), public)


def peer_id_of(spki: bytes) -> str:
    """The peer id (base58) of a certificate's public key. Raises `RemoteError` SW2013."""
    try:
        return str(ID.from_pubkey(public_key(spki)))
    except ValueError as error:
        raise RemoteError("SW2013", str(error)) from error


def parse_peer_id(text: str) -> Any:
    """The `libp2p.peer.id.ID` of a base58 text. Raises ValueError when it is none."""
    if not 32 < len(text) < 64 or not text.isalnum():
        raise ValueError("not a peer id")
    return ID.from_base58(text)


def register() -> None:
    """Make libp2p know ECDSA keys. Does nothing the second time."""
    deserializers = tables.key_type_to_public_key_deserializer
    if KeyType.ECDSA.value in deserializers:
        return
    deserializers[KeyType.ECDSA.value] = EcdsaPublicKey.from_bytes
    original = envelope.pub_key_from_protobuf

    def pub_key_from_protobuf(message: Any) -> Any:
        if message.Type == KeyType.ECDSA.value:
            return EcdsaPublicKey.from_bytes(message.Data)
        return original(message)

    envelope.pub_key_from_protobuf = pub_key_from_protobuf


register()
