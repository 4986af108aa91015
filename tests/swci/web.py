"""Web mode over a network without connections, and a client that sends what existing ones send."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from swarm.identity import Identity, Role
from swci.commands import language
from swci.ports import Clock
from swci.session import Session
from swci.web.server import Server
from swci.web.sessions import Sessions
from tests import pki
from tests.swci.network import FakeNetwork

HOST = "127.0.0.1"


class Site:
    """A server, its user directory, and certificates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "cert"
        self.usr = directory / "usr"
        self.usr.mkdir()
        self.ca = pki.authority(self.directory)
        self.identity = pki.identity(self.directory, Role.SWCI, self.ca, hosts=[HOST])
        self.network = FakeNetwork()
        self.session = Session(
            language(), self.network.connect, user_directory=self.usr, env={}, confined=True,
            clock=Clock(),
        )  # fmt: skip
        self.sessions = Sessions(self.session)
        self.server = Server(self.identity, self.sessions)
        self.port = self.server.start(HOST, 0)

    def files(self, name: str, ca: pki.Authority | None = None) -> tuple[str, str]:
        """Certificate and key of a client."""
        made = pki.files(self.directory / name.lower(), name, ca or self.ca)
        return str(made.cert), str(made.key)

    def client(self, name: str = "SWCI-user") -> Existing:
        return Existing(self.port, self.files(name))

    def client_again(self, client: Existing) -> Existing:
        """Another connection of the same user."""
        return Existing(self.port, client.cert)

    def connect(self, identity: Identity) -> ssl.SSLSocket:
        """A bare connection; closed by the caller."""
        plain = socket.create_connection((HOST, self.port), timeout=10)
        return identity.client_context().wrap_socket(plain)


class Existing:
    """Sends commands as the product's own class does: by requests, as they are, unverified."""

    def __init__(self, port: int, cert: tuple[str, str] | None) -> None:
        self._url = f"https://{HOST}:{port}"
        self.cert = cert
        self._session = requests.Session()
        self._session.cert = cert

    def post(self, path: str, **options: Any) -> requests.Response:
        return self._session.post(f"{self._url}{path}", verify=False, timeout=60, **options)

    def run(self, command: str) -> list[str]:
        found: list[str] = self.post("/exec?cmd=" + command).json()["CONTENT"]
        return found

    def upload(self, path: Path) -> requests.Response:
        with path.open("rb") as file:
            return self.post("/uploadTaskDef", files={"file": file})

    def close(self) -> None:
        self._session.close()


@contextmanager
def running(directory: Path) -> Iterator[Site]:
    """A server for the time of a test."""
    site = Site(directory)
    try:
        yield site
    finally:
        site.server.close()
        site.sessions.close()
        site.session.close()
