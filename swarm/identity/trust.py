"""The CAs that this node trusts, what they have revoked, and which keys the members have barred.

A trust store is a directory of CA files (`capath`), a bundle (`cacert`), or both. File names do not
matter: every file of the directory is read; certificates of CAs and revocation lists (CRLs) are
taken from it, everything else is skipped with a note.

Revocation is checked here and not by OpenSSL, for OpenSSL's switch is all or nothing: with it, a CA
that publishes no list makes all its certificates invalid as soon as another CA has one. Here a list
counts for the CA that signed it. A list that is past its `nextUpdate` still revokes what it names,
and is warned about: it must not stop a whole network that somebody forgot to renew it.

Files change while a node runs. One that is being written, or was damaged, keeps its former contents
until it is whole again, so that nobody revoked slips in, and no CA drops out, between two writes.
One that is removed is gone at once.

CAs may also come from a SPIFFE agent, as bundles of trust domains: such a CA counts for ids of its
domain, and for no others.

A key that the members' ledger has barred (evicted) is refused here as well, whatever certificate it
comes with, so that there is one judgement for all doors.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from swarm.errors import LocalError, RemoteError
from swarm.identity.chain import Peer, find_path, is_ca, peer_of_path
from swarm.identity.files import PemFile, read_file
from swarm.identity.parsing import describe, malformed_is_remote
from swarm.identity.roles import Role, spiffe_id_of, trust_domain_of
from swarm.identity.uid import fingerprint_of

log = logging.getLogger("swarm.identity")

BARRED = "SW4015"  # the refusal of a key that the members have barred
_KEPT = "its former contents stay in use: replace it by a whole one, or remove it"

Stamp = tuple[tuple[str, int, int, int], ...]  # path, time of change, size and inode of each file


@dataclass(frozen=True)
class Bundles:
    """CAs of trust domains, as a SPIFFE agent gives them out. A later one has a higher version."""

    version: int
    cas: Mapping[str, tuple[x509.Certificate, ...]]


@dataclass(frozen=True)
class _Contents:
    """What the files held when they were read."""

    cas: tuple[x509.Certificate, ...] = ()
    ca_ders: dict[str, bytes] = field(default_factory=dict)
    domains: dict[x509.Certificate, frozenset[str]] = field(default_factory=dict)  # of bundles
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    notes: tuple[str, ...] = ()
    stamp: Stamp = ()
    files: dict[Path, PemFile] = field(default_factory=dict)
    # Lists of each CA whose certificates were looked at; found once, as signatures take time.
    lists: dict[x509.Certificate, tuple[x509.CertificateRevocationList, ...]] = field(
        default_factory=dict
    )

    def lists_of(self, issuer: x509.Certificate) -> tuple[x509.CertificateRevocationList, ...]:
        found = self.lists.get(issuer)
        if found is None:
            found = self.lists[issuer] = tuple(
                crl for crl in self.crls if crl.issuer == issuer.subject and _signed_by(crl, issuer)
            )
        return found


class TrustStore:
    """CAs and CRLs from files; `reload` picks up changes. Safe to share between threads."""

    def __init__(
        self,
        *,
        capath: Path | None = None,
        cacert: Path | None = None,
        bundles: Callable[[], Bundles] | None = None,
    ) -> None:
        """Read the files; `bundles` gives those of the moment.

        Raises LocalError SW1202 (unreadable), SW1212 (no CA in them).
        """
        self._capath = capath
        self._cacert = cacert
        self._bundles = bundles
        self.version = 0  # grows with each change
        self._warned: set[str] = set()
        self._unusable: Stamp | None = None  # what could not be taken over, to say so once
        self._barred: Mapping[str, str] = {}
        self._contents = self._read({})
        for note in self._contents.notes:
            log.info("%s", note)

    @property
    def cas(self) -> tuple[x509.Certificate, ...]:
        """Certificates of the trusted CAs."""
        return self._contents.cas

    @property
    def ca_ders(self) -> dict[str, bytes]:
        """The same as fingerprint to DER, the form that `verify_chain` takes."""
        return dict(self._contents.ca_ders)

    @property
    def crls(self) -> tuple[x509.CertificateRevocationList, ...]:
        """Revocation lists found."""
        return self._contents.crls

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each file or certificate that was skipped."""
        return self._contents.notes

    def reload(self) -> bool:
        """Read again what changed on disk. True when the trust store is another one now.

        What cannot be used, as while it is being copied, leaves the store as it was.
        """
        stamp = self._stamp()
        if stamp in (self._contents.stamp, self._unusable):
            return False
        try:
            fresh = self._read(self._contents.files)
        except LocalError as fault:
            self._unusable = stamp
            log.warning("trust store kept as it was: %s", fault)
            return False
        self._unusable = None
        before, self._contents = self._contents, fresh
        for note in fresh.notes:
            if note not in before.notes:
                level = logging.WARNING if note.endswith(_KEPT) else logging.INFO
                log.log(level, "%s", note)
        return self._now_other(
            (before.cas, before.crls, before.domains) != (fresh.cas, fresh.crls, fresh.domains)
        )

    def bar(self, barred: Mapping[str, str]) -> bool:
        """Refuse these keys and SPIFFE ids (fingerprint to reason) from now on. True when they are
        others now."""
        before, self._barred = self._barred, dict(barred)
        return self._now_other(before != self._barred)

    def _now_other(self, other: bool) -> bool:
        self.version += other
        return other

    def verify(
        self,
        chain: Sequence[x509.Certificate | bytes],
        *,
        at: datetime,
        roles: Container[Role] | None = None,
    ) -> Peer:
        """Verify a chain (leaf first) at a moment (aware), for a door that is open to `roles`.

        Raises RemoteError: as `verify_chain`, and SW1203 expired, SW1204 not yet valid, SW1206
        revoked, SW1207 a role that this door is not for, SW4015 its key is barred.
        """
        ders = [c if isinstance(c, bytes) else c.public_bytes(Encoding.DER) for c in chain]
        contents = self._contents
        path, delegated = find_path(ders, contents.ca_ders)
        for certificate in path:
            check_validity(certificate, at)
        if delegated is not None:
            check_validity(delegated, at)
        _check_domain(contents, path)
        for certificate, issuer in pairwise(path):
            self._check_revocation(contents, certificate, issuer, at)
        peer = peer_of_path(path, delegated)
        if peer.holder in self._barred:
            raise RemoteError(BARRED, f"{describe(path[0])}: {self._barred[peer.holder]}")
        if roles is not None and peer.role not in roles:
            raise RemoteError(
                "SW1207", f"{describe(path[0])} has the role {peer.role}, which may not enter here"
            )
        return peer

    def _check_revocation(
        self,
        contents: _Contents,
        certificate: x509.Certificate,
        issuer: x509.Certificate,
        at: datetime,
    ) -> None:
        for crl in contents.lists_of(issuer):
            if crl.next_update_utc is not None and crl.next_update_utc < at:
                self._warn_once(
                    f"the revocation list of {describe(issuer)} should have been renewed on "
                    f"{_day(crl.next_update_utc)}; it is still applied"
                )
            entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if entry is not None and entry.revocation_date_utc <= at:
                raise RemoteError(
                    "SW1206",
                    f"{describe(certificate)} was revoked by its CA on "
                    f"{_day(entry.revocation_date_utc)}",
                )

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s", text)

    def _files(self) -> list[Path]:
        """All files to read. Raises LocalError SW1202, SW1212."""
        if self._capath is None and self._cacert is None and self._bundles is None:
            raise LocalError("SW1212", "neither a directory nor a bundle of CA certificates given")
        files: list[Path] = []
        try:
            if self._capath is not None:
                files += sorted(p for p in self._capath.iterdir() if not p.is_dir())
        except OSError as fault:
            raise LocalError(
                "SW1202", f"cannot read the directory {self._capath} ({fault.strerror})"
            ) from fault
        if self._cacert is not None:
            files.append(self._cacert)
        return files

    def _stamp(self) -> Stamp:
        """Changes whenever a file is added, removed or written."""
        try:
            files = tuple(stamp_of(path) for path in self._files())
        except LocalError:
            files = (("", 0, 0, 0),)
        bundles = self._bundles() if self._bundles is not None else None
        return (*files, ("bundles", bundles.version, 0, 0)) if bundles is not None else files

    def _read(self, before: Mapping[Path, PemFile]) -> _Contents:
        contents = _Contents(stamp=self._stamp())  # before reading: a later change is seen again
        for path in self._files():
            contents = _add(contents, _read_or_keep(path, before.get(path)))
        if self._bundles is not None:
            contents = _add_bundles(contents, self._bundles())
        if not contents.cas:
            places = [str(p) for p in (self._capath, self._cacert) if p is not None]
            where = " or ".join(
                [*places, *(["the SPIFFE agent's bundles"] if self._bundles else [])]
            )
            raise LocalError("SW1212", f"no CA certificate found in {where}")
        ders = [ca.public_bytes(Encoding.DER) for ca in contents.cas]
        _check_usable(contents.cas)
        return replace(contents, ca_ders={fingerprint_of(der): der for der in ders})


