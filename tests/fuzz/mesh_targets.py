"""Parsers of what comes from other network nodes and learners: certificates, mesh, merging."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import trio
from cryptography.hazmat.primitives.serialization import Encoding

from swarm import guests
from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, Role, verify_chain
from swarm.identity.chain import Peer, key_fingerprint
from swarm.identity.files import read_file, read_private_key
from swarm.identity.uid import fingerprint_of
from swarm.merge import blocks, dial, exchange, fetch, server, wire
from swarm.merge.mean import segments
from swarm.mesh import book, codec, frames, keys
from swarm.mesh.mesh import PROTOCOL_VERSION, Mesh
from swarm.mesh.port import PeerInfo
from swarm.mesh.session import Session
from tests import pki
from tests.fuzz.source import Source, join, split
from tests.fuzz.target import Target
from tests.merge.swarmlet import into

REMOTE = (RemoteError,)
CHAIN = b"c" * 32
INFO = PeerInfo("peer", "uid", "fp", "org", "SN-peer")


# ---------------------------------------------------------------- certificates


@lru_cache(maxsize=1)
def material() -> tuple[bytes, ...]:
    """An authority's certificate, chains beneath it, a revocation list and a key, in PEM or DER."""
    with tempfile.TemporaryDirectory() as name:
        ca = pki.authority(Path(name))
        made = [pki.identity(Path(name), role, ca) for role in (Role.SN, Role.SL)]
        crl = ca.revoke(made[1]).read_bytes()
        key = next(Path(name).glob("*key.pem")).read_bytes()
        root = ca.issued.certificate.public_bytes(Encoding.DER)
        leaves = [identity.chain_der[0] for identity in made]
        pem = made[0].certificate.public_bytes(Encoding.PEM)
    return root, *leaves, crl, key, pem


def run_chain(data: bytes) -> None:
    """The first part is the only CA, the rest the chain."""
    parts = split(data)
    ca = parts[0] if parts else b""
    verify_chain(parts[1:], {fingerprint_of(ca): ca})


def chains() -> list[bytes]:
    root, one, two, *_ = material()
    return [join([root, one]), join([root, two, one]), join([root, one, root]), join([one, two])]


def run_certificate(data: bytes) -> None:
    key_fingerprint(data)


def run_public_key(data: bytes) -> None:
    keys.peer_id_of(data)


def public_keys() -> list[bytes]:
    from swarm.identity.keys import public_der

    return [public_der(pki.key(kind).public_key()) for kind in ("ecdsa", "ed25519", "rsa")]


def run_pem(data: bytes) -> None:
    """Certificates, revocation lists and keys in files; what is odd in them becomes a problem."""
    with tempfile.TemporaryDirectory() as name:
        for file in ("a.pem", "a.crl"):
            (Path(name) / file).write_bytes(data)
            read_file(Path(name) / file)
        read_private_key(Path(name) / "a.pem")


def pems() -> list[bytes]:
    *_, crl, key, pem = material()
    return [crl, key, pem, pem + crl]


# ---------------------------------------------------------------- the mesh


def run_mesh_codec(data: bytes) -> None:
    codec.encode(codec.decode(data))


def values() -> list[bytes]:
    return [codec.encode(value) for value in (hello(), ["ledger", [b"x"]], ["SW2015", "bye"], 1.5)]


def hello() -> dict[str, Any]:
    return {
        "v": PROTOCOL_VERSION,
        "chain": CHAIN,
        "version": "1",
        "boot": bytes(8),
        "addresses": ["/ip4/127.0.0.1/tcp/30303"],
        "peers": {"Q" * 46: ["/dns4/x/tcp/1"]},
    }


