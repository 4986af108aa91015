"""The role of a node, read from its certificate.

Two ways to write it, as certificates come from two kinds of places:

- subject common name `SN-1`, `SL-1`, `SWOP-1`, `SWCI-1`: the part before the first hyphen;
- a SPIFFE id (URI in the subject alternative name) such as `spiffe://org1.example/host-1/sn`: the
  last segment of the path, again up to a hyphen.

When both are there they must agree; otherwise the certificate has no role.
"""

from __future__ import annotations

from enum import Enum
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID


class Role(str, Enum):
    """What the holder of a certificate may act as."""

    SN = "SN"
    SL = "SL"
    SWOP = "SWOP"
    SWCI = "SWCI"

    def __str__(self) -> str:
        return self.value


def common_name_of(certificate: x509.Certificate) -> str:
    """Common name of the subject; empty when there is none or more than one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def role_of(certificate: x509.Certificate) -> Role | None:
    """Role that the certificate grants, or None."""
    found = {
        role
        for role in (_role_of_word(common_name_of(certificate)), _role_of_spiffe_id(certificate))
        if role is not None
    }
    return found.pop() if len(found) == 1 else None


def _role_of_word(word: str) -> Role | None:
    prefix = word.partition("-")[0].upper()
    return Role(prefix) if prefix in Role.__members__ else None


def _role_of_spiffe_id(certificate: x509.Certificate) -> Role | None:
    return _role_of_word(urlsplit(spiffe_id_of(certificate)).path.rsplit("/", 1)[-1])


def spiffe_id_of(certificate: x509.Certificate) -> str:
    """The SPIFFE id of a certificate; empty when there is none or, against the standard, several.

    The id of a CA names its trust domain and has no path.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    ids = [uri for uri in uris if uri.startswith("spiffe://")]
    return ids[0] if len(ids) == 1 else ""


def trust_domain_of(spiffe_id: str) -> str:
    """Name of the trust domain in a SPIFFE id; empty for an empty id."""
    return spiffe_id.removeprefix("spiffe://").partition("/")[0]
