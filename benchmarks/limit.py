"""The least that a merge of this kind costs: reduce-scatter and all-gather, and nothing else.

Plain processes with numpy and TLS 1.3 sockets, certificates on both sides, a thread for each
direction of each connection: no hashes, no membership, no failure handling, no ledger. All
connections are open, and all memory is touched, before the clock starts.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from swarm.identity import Identity
from swarm.merge.dial import prepare_accepted

PIECE = 32 << 10  # elements at a time in the mean: stays in cache


class Limit:
    """One process of the plain algorithm: all connections open before the clock starts."""

    def __init__(self, identity: Identity, index: int, vector: np.ndarray[Any, Any]) -> None:
        self.identity, self.index, self.vector = identity, index, vector
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]

    def connect(self, ports: list[int]) -> None:
        count = len(ports)
        self.edges = [i * len(self.vector) // count for i in range(count + 1)]
        self.incoming: dict[int, Any] = {}
        self.outgoing: dict[int, Any] = {}
        context = self.identity.server_context()

        def accept() -> None:
            for _ in range(count - 1):
                sock, _ = self.listener.accept()
                secure = prepare_accepted(sock, context)
                secure.do_handshake()
                secure.settimeout(None)
                self.incoming[secure.recv(1)[0]] = secure

        thread = threading.Thread(target=accept)
        thread.start()
        client = self.identity.client_context()
        for other in range(count):
            if other != self.index:
                plain = socket.create_connection(("127.0.0.1", ports[other]))
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.outgoing[other] = client.wrap_socket(plain)
                self.outgoing[other].sendall(bytes([self.index]))
        thread.join()
        mine = self.edges[self.index + 1] - self.edges[self.index]
        self.received = {i: np.empty(mine, np.float32) for i in self.incoming}

    def round(self) -> None:
        count = len(self.edges) - 1
        mine = self.part(self.index)
        self.everywhere(
            [lambda i=i: fill(self.incoming[i], self.received[i]) for i in self.incoming]
            + [lambda j=j: self.outgoing[j].sendall(view(self.part(j))) for j in self.outgoing]
        )
        for at in range(0, len(mine), PIECE):
            piece = mine[at : at + PIECE]
            for other in self.received.values():
                np.add(piece, other[at : at + PIECE], out=piece)
            np.multiply(piece, np.float32(1 / count), out=piece)
        self.everywhere(
            [lambda i=i: fill(self.incoming[i], self.part(i)) for i in self.incoming]
            + [lambda j=j: self.outgoing[j].sendall(view(mine)) for j in self.outgoing]
        )

    def part(self, index: int) -> np.ndarray[Any, Any]:
        return self.vector[self.edges[index] : self.edges[index + 1]]

    def everywhere(self, jobs: Sequence[Callable[..., None]]) -> None:
        threads = [threading.Thread(target=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def view(array: np.ndarray[Any, Any]) -> memoryview:
    return array.data.cast("B")


def fill(sock: Any, array: np.ndarray[Any, Any]) -> None:
    target = view(array)
    at = 0
    while at < len(target):
        at += sock.recv_into(target[at:])
