"""Whether a node is ready, asked over the network as other nodes would ask."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from types import TracebackType

from swarm.api.client import ApiClient
from swarm.api.transport import CertificateRefused
from swarm.errors import LocalError, RemoteError
from swarm.host.hostfile import ReadHost, split_place
from swarm.host.plan import Node, Plan
from swarm.host.text import clean
from swarm.identity import Identity, Role, node_uid
from swarm.launch.plan import SN

ASK_SECONDS = 5.0  # for one answer
CONNECT_SECONDS = 3.0


class Probes:
    """Asks the SN that a host uses, with the identity of the node in question."""

    def __init__(self, read: ReadHost, plan: Plan) -> None:
        """Read the identities. Raises LocalError, as `Identity.load`, before anything starts."""
        self._identities: dict[str, Identity] = {}
        self._clients: dict[str, ApiClient] = {}
        for node in plan.nodes:
            role = node.component.name
            cert, key = read.identity(role)
            identity = Identity.load(cert, key, capath=read.capath, role=Role(role.upper()))
            self._identities[node.name] = identity
            client = ApiClient(identity, [read.api], timeout=ASK_SECONDS, learn=False)
            self._clients[node.name] = client

    def __enter__(self) -> Probes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients.values():
            client.close()

    def __call__(self, node: Node, elapsed: float) -> str:
        """Why a node that was started `elapsed` seconds ago is not ready; "" when it is.

        Raises LocalError when the SN refuses the certificate, which no waiting will change.
        """
        try:
            if node.component is SN:
                return self._answers(node)
            return self._enrolled(node, elapsed)
        except CertificateRefused as fault:
            raise LocalError(fault.code, fault.cause) from fault
        except RemoteError as fault:
            return clean(fault.cause)

    def _answers(self, node: Node) -> str:
        why: list[str] = []
        self._clients[node.name].wait_up(0, why.append)
        return clean(why[-1]) if why else ""

    def _enrolled(self, node: Node, elapsed: float) -> str:
        """An operator is at work when the network has heard it since its start."""
        client = self._clients[node.name]
        uid = node_uid(self._identities[node.name].fingerprint, node.name)
        record = client.record("nodes", uid)
        if record is None or not record["active"]:
            return "it has not enrolled yet"
        age = client.presence().get(uid)
        if age is None or age > elapsed:
            return "the network has not heard of it since its start"
        return ""


def first_that_answers(places: Sequence[str]) -> str:
    """The first of some SNs that takes a connection; "" when none does."""
    for place in places:
        try:
            with socket.create_connection(split_place(place), CONNECT_SECONDS):
                return place
        except OSError:
            continue
    return ""