def check_validity(certificate: x509.Certificate, at: datetime) -> None:
    """Raises RemoteError SW1203 or SW1204 when the certificate is not valid at that moment."""
    if at > certificate.not_valid_after_utc:
        raise RemoteError(
            "SW1203", f"{describe(certificate)} expired on {_day(certificate.not_valid_after_utc)}"
        )
    if at < certificate.not_valid_before_utc:
        raise RemoteError(
            "SW1204",
            f"{describe(certificate)} is valid only from {_day(certificate.not_valid_before_utc)}, "
            f"and it is {_day(at)} here",
        )


def _check_usable(cas: Sequence[x509.Certificate]) -> None:
    """Raise LocalError SW1202 for what OpenSSL, which does the handshakes, cannot use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for ca in cas:
        try:
            context.load_verify_locations(cadata=ca.public_bytes(Encoding.PEM).decode("ascii"))
        except ssl.SSLError as fault:
            raise LocalError(
                "SW1202", f"OpenSSL cannot use the CA {describe(ca)} ({fault.reason})"
            ) from fault


def stamp_of(path: Path) -> tuple[str, int, int, int]:
    """What changes when the file is written or replaced; zeros when it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path), status.st_mtime_ns, status.st_size, status.st_ino


def _read_or_keep(path: Path, before: PemFile | None) -> PemFile:
    """What the file holds; what it held before when it is damaged now. Raises LocalError SW1202."""
    held = before is not None and (before.certificates or before.crls)
    try:
        file = read_file(path)
    except LocalError as fault:
        if before is None or not held or not path.exists():
            raise
        return replace(before, problems=(f"{fault.cause}: {_KEPT}",))
    if before is not None and held and (file.problems or not (file.certificates or file.crls)):
        why = file.problems[0] if file.problems else "holds nothing now"
        return replace(before, problems=(f"{why}: {_KEPT}",))
    return file


