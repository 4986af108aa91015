"""Keys: which kinds are accepted, and signatures made with them.

Accepted are ECDSA on P-256 (a CA may also use P-384), RSA from 2048 to 8192 bits, and Ed25519.
ECDSA signatures take their nonce from the message (RFC 6979), so that signing the same bytes twice
gives the same signature and a poor random generator cannot leak the key.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

RSA_BITS = range(2048, 8192 + 1)  # the upper bound limits what one verification may cost
NODE_CURVES = ("secp256r1",)
CA_CURVES = ("secp256r1", "secp384r1")


def key_problem(key: object, *, of_ca: bool) -> str:
    """Why this public key is not accepted, or "" when it is."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size in RSA_BITS:
            return ""
        return f"an RSA key of {key.key_size} bits (2048 to 8192 are accepted)"
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name in (CA_CURVES if of_ca else NODE_CURVES):
            return ""
        return f"an elliptic curve key on {key.curve.name} (P-256 is accepted)"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ""
    return f"a key of the kind {type(key).__name__} (ECDSA P-256, RSA and Ed25519 are accepted)"


def public_der(key: PublicKey) -> bytes:
    """Public key as DER SubjectPublicKeyInfo (RFC 5280 4.1)."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(key: PrivateKey, data: bytes) -> bytes:
    """Sign with SHA-256: deterministic ECDSA (DER form), PKCS #1 v1.5 for RSA, or Ed25519."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), SHA256())
    return key.sign(data)


@lru_cache(maxsize=1024)
def _parsed(public_key_der: bytes) -> PublicKey | None:
    """Parsed key, or None when it is none that we accept. Parsing costs as much as verifying."""
    try:
        key = load_der_public_key(public_key_der)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if key_problem(key, of_ca=False):
        return None
    assert isinstance(
        key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey)
    ), "key_problem accepts only these"
    return key


def verify_signature(public_key_der: bytes, data: bytes, signature: bytes) -> bool:
    """Whether the signature fits. False, never an exception, on garbage of any kind."""
    key = _parsed(bytes(public_key_der))
    if key is None:
        return False
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), SHA256())
        else:
            key.verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