class Stranger:
    """A wire on which a stranger has sent some bytes, in two pieces, and has gone."""

    peer_id, dialled = "peer", True

    def __init__(self, data: bytes) -> None:
        middle = len(data) // 2
        self._pieces = [piece for piece in (data[:middle], data[middle:]) if piece]

    async def read(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._pieces:
            raise trio.EndOfChannel
        return self._pieces.pop(0)

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()


class Host:
    """A mesh as a session sees it; greets as the real one does, and hands on what it is given."""

    def __init__(self, directory: Path) -> None:
        self._chain = CHAIN
        self._book = book.AddressBook(directory / "book.json")
        self.got: list[Any] = []

    def hello(self) -> dict[str, Any]:
        return hello()

    def greeted(self, session: Session, value: Any) -> None:
        addresses, boot, peers = Mesh._check_hello(self, value)  # type: ignore[arg-type]
        session.boot, session.info = boot, INFO._replace(addresses=addresses)
        self.told(INFO, peers)

    def ended(self, session: Session) -> None:
        self.got.append(session.why)

    async def serve(self, peer: PeerInfo, method: str, arg: Any) -> Any:
        return arg

    def deliver(self, peer: PeerInfo, method: str, arg: Any) -> None:
        self.got.append(arg)

    def beat(self) -> bytes:
        return b""

    def felt(self, peer: PeerInfo, value: Any) -> None:
        self.got.append(value)

    def told(self, peer: PeerInfo, others: Any) -> None:
        if isinstance(others, dict):
            for peer_id, addresses in others.items():
                if isinstance(addresses, list):
                    self._book.learn(peer_id, addresses, hearsay=True, wanted=False)


class _Silent(logging.Filter):
    """Turns log records about handlers that failed into failures of the fuzzer."""

    def filter(self, record: logging.LogRecord) -> bool:
        assert not record.exc_info, record.exc_info
        return False


def run_session(data: bytes) -> None:
    """What a stranger sends after the handshake: the session ends, nothing else does."""
    log = logging.getLogger("swarm.mesh")
    silent = _Silent()
    log.addFilter(silent)
    try:
        with tempfile.TemporaryDirectory() as name:
            trio.run(_converse, data, Path(name))
    finally:
        log.removeFilter(silent)


async def _converse(data: bytes, directory: Path) -> None:
    host = Host(directory)
    session = Session(Stranger(data), host)
    await session.run()
    assert session.why, "it says why it ended"


def sessions() -> list[bytes]:
    first = frames.frame(frames.HELLO, 0, codec.encode(hello()))
    bodies = {
        frames.CALL: ["echo", {"a": [1, b"x"]}],
        frames.RESULT: 1,
        frames.ERROR: ["SW2005", "no"],
        frames.CAST: ["ledger", [b"x"]],
        frames.BEAT: {"uids": ["a"]},
        frames.PEERS: {"Q" * 46: ["/ip4/1.2.3.4/tcp/5"]},
        frames.BYE: ["SW2015", "bye"],
    }
    rest = [frames.frame(kind, 1, codec.encode(body)) for kind, body in bodies.items()]
    return [first, *(first + one for one in rest), first + b"".join(rest)]


def run_book(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "book.json"
        path.write_bytes(data)
        found = book.AddressBook(path)
        found.save()


def books() -> list[bytes]:
    entry = {"addresses": ["/ip4/127.0.0.1/tcp/30303", "/dns/x/tcp/1"], "seen": 7}
    return [json.dumps({"version": 1, "peers": {"Q" * 46: entry}}).encode()]


# ---------------------------------------------------------------- learners


class Socket:
    """A socket whose other end has sent some bytes, and has gone."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def recv_into(self, view: memoryview) -> int:
        count = min(len(view), len(self._data), 1000)
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        return count

    def sendall(self, data: bytes) -> None:
        pass

    def settimeout(self, seconds: float | None) -> None:
        pass

    def close(self) -> None:
        pass


def frame(kind: wire.Kind, payload: bytes) -> bytes:
    return bytes([kind, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def said(kind: wire.Kind, **value: Any) -> bytes:
    return frame(kind, json.dumps(value).encode())


VECTOR = bytes(range(256)) * 12
LEAVES = blocks.leaves(memoryview(VECTOR), blocks.block_size(len(VECTOR)))
DIGEST = blocks.root(LEAVES)
PEER = Peer("fp", Role.SL, "org", "SL-1", b"key")


def run_listener(data: bytes) -> None:
    """What a dialler says behind the door: a HELLO of any kind, and what follows it."""
    identity: Any = SimpleNamespace(server_context=lambda: None, version=0)
    listener = server.Server(identity, lambda contract, uid: "fp")
    layout = b"layout"

    def read(start: int, buffer: memoryview) -> None:
        buffer[:] = VECTOR[start : start + len(buffer)]

    listener.keep(fetch.Decided("c", 1, DIGEST, layout, len(VECTOR), LEAVES, read))
    channel = wire.Channel(Socket(data))  # type: ignore[arg-type]
    guest = guests.Guest(channel.sock, "fp", "SL-1")
    with mock.patch.object(server, "JOIN", 0.0):
        for _ in range(5):
            hello = channel.expect_json(wire.Kind.HELLO)
            listener._converse(channel, hello, PEER, guest)


def hellos() -> list[bytes]:
    common = {"protocol": wire.PROTOCOL, "contract": "c", "uid": "u"}
    need = frame(wire.Kind.NEED, bytes([255] * -(-len(LEAVES) // 8)))
    return [
        said(wire.Kind.HELLO, want="fetch", digest=DIGEST.hex(), **common) + need,
        said(wire.Kind.HELLO, want="merge", round=1, attempt=0, **common),
        said(wire.Kind.HELLO, want="leaves", round=1, attempt=0, **common),
        said(wire.Kind.HELLO, protocol=0, contract="c", uid="u"),
    ]


def member(uid: str, weight: int) -> dial.Member:
    return dial.Member(uid, uid, "host", 1, "fp", weight, DIGEST)


def run_exchange(data: bytes) -> None:
    """What a member of a merge sends to another one."""
    layout = segments([("float32", 0)], len(VECTOR))
    output = memoryview(bytearray(len(VECTOR)))
    buffers = exchange.Buffers(memoryview(VECTOR), list(LEAVES), output, layout)
    dialler: Any = SimpleNamespace(sign=lambda data: b"signature")
    made = exchange.Exchange(
        exchange.Key("c", 1, 0), "a", [member("a", 1), member("b", 1)], buffers, dialler,
        lambda result: None,
    )  # fmt: skip
    made.serve(wire.Channel(Socket(data)), "b", b"key")  # type: ignore[arg-type]


def contributions() -> list[bytes]:
    digests = frame(wire.Kind.DIGESTS, b"".join(LEAVES))
    mine = frame(wire.Kind.CONTRIB, bytes(4) + VECTOR[:1024])
    wait = said(wire.Kind.WAIT, **{"for": {"b": 7}})
    theirs = frame(wire.Kind.REDUCED, bytes(4) + VECTOR[1024:])
    end = frame(wire.Kind.END, b"")
    return [digests + mine + theirs + end, digests + wait + theirs + end, digests + end]


@lru_cache(maxsize=1)
def signer() -> Identity:
    with tempfile.TemporaryDirectory() as name:
        return pki.identity(Path(name), Role.SL, pki.authority(Path(name)))


def mixing() -> exchange.Exchange:
    """An exchange by distances, of the first of two members that hold the same vector."""
    output = memoryview(bytearray(len(VECTOR)))
    buffers = exchange.Buffers(
        memoryview(VECTOR), list(LEAVES), output, segments([("uint8", 0)], len(VECTOR))
    )
    dialler: Any = SimpleNamespace(sign=signer().sign)
    return exchange.Exchange(
        exchange.Key("c", 1, 0), "a", [member("a", 1), member("b", 1)], buffers, dialler,
        lambda result: None, law=exchange.Law("geomedian"),
    )  # fmt: skip


def run_agreement(data: bytes) -> None:
    """What a member of a merge by distances sends to another one; all of it is signed with a key
    that fits, so that what lies behind the signature is reached."""
    made = mixing()
    made.attempt.reduced = made.attempt.mine  # reduced chunks would wait for that
    made.serve(wire.Channel(Socket(data)), "b", signer().public_key_der)  # type: ignore[arg-type]


def agreements() -> list[bytes]:
    made = mixing()
    agreement = made.attempt.agreement
    assert agreement is not None
    theirs = agreement.__class__(agreement._subject, 1, ["a", "b"], 2)
    good = theirs.state(np.zeros((2, 2)), signer().sign)
    odd = theirs.state(np.full((2, 2), np.nan), signer().sign)
    held = [[good.digest.hex(), good.signature.hex()], [bytes(32).hex(), ""]]
    start = frame(wire.Kind.DIGESTS, b"".join(LEAVES))
    start += frame(wire.Kind.CONTRIB, bytes(4) + VECTOR[:1024])
    witness = said(wire.Kind.WITNESS, held=held)
    rest = frame(wire.Kind.REDUCED, bytes(4) + VECTOR[1024:]) + frame(wire.Kind.END, b"")
    return [
        start + frame(wire.Kind.DISTANCES, good.frame()) + witness + rest,
        start + frame(wire.Kind.DISTANCES, odd.frame()) + witness + rest,
        start + witness + rest,
    ]


def run_fetch(data: bytes) -> None:
    """What a holder answers to a learner that fetches a model."""
    target = bytearray(len(VECTOR))
    channel = wire.Channel(Socket(data))  # type: ignore[arg-type]

    def prepare(layout: bytes, size: int) -> tuple[fetch.Write, Sequence[bytes]]:
        return into(target), ()

    fetch._converse(channel, ("c", "u", DIGEST), prepare)
    assert bytes(target) == VECTOR, "what was accepted is what was decided"


def fetched() -> list[bytes]:
    head = said(wire.Kind.ANSWER, ok=True, round=1, size=len(VECTOR))
    digests = frame(wire.Kind.DIGESTS, b"".join(LEAVES))
    whole = frame(wire.Kind.REDUCED, bytes(4) + VECTOR)
    end = frame(wire.Kind.END, b"")
    refused = said(wire.Kind.ANSWER, ok=False, reason="not-here", text="no")
    return [head + frame(wire.Kind.LAYOUT, b"layout") + digests + whole + end, refused]


def run_wire(data: bytes) -> None:
    """Frames one behind the other, each read as what it says it is."""
    channel = wire.Channel(Socket(data))  # type: ignore[arg-type]
    source = Source(data)
    while True:
        kind, length = channel.receive_header()
        if kind in (wire.Kind.HELLO, wire.Kind.ANSWER, wire.Kind.WAIT):
            channel.receive_json(length)
        elif kind in (wire.Kind.CONTRIB, wire.Kind.REDUCED):
            _, size = channel.chunk_index(length)
            channel.receive_into(memoryview(bytearray(size)))
        else:
            channel.expect_raw(wire.Kind.END) if source.byte() % 2 else channel._receive(length)


TARGETS = (
    Target("chain", "certificate chains", run_chain, REMOTE, chains),
    Target("x509", "single certificates", run_certificate, REMOTE, lambda: list(material()[:3])),
    Target("public-key", "public keys of peers", run_public_key, REMOTE, public_keys),
    Target("pem", "certificate, CRL and key files", run_pem, (LocalError,), pems),
    Target("mesh-codec", "values on the mesh", run_mesh_codec, (RemoteError,), values),
    Target("mesh-session", "frames of a session", run_session, (), sessions),
    Target("mesh-book", "the address book's file", run_book, (), books),
    Target("merge-wire", "frames between learners", run_wire, REMOTE, hellos),
    Target("merge-listener", "conversations with a learner", run_listener, REMOTE, hellos),
    Target("merge-exchange", "a member's part of a merge", run_exchange, REMOTE, contributions),
    Target("merge-agreement", "distances and witnesses", run_agreement, REMOTE, agreements),
    Target("merge-fetch", "a model that is fetched", run_fetch, REMOTE, fetched),
)