def _add(contents: _Contents, file: PemFile) -> _Contents:
    """Contents with those of one more file."""
    notes: list[str] = []
    cas: list[x509.Certificate] = []
    known = set(contents.cas)
    for certificate in file.certificates:
        with malformed_is_remote():
            accepted = is_ca(certificate)
        if not accepted:
            notes.append(f"{file.path}: {describe(certificate)} is not a CA: skipped")
        elif certificate not in known:
            known.add(certificate)
            cas.append(certificate)
    if not file.certificates and not file.crls:
        notes.append(f"{file.path}: holds neither certificates nor revocation lists: skipped")
    notes += [f"{file.path}: {problem}" for problem in file.problems]
    return replace(
        contents,
        files={**contents.files, file.path: file},
        cas=(*contents.cas, *cas),
        crls=(*contents.crls, *file.crls),
        notes=(*contents.notes, *notes),
    )


def _add_bundles(contents: _Contents, bundles: Bundles) -> _Contents:
    """Contents with the CAs of trust domains. One that a file names too is not bound to those."""
    notes: list[str] = []
    domains: dict[x509.Certificate, frozenset[str]] = {}
    for domain, cas in sorted(bundles.cas.items()):
        for ca in cas:
            with malformed_is_remote():
                fits = is_ca(ca) and spiffe_id_of(ca) in ("", f"spiffe://{domain}")
            if not fits:
                notes.append(f"bundle of {domain}: {describe(ca)} is no CA of it: skipped")
            elif ca not in contents.cas:
                domains[ca] = domains.get(ca, frozenset()) | {domain}
    return replace(
        contents,
        cas=(*contents.cas, *domains),
        domains=domains,
        notes=(*contents.notes, *notes),
    )


def _check_domain(contents: _Contents, path: Sequence[x509.Certificate]) -> None:
    """Raise RemoteError SW1223 for an id of a domain that its CA is not trusted for."""
    domains = contents.domains.get(path[-1])
    if domains is None:
        return
    with malformed_is_remote():
        domain = trust_domain_of(spiffe_id_of(path[0]))
        issuer = spiffe_id_of(path[1])
    if not issuer:  # keys would count for members, and ids be no hold on those who change them
        text = f"{describe(path[0])} was issued by a CA that does not name its trust domain"
        raise RemoteError("SW1223", text)
    if domain not in domains:
        raise RemoteError(
            "SW1223",
            f"{describe(path[0])} has an id of the trust domain {domain[:200]!r}, but its CA is "
            f"trusted for {', '.join(sorted(domains))} only",
        )


def _signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
