"""Who may enter, at the doors of real processes: the network node's API and mesh, and the learner's
port for weights. One node has its CAs as a bundle, the other as a directory."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.identity import Identity, Role
from tests import pki
from tests.processes import Daemon, Processes, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Doors:
    """Two network nodes and a learner, of two organisations that trust each other."""

    def __init__(self, run: Processes, directory: Path) -> None:
        self.run = run
        self.directory = directory
        self.ca = pki.authority(directory, 1)
        self.other = pki.authority(directory / "other", 2)
        self.ca.trust(self.other)
        self.other.trust(self.ca)
        self.stranger = pki.authority(directory / "stranger", 3)
        self.stranger.trust(self.ca)  # it would talk with everybody here
        self.stranger.trust(self.other)
        bundle = directory / "bundle.pem"
        bundle.write_bytes(self.ca.path.read_bytes() + self.other.path.read_bytes())
        cacert = {"SWARM_ID_CAPATH": "", "SWARM_ID_CACERT": str(bundle)}
        self.first = run.sn("sn1", self.ca, env=cacert)
        self.second = run.sn("sn2", self.other, sentinel=self.first)
        self.weights = free_port()
        self.learner = self.start_learner("sl1", {**self.id(Role.SL, self.other), **cacert})
        self.learner.wait_for("listening|enrolled|waiting", 30)

    def id(self, role: Role, ca: pki.Authority) -> dict[str, str]:
        return pki.environment(self.directory / "cert" / f"{role}-{ca.index}", role, ca)

    def start_learner(self, name: str, identity: dict[str, str]) -> Daemon:
        link = self.directory / name
        link.mkdir()
        return self.run.start(
            name,
            "swarm.learner",
            {
                **identity,
                "SN_NODE_IP": "127.0.0.1",
                "SN_API_SERVER_PORT": str(self.second.port),
                "THIS_NODE_IP": "127.0.0.1",
                "SWARM_LISTEN": "127.0.0.1",
                "SL_FS_PORT": str(self.weights),
                "SL_LISTEN_PORT": str(self.weights),
                "SWARM_NODE_NAME": name,
                "SWARM_LINK": str(link),
            },
        )


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    directory = tmp_path_factory.mktemp("doors")
    with Processes(directory) as run:
        yield Doors(run, directory)


def bare() -> ssl.SSLContext:
    """A client that trusts anybody and shows nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def knock(port: int, context: ssl.SSLContext | None, words: bytes) -> bytes:
    """What is answered before the connection ends. Raises SSLError for an alert, which words that
    nobody reads could overtake: a socket that is closed with them in it is reset."""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as raw:
        sock = context.wrap_socket(raw) if context else raw
        answer = b""
        try:
            sock.sendall(words)
            if context is None:
                sock.shutdown(socket.SHUT_WR)  # that was all: nobody need wait for more
            while data := sock.recv(65536):
                answer += data
        except OSError as fault:
            # Closed with our words unread, or before we had said all; an alert is another matter.
            if isinstance(fault, ssl.SSLError):
                raise
        finally:
            sock.close()
    return answer


HTTP = b"GET /is_up HTTP/1.1\r\nHost: sn\r\nConnection: close\r\n\r\n"


def api(doors: Doors) -> int:
    return doors.second.port


def weights(doors: Doors) -> int:
    return doors.weights


@pytest.mark.parametrize("door", [api, weights])
def test_strangers_stay_out(doors: Doors, door: Callable[[Doors], int]) -> None:
    """No certificate, or one of a CA that nobody here trusts: the handshake ends with why."""
    port = door(doors)
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
        knock(port, bare(), b"")
    for role in (Role.SN, Role.SL, Role.SWCI):
        foreign = Identity.from_env(doors.id(role, doors.stranger))
        with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
            knock(port, foreign.client_context(), b"")
    assert b"HTTP" not in knock(port, None, HTTP), "plain HTTP gets no answer in HTTP"


def test_the_mesh_speaks_no_http(doors: Doors) -> None:
    answer = knock(int(doors.second.env["SN_P2P_PORT"]), None, HTTP)
    assert b"HTTP" not in answer


def test_members_enter_with_a_bundle_or_a_directory(doors: Doors) -> None:
    """sn1 knows its CAs from a bundle, sn2 from a directory; clients of both enter at both."""
    for ca in (doors.ca, doors.other):
        for sn in (doors.first, doors.second):
            me = Identity.from_env(doors.id(Role.SWCI, ca))
            answer = knock(sn.port, me.client_context(), HTTP)
            assert answer.startswith(b"HTTP/1.1 200") and answer.rstrip().endswith(b"OK")
    names = {one["name"] for one in doors.run.client(doors.ca, doors.first).status()["peers"]}
    assert "sn2" in names, "and they have found each other in the mesh"


def test_a_foreign_node_cannot_join(doors: Doors) -> None:
    """It is told why, and ends; the network notes who was there."""
    foreign = doors.run.sn("foreign", doors.stranger, sentinel=doors.first, wait=None)
    foreign.wait_for("SW5002.*refused our certificate", 60)
    doors.first.wait_for("refused 127.0.0.1: its certificate: ", 30)


@pytest.mark.parametrize("module", ["sentinel", "swarm.learner"])
def test_no_identity(doors: Doors, module: str) -> None:
    """In the words that users of the reference product know, with a code and what to do."""
    env = {
        "SN_I_AM_SENTINEL": "1",
        "SN_NODE_IP": "127.0.0.1",
        "THIS_NODE_IP": "127.0.0.1",
        "SWARM_LINK": str(doors.directory),
        "SWARM_DATA_DIR": str(doors.directory / "none"),
    }
    node = doors.run.start(f"no-identity-{module}", module, env)
    assert node.process.wait(30) == 1
    node.wait_end()
    assert "SW1201: No identity specified; give --cert and --key" in node.log
