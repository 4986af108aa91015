"""Certificate signing requests, judged: what a CA's host learns of a node whose key it never sees.

A request is a stranger's file. `judge` takes from it a name, host names and a public key, and
nothing else: whoever holds the key has signed all three (PKCS #10, RFC 2986), and the certificate
is made of our own profile (see `authority`). What asks for more than that is refused rather than
trimmed, so that nobody believes to have got what was left out.

That the request comes from whom it names is for people to see: they compare `spoken`, the key's
fingerprint, over a channel that they trust, such as the telephone.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from certs.host import WORD
from swarm.errors import LocalError
from swarm.identity.faults import PARSE_FAULTS
from swarm.identity.keys import PublicKey, key_problem, public_der
from swarm.identity.roles import Role
from swarm.identity.uid import fingerprint_of

MAX_REQUEST = 16 * 1024  # bytes; an RSA-8192 key with thirty names takes a quarter of it
MAX_NAMES = 32
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_EXTENSIONS = "1.2.840.113549.1.9.14"  # the only attribute of a request that we know


@dataclass(frozen=True)
class Request:
    """What somebody asks a certificate for, and has signed with the key itself."""

    name: str
    role: Role
    hosts: tuple[str, ...]
    key: PublicKey

    @property
    def fingerprint(self) -> str:
        """Of the key: what the member will be known by."""
        return fingerprint_of(public_der(self.key))


def spoken(fingerprint: str) -> str:
    """The fingerprint in groups of four, to be read out."""
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))


def same_fingerprint(given: str, fingerprint: str) -> bool:
    """Whether somebody typed this fingerprint: capitals, blanks, colons and hyphens are free."""
    return re.sub(r"[\s:-]", "", given).lower() == fingerprint


def split_name(name: str) -> tuple[Role, str]:
    """Role and index of `SN-3` (or `sn-3`). Raises LocalError SW1106."""
    role, _, index = name.partition("-")
    if role.upper() not in Role.__members__ or not WORD.fullmatch(index):
        raise LocalError(
            "SW1106", f"{name[:80]!r} is no name of a node, such as SN-3, SL-3, SWOP-3 or SWCI-3"
        )
    return Role(role.upper()), index


def judge(data: bytes, where: str = "the request") -> Request:
    """What a request in PEM form asks for.

    Raises LocalError: SW1104 unreadable, SW1105 not signed by its own key, SW1106 asks for what
    is not issued, SW1210 a kind of key that is not accepted.
    """
    if len(data) > MAX_REQUEST:
        raise LocalError("SW1104", f"{where} has more than {MAX_REQUEST} bytes")
    try:
        request = x509.load_pem_x509_csr(data)
        key, extensions = request.public_key(), list(request.extensions)
        subject, attributes = list(request.subject), list(request.attributes)
    except PARSE_FAULTS as fault:
        raise LocalError("SW1104", f"{where} is no certificate request ({fault})") from fault
    problem = key_problem(key, of_ca=False)
    if problem:
        raise LocalError("SW1210", f"{where} is for {problem}")
    assert isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey))
    _check_signature(request, where)
    if any(a.oid.dotted_string != _EXTENSIONS for a in attributes):
        raise LocalError("SW1106", f"{where} has attributes other than names")
    name = _name(subject, where)
    role, _ = split_name(name)
    return Request(name, role, _hosts(extensions, name, where), key)


def _check_signature(request: x509.CertificateSigningRequest, where: str) -> None:
    try:
        fits = request.is_signature_valid
    except PARSE_FAULTS:
        fits = False
    if not fits:
        raise LocalError("SW1105", f"{where} is not signed by the key that it is for")


def _name(subject: list[x509.NameAttribute[str | bytes]], where: str) -> str:
    """The common name. Nothing may stand beside it but the unit that gen-cert writes."""
    names = [str(part.value) for part in subject if part.oid == NameOID.COMMON_NAME]
    others = [
        part.rfc4514_string()
        for part in subject
        if part.oid != NameOID.COMMON_NAME
        and (part.oid, part.value) != (NameOID.ORGANIZATIONAL_UNIT_NAME, "Swarm-Learning")
    ]
    if len(names) != 1 or others:
        found = ", ".join(others)[:80] or f"{len(names)} common names"
        raise LocalError("SW1106", f"{where}: a subject of one common name is issued, not {found}")
    return names[0]


def _hosts(extensions: list[x509.Extension[x509.ExtensionType]], name: str, where: str) -> tuple[
    str, ...
]:  # fmt: skip
    found: list[str] = []
    for extension in extensions:
        if extension.oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
            what = getattr(extension.oid, "_name", extension.oid.dotted_string)
            raise LocalError("SW1106", f"{where} asks for {what}, which the CA decides on")
        assert isinstance(extension.value, x509.SubjectAlternativeName)
        for entry in extension.value:
            found.append(_host(entry, name, where))
    if len(found) > MAX_NAMES:
        raise LocalError("SW1106", f"{where} asks for {len(found)} names; {MAX_NAMES} at most")
    return tuple(dict.fromkeys(host for host in found if host != name))


def _host(entry: x509.GeneralName, name: str, where: str) -> str:
    """A DNS name or IP address that a node may have."""
    if isinstance(entry, x509.IPAddress) and isinstance(
        entry.value, (ipaddress.IPv4Address, ipaddress.IPv6Address)
    ):
        return str(entry.value)
    if isinstance(entry, x509.DNSName) and _DNS_NAME.fullmatch(entry.value):
        word = entry.value.partition("-")[0].upper()
        if entry.value == name or "." in entry.value or word not in Role.__members__:
            return entry.value
    raise LocalError(
        "SW1106",
        f"{where} asks for the name {str(entry.value)[:80]!r}: only IP addresses and DNS names are "
        "issued, no wildcards, and no name of another node",
    )
