"""The connection to the engine, and what its long tasks share: a cut, locks, and a guard."""

from __future__ import annotations

import contextlib
import socket
import time
from types import TracebackType
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.utils import kwargs_from_env

from swarm.errors import LocalError

ANSWER_SECONDS = 60  # between two bytes of an answer
SILENCE_SECONDS = 24 * 3600  # where programs are heard; the work's own limit comes first
REMOVALS, REMOVAL_PAUSE = 100, 0.05  # seconds
LABEL_UNTIL = "swarm.until"  # of a lock: seconds since 1970 at which its work is over for sure


def connect(silence: int = ANSWER_SECONDS, version: str | None = None) -> docker.DockerClient:
    """A client of the engine that the environment names; DockerException when there is none.

    `silence`: seconds that it waits for the next bytes of any answer; `version`: of the API, where
    it is known, as to ask Podman takes half a second.
    """
    client = docker.from_env(timeout=silence, version=version)
    # The library takes the limit away from answers that are streamed: they could hang for ever.
    api: Any = client.api
    api._disable_socket_timeout = lambda _socket: None
    return client


def is_podman(client: docker.DockerClient) -> bool:
    """Is this Podman's service, behind the socket of a Docker engine? Its answers bear its name."""
    api = client.api
    return "Libpod-API-Version" in api.get(f"{api.base_url}/_ping", timeout=api.timeout).headers


class EngineLine:
    """A client of the engine for one long answer, which another thread can cut.

    The engine takes a cut connection for the end of the matter: it stops a build and its container,
    and a pull. The library has no way to do that, so the connections are noted as they are made.
    """

    def __init__(self) -> None:
        self.api = docker.APIClient(timeout=SILENCE_SECONDS, **kwargs_from_env())
        self._made: list[Any] = []
        adapter: Any = self.api.get_adapter(self.api.base_url)
        choose = adapter.get_connection_with_tls_context

        def noted(*args: Any, **options: Any) -> Any:
            pool = choose(*args, **options)
            make = pool._new_conn
            pool._new_conn = lambda: self._note(make())
            return pool

        adapter.get_connection_with_tls_context = noted

    def _note(self, connection: Any) -> Any:
        self._made.append(connection)
        return connection

    def __enter__(self) -> EngineLine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.api.close()

    def cut(self) -> None:
        """Whoever reads from it gets an error or the end."""
        for connection in self._made:
            with contextlib.suppress(OSError, AttributeError):  # not open yet, or no more
                connection.sock.shutdown(socket.SHUT_RDWR)


def remove(container: Container, *, with_volumes: bool = False) -> None:
    """Remove a container, whether it runs or not; `with_volumes`: those without names, too.

    Podman refuses for a moment after a container's end, before it has taken note of it.
    """
    for _ in range(REMOVALS):
        try:
            return container.remove(force=True, v=with_volumes)
        except APIError as error:
            if "container state improper" not in str(error.explanation):
                raise
        time.sleep(REMOVAL_PAUSE)
    return container.remove(force=True, v=with_volumes)


def discard(container: Container) -> None:
    """Remove a container that another may be removing just now."""
    try:
        remove(container)
    except APIError as error:
        if error.status_code not in (404, 409):
            raise


def find(engine: Any, name: str) -> Container | None:
    """A container by name or id."""
    try:
        return engine.containers.get(name)  # type: ignore[no-any-return]
    except NotFound:
        return None


def is_taken(error: APIError) -> bool:
    """Has another container the name that was asked for? Podman has no status for that."""
    return error.status_code == 409 or "is already in use" in str(error.explanation)


def is_stale(lock: Container) -> bool:
    """Is the work over that it stands for? Then its operator has gone without a word."""
    until = lock.labels.get(LABEL_UNTIL, "")
    return until.isdigit() and int(until) < time.time()


def refuse_own_image(engine: Any, own: str, name: str) -> None:
    """LocalError SW7031 for a task that would put another image in the place of the nodes' own.

    The next node of this host would run it, with the host's certificates.
    """
    try:
        is_own = engine.images.get(name).id == engine.images.get(own).id
    except ImageNotFound:
        return
    if is_own:
        raise LocalError("SW7031", f"{name} is the image of this host's nodes")
