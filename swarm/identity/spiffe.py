"""Identity from a SPIFFE agent, over its Workload API.

The agent streams what this process may be: certificates (SVIDs) with their keys, and the bundles of
CAs of the trust domains to trust, its own and the federated ones. `Agent` keeps the last answer and
asks again whenever the stream ends; `SpiffeSource` makes of it what `Identity` needs: an SVID of
the right role, and the delegation to the node's lasting key (see `delegation`). Nothing of an SVID
is ever written to disk.

While the agent is away, the node goes on with what it has until that expires.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from swarm.errors import LocalError
from swarm.identity.delegation import delegate
from swarm.identity.files import read_private_key
from swarm.identity.keys import PrivateKey
from swarm.identity.roles import Role, role_of
from swarm.identity.source import Material
from swarm.identity.trust import Bundles

log = logging.getLogger("swarm.identity")

PATIENCE = 60.0  # seconds for the first answer
RETRY, RETRY_MOST = 0.5, 10.0  # seconds between two attempts
MAX_SVIDS = 64
MAX_SOCKET_PATH = 100  # bytes; Linux has room for 107
MAX_CAS = 512


@dataclass(frozen=True)
class Svid:
    """One certificate that the agent lets this process use."""

    spiffe_id: str
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey


@dataclass(frozen=True)
class Answer:
    """What the agent said last. `version` grows by one with each answer."""

    version: int
    svids: tuple[Svid, ...]
    bundles: Bundles


class Agent:
    """The Workload API of one socket, followed in a thread until `close`."""

    def __init__(self, socket: str) -> None:
        self.socket = socket.removeprefix("unix://").removeprefix("unix:")
        self._news = threading.Condition()
        self._answer: Answer | None = None
        self._trouble = "it has not answered yet"
        self._closed = threading.Event()
        threading.Thread(target=self._follow, name="spiffe", daemon=True).start()

    @property
    def answer(self) -> Answer | None:
        """The last answer."""
        return self._answer

    @property
    def trouble(self) -> str:
        """Why it does not answer, or "" while the stream is open."""
        return self._trouble

    def wait(self, timeout: float) -> Answer:
        """The first answer. Raises LocalError SW1225."""
        with self._news:
            self._news.wait_for(lambda: self._answer is not None, timeout)
            if self._answer is None:
                raise LocalError("SW1225", f"{self.socket}: {self._trouble}")
            return self._answer

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _follow(self) -> None:
        pause = RETRY
        while not self._closed.is_set():
            before = self._answer
            self._set_trouble(self._stream())
            pause = RETRY if self._answer is not before else min(2 * pause, RETRY_MOST)
            self._closed.wait(pause)

    def _stream(self) -> str:
        """Take answers until the stream ends; returns why it did."""
        from spiffe import WorkloadApiClient
        from spiffe.errors import PySpiffeError

        if not Path(self.socket).is_socket():
            return "there is no socket of an agent"
        ended = threading.Event()
        reasons: list[str] = []

        def fail(error: Exception) -> None:
            reasons.append(_reason(error))
            ended.set()

        try:
            client = WorkloadApiClient(f"unix:{_short(self.socket)}")
        except PySpiffeError as fault:
            return str(fault)
        stream = client.stream_x509_contexts(self._take, fail, retry_connect=False)
        try:
            while not ended.wait(1.0) and not self._closed.is_set():
                pass
        finally:
            stream.cancel()
            client.close()
        return reasons[0] if reasons else "it was left"

    def _take(self, context: object) -> None:
        version = self._answer.version + 1 if self._answer else 1
        answer = _answer_of(context, version)
        with self._news:
            self._answer, self._trouble = answer, ""
            self._news.notify_all()

    def _set_trouble(self, text: str) -> None:
        with self._news:
            self._trouble = text


def _short(path: str) -> str:
    """The path, without the links of a private root where it is too long for a Unix socket."""
    return path if len(os.fsencode(path)) < MAX_SOCKET_PATH else os.path.realpath(path)


def _reason(error: Exception) -> str:
    """What the library says of a failed call, in words that help."""
    text = str(error)
    if "PERMISSION_DENIED" in text:
        return "the agent knows no identity for this process (PERMISSION_DENIED)"
    if "UNAVAILABLE" in text:
        return "no agent listens there (UNAVAILABLE)"
    return text[:300]


def _answer_of(context: object, version: int) -> Answer:
    """Raises ValueError for what is beyond all measure or of a kind that nobody can use."""
    from spiffe.workloadapi.x509_context import X509Context

    assert isinstance(context, X509Context), "the library calls with nothing else"
    svids = tuple(
        Svid(str(svid.spiffe_id), tuple(svid.cert_chain), _usable(svid.private_key))
        for svid in context.x509_svids[:MAX_SVIDS]
    )
    cas = {
        bundle.trust_domain.name: tuple(
            sorted(bundle.x509_authorities, key=lambda ca: ca.public_bytes(Encoding.DER))
        )
        for bundle in context.x509_bundle_set.bundles
    }
    if sum(map(len, cas.values())) > MAX_CAS:
        raise ValueError(f"the agent's bundles hold more than {MAX_CAS} CAs")
    return Answer(version, svids, Bundles(version, cas))


def _usable(key: object) -> PrivateKey:
    if isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        return key
    raise ValueError(f"the agent gave a key of the kind {type(key).__name__}")


class SpiffeSource:
    """The SVID of one id, with the delegation to the lasting key."""

    def __init__(self, agent: Agent, role: Role | None, keys: Path | None) -> None:
        """`keys`: directory of the lasting key; None keeps it in memory. Raises LocalError SW1226
        when the agent has no SVID of that role, SW1227 or SW12xx when the key cannot be used."""
        self._agent = agent
        self.where = f"the SPIFFE agent at {agent.socket}"
        self.remedy = "the SPIFFE agent should have renewed it: see its log"
        answer = agent.answer
        assert answer is not None, "waited for"
        self.spiffe_id = _choose(answer, role, self.where)
        self._lasting = _lasting_key(keys, self.spiffe_id)
        self._made: tuple[x509.Certificate, x509.Certificate] | None = None  # SVID and delegation

    def warn_at(self, lifetime: timedelta) -> tuple[timedelta, ...]:
        """Agents renew at half of the time; at a quarter something is wrong."""
        return (lifetime / 4,)

    def stamp(self) -> object:
        return self._agent.answer.version if self._agent.answer else 0

    def trouble(self) -> str:
        trouble = self._agent.trouble
        return f"{self.where} does not answer: {trouble}" if trouble else ""

    def bundles(self) -> Bundles:
        """The CAs to trust now."""
        answer = self._agent.answer
        assert answer is not None, "there was one when this was made, and it is never taken back"
        return answer.bundles

    def read(self) -> Material:
        """Raises LocalError SW1226 when the agent has none of our id any more."""
        answer = self._agent.answer
        assert answer is not None, "as in `bundles`"
        svid = next((s for s in answer.svids if s.spiffe_id == self.spiffe_id), None)
        if svid is None:
            others = ", ".join(s.spiffe_id for s in answer.svids)[:300]
            raise LocalError("SW1226", f"{self.where} gives {others}, not {self.spiffe_id}")
        leaf = svid.chain[0]
        if self._made is None or self._made[0] != leaf:
            self._made = (leaf, delegate(leaf, svid.key, self._lasting))
        return Material((*svid.chain, self._made[1]), svid.key, self._lasting)


def connect(socket: str, role: Role | None, keys: Path | None) -> SpiffeSource:
    """Wait for the agent, and choose an SVID. Raises LocalError SW1225 to SW1228."""
    if importlib.util.find_spec("spiffe") is None:
        raise LocalError("SW1228", "there is no package `spiffe`")
    # Programs that this one starts use no gRPC; its preparations for a fork only cost and complain.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    agent = Agent(socket)
    started = time.monotonic()
    log.info("waiting for an identity from the SPIFFE agent at %s", agent.socket)
    try:
        answer = agent.wait(PATIENCE)
        source = SpiffeSource(agent, role, keys)
    except LocalError:
        agent.close()
        raise
    log.info(
        "%s gave %s and CAs of %s after %.1f s",
        source.where,
        source.spiffe_id,
        ", ".join(sorted(answer.bundles.cas)),
        time.monotonic() - started,
    )
    return source


def _choose(answer: Answer, role: Role | None, where: str) -> str:
    """The first id of the role that this program needs. Raises LocalError SW1226."""
    for svid in answer.svids:
        if role is None or role_of(svid.chain[0]) is role:
            return svid.spiffe_id
    given = ", ".join(svid.spiffe_id for svid in answer.svids)[:300]
    raise LocalError(
        "SW1226", f"{where} gives {given}; for {role} the path has to end with /{str(role).lower()}"
    )


def _lasting_key(directory: Path | None, spiffe_id: str) -> ec.EllipticCurvePrivateKey:
    """The key that is kept for this id, made at the first time. Raises LocalError."""
    if directory is None:
        log.info("no directory for a lasting key: this node is a new member at each start")
        return ec.generate_private_key(ec.SECP256R1())
    name = hashlib.sha256(spiffe_id.encode()).hexdigest()[:16]
    path = directory / f"spiffe-{name}-key.pem"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_new_key(path)
    except OSError as fault:
        text = f"cannot keep the lasting key in {directory} ({fault.strerror})"
        raise LocalError("SW1227", text) from fault
    key = read_private_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise LocalError("SW1227", f"{path} is not the P-256 key that this program wrote")
    return key


def _write_new_key(path: Path) -> None:
    """In one step, and never over one that another process wrote in the meantime."""
    key = ec.generate_private_key(ec.SECP256R1())
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
