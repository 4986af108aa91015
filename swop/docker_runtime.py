"""The DOCKER runtime: pairs as containers, through the engine's API.

The operator may itself run in a container that has the engine's socket: all paths of profile and
task are paths of the host, which the engine resolves, so nothing here touches them as files.

Least privilege: an SL gets no capability at all and cannot gain privileges; it needs none. (As user
root it keeps DAC_OVERRIDE, without which root cannot read a private key of another user.) An ML
cannot gain privileges either, unless its profile asks for devices in a way that needs it.
"""

from __future__ import annotations

import functools
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest
from docker.types import Mount as EngineMount
from urllib3.exceptions import HTTPError

from swarm.errors import LocalError
from swop import docker_build, docker_content
from swop.content import ContentRequest
from swop.engine import SILENCE_SECONDS, connect, discard, is_podman, remove
from swop.kept_logs import KeptLogs, last_bytes
from swop.plan import (
    LABEL_INDEX,
    LABEL_NODE,
    LABEL_OPERATION,
    LABEL_ROLE,
    LINK_DIRECTORY,
    Mount,
    Program,
)
from swop.profile import MountType
from swop.pulling import PullRequest
from swop.runtime import (
    AWAY,
    STOP_GRACE,
    BuildRequest,
    Found,
    Output,
    RunState,
    RunStatus,
    bounded_tail,
)
from swop.work import Work

log = logging.getLogger("swop")

END = 32 * 1024  # bytes of an output that are remembered, to see what of its last line was given
TAIL = 64 * 1024  # bytes of an output from which its tail is taken
MOST_LINES = 200_000  # of a log that are looked at when it is kept
CONTAINER_INFO = Path("/tmp/container_info_file")  # noqa: S108 - written by run-swop
LABEL_LINK = "swarm.link"
# What the engine's library raises, the last of them where an answer is streamed.
FAULTS = (DockerException, requests.RequestException, HTTPError)


def own_image(environment_image: str, info_file: Path, default: str) -> str:
    """The image of the operator itself, which also runs the learners.

    An explicit choice wins; then what run-swop wrote (container id, image name, image id, one a
    line); then the default of this version.
    """
    if environment_image:
        return environment_image
    try:
        lines = info_file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return default
    return next((line.strip() for line in (*lines[2:3], *lines[1:2]) if line.strip()), default)


class DockerRuntime:
    """Runs pairs on the engine that the environment names (DOCKER_HOST, or the usual socket)."""

    def __init__(self, uid: str, image: str, logs: KeptLogs | None = None) -> None:
        self.uid = uid
        self._logs = logs
        self.image = image
        try:
            self._engine = connect()
            # For what programs say, which they do when they like.
            self._listener = connect(SILENCE_SECONDS, self._engine.api.api_version)
        except DockerException as error:
            raise LocalError("SW7006", f"no Docker engine: {_text(error)}") from error

    # ------------------------------------------------------------------ images

    def check(self) -> str:
        with _translated("SW7006", "the Docker engine"):
            version = self._engine.version()["Version"]
            if not self.has_image(self.image):
                raise LocalError("SW7009", f"image {self.image} of the learners is missing")
            name = "Podman" if self._is_podman else "Docker"
        return f"{name} {version}, learners from {self.image}"

    @functools.cached_property
    def _is_podman(self) -> bool:
        return is_podman(self._engine)

    def has_image(self, name: str) -> bool:
        with _translated("SW7006", f"image {name}"):
            try:
                self._engine.images.get(name)
            except NotFound:
                return False
        return True

    def build(self, request: BuildRequest, work: Work) -> str:
        with _translated("SW7010", f"image {request.outcome}"):
            return docker_build.build(self._engine, self.uid, self.image, request, work)

    def pull(self, request: PullRequest, work: Work) -> str:
        with _translated("SW7029", f"image {request.reference}"):
            return docker_build.pull(self._engine, self.image, request, work)

    def fill(self, request: ContentRequest, work: Work) -> str:
        with _translated("SW7028", f"content {request.outcome}"):
            return docker_content.fill(self._engine, self.uid, self.image, request, work)

    # ------------------------------------------------------------------ programs

    def start(self, program: Program) -> None:
        with _translated("SW7011", program.name):
            container = self._find(program.name)
            if container is None:
                container = self._create(program)
            if container.status == "created":
                self._run(container, program)

    def _run(self, container: Container, program: Program) -> None:
        try:
            container.start()
        except APIError as error:
            gpus = program.options.gpus if program.options is not None else None
            if gpus is None or "capabilities: [[gpu]]" not in _text(error):
                raise
            cause = f"{program.name}: gpus: {gpus!r} cannot be given: {_text(error)}"
            raise LocalError("SW7040", cause) from error

    def _create(self, program: Program) -> Container:
        image = program.image or self.image
        if not self.has_image(image):
            raise LocalError("SW7009", f"{program.name}: image {image} is not on this host")
        for mount in program.mounts:
            if mount.kind is MountType.VOLUME:
                docker_content.require_whole(self._engine, mount.source)
        if program.options is not None and program.options.gpus and self._is_podman:
            # It would take the request, say nothing, and start the program without.
            cause = f"{program.name}: gpus: {program.options.gpus!r}: Podman's service gives none"
            raise LocalError("SW7041", cause)
        self._require_sources(program)
        labels = {**program.labels, LABEL_LINK: program.link}
        # Made beforehand so that it carries our labels; the SL's image gives it its open mode.
        self._engine.volumes.create(program.link, labels={LABEL_NODE: self.uid})
        mounts = [_mount(mount) for mount in program.mounts]
        mounts.append(EngineMount(LINK_DIRECTORY, program.link, type="volume"))
        try:
            return self._engine.containers.create(
                image,
                list(program.command),
                name=program.name,
                entrypoint=list(program.entrypoint),
                environment=dict(program.environment),
                mounts=mounts,
                labels=labels,
                working_dir=program.workdir,
                init=True,  # reaps, and passes signals on to programs that have no handler
                **self._placement(program),
                **_privileges(program),
            )
        except APIError as error:
            if "bind source path does not exist" in _text(error):
                raise LocalError("SW7007", f"{program.name}: {_text(error)}") from error
            raise

    def _require_sources(self, program: Program) -> None:
        """With Podman, which makes a directory where the source of a mount is missing.

        Only where this operator sees the host's files: not from within a container.
        """
        if not self._is_podman or CONTAINER_INFO.exists():
            return
        for mount in program.mounts:
            if mount.kind is MountType.BIND and not Path(mount.source).exists():
                raise LocalError("SW7007", f"{program.name}: {mount.source} does not exist")

    def _placement(self, program: Program) -> dict[str, Any]:
        """User, host name, network and ports, as far as they are given."""
        found: dict[str, Any] = {}
        if program.user:
            found["user"] = program.user
        elif program.role == "SL":
            found["user"] = "0:0"  # whoever owns the keys: the image's own user could read none
        if program.hostname:
            found["hostname"] = program.hostname
        if program.dns:
            found["dns"] = list(program.dns)
        if program.published:
            host_port, inside = program.published
            found["ports"] = {f"{inside}/tcp": host_port}
        if program.network:
            network = program.network
            if network == "bridge" and self._is_podman:
                network = "podman"  # the name that its network for all has there
            found["network"] = network
            # The host name as an alias: engines resolve aliases, and no bare host names.
            endpoint = self._engine.api.create_endpoint_config(
                aliases=[program.hostname] if program.hostname else None,
                ipv4_address=program.address or None,
            )
            found["networking_config"] = {network: endpoint}
        return found

    def status(self, name: str) -> RunStatus:
        with _translated("SW7006", name):
            container = self._find(name)
            if container is None:
                return RunStatus(RunState.MISSING)
            state = container.attrs["State"]
            if state["Status"] == "created":
                return RunStatus(RunState.CREATED)
            if state["Status"] in ("exited", "dead"):
                note = "out of memory" if state.get("OOMKilled") else str(state.get("Error", ""))
                return RunStatus(RunState.EXITED, int(state["ExitCode"]), note[:300])
            return RunStatus(RunState.RUNNING)

    def log_tail(self, name: str) -> str:
        with _translated("SW7006", name):
            container = self._find(name)
            if container is None:
                return ""
            output = b"".join(last_bytes(self._said(container, 60), TAIL))
            return bounded_tail(output.decode("utf-8", "replace"))

    def _said(self, container: Container, lines: int) -> Iterator[bytes]:
        """The end of an output so far: so many lines, or more.

        All of it with Podman, which puts last lines together wrongly that were written in pieces.
        """
        tail: Any = "all" if self._is_podman else lines
        yield from container.logs(stream=True, follow=False, tail=tail)

    def follow(self, name: str, lines: int | None = None) -> Output:
        with _translated("SW7006", name):
            container = self._find(name)
            if container is None:
                return _Nothing()
            tail: Any = "all" if lines is None else lines
            before = 0  # bytes of what it said that were not asked for
            if lines and self._is_podman:
                tail, before = "all", _before(self._said(container, lines), lines)
            stream = self._listener.api.logs(str(container.id), stream=True, follow=True, tail=tail)
            return _Following(container, stream, before, is_whole=self._is_podman)

    def stop(self, names: Sequence[str], grace: float = STOP_GRACE) -> None:
        def stop_one(name: str) -> None:
            with _translated("SW7006", name):
                container = self._find(name)
                if container is not None and container.status in ("running", "restarting"):
                    container.stop(timeout=max(1, round(grace)))

        _for_each(stop_one, names)

    def remove(self, names: Sequence[str]) -> None:
        links: set[str] = set()

        def remove_one(name: str) -> None:
            with _translated("SW7006", name):
                container = self._find(name)
                if container is not None:
                    links.add(container.labels.get(LABEL_LINK, ""))
                    self._keep_log(container)
                    remove(container, with_volumes=True)

        _for_each(remove_one, names)
        if self._logs is not None:
            self._logs.trim()
        for link in sorted(links - {""}):
            self._remove_volume(link)

    def _keep_log(self, container: Container) -> None:
        """Keep its log, where logs are kept; that it cannot be had does not keep it here."""
        if self._logs is None or container.status == "created":
            return
        try:
            with suppress(APIError):  # it does not run any more, mostly
                container.kill()  # so that the log is complete
            self._logs.keep(str(container.name), self._said(container, MOST_LINES))
        except (OSError, *FAULTS) as error:
            log.warning("the log of %s is not kept: %s", container.name, _text(error))

    def _remove_volume(self, name: str) -> None:
        """Remove a link volume, unless the other member of the pair still refers to it."""
        with _translated("SW7006", name):
            try:
                self._engine.volumes.get(name).remove()
            except NotFound:
                return
            except APIError as error:
                if error.status_code != 409:
                    raise

    def adopt(self) -> list[Found]:
        found = []
        with _translated("SW7006", "the Docker engine"):
            mine: dict[str, str | list[str] | bool] = {"label": f"{LABEL_NODE}={self.uid}"}
            for container in self._engine.containers.list(
                all=True, filters=mine, ignore_removed=True
            ):
                labels = container.labels
                if labels.get(LABEL_ROLE) == docker_content.FILLER:
                    docker_content.drop_interrupted(self._engine, container)
                    continue
                if labels.get(LABEL_ROLE) not in ("SL", "ML"):
                    discard(container)  # a helper of an interrupted build
                    continue
                found.append(
                    Found(
                        name=str(container.name),
                        role=labels[LABEL_ROLE],
                        operation=labels.get(LABEL_OPERATION, ""),
                        index=int(labels.get(LABEL_INDEX, "0")),
                        link=labels.get(LABEL_LINK, ""),
                    )
                )
            used = {item.link for item in found}
            for volume in self._engine.volumes.list(filters=mine):
                if volume.name not in used:
                    self._remove_volume(str(volume.name))
        return found

    def close(self) -> None:
        self._engine.close()
        self._listener.close()

    def _find(self, name: str) -> Container | None:
        try:
            return self._engine.containers.get(name)
        except NotFound:
            return None


class _Following:
    """The output of a container, from the engine."""

    def __init__(self, container: Container, stream: Any, before: int, *, is_whole: bool) -> None:
        self._container = container
        self._stream = stream
        self._before = before  # bytes that are left out
        self._is_whole = is_whole  # a last line without an end comes as well
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        ran = self._container.status == "running" and not self._is_whole
        last = b""
        try:
            for chunk in self._stream:
                wanted, self._before = chunk[self._before :], max(0, self._before - len(chunk))
                if wanted:
                    yield wanted
                last = (last + chunk)[-END:]
            if ran and not self._closed and (rest := self._unended(last)):
                yield rest
        except (*FAULTS, OSError, ValueError) as error:
            # An end from another thread comes as one of these, too.
            if not self._closed and not isinstance(error, NotFound):
                cause = f"output of {self._container.name}: {_text(error)}"
                raise LocalError("SW7006", cause) from error

    def _unended(self, last: bytes) -> bytes:
        """A last line without an end, which engines keep from those who follow."""
        line: bytes = self._container.logs(tail=1)
        if line.endswith(b"\n") or len(line) > END:
            return b""
        given = max(n for n in range(len(line) + 1) if last.endswith(line[:n]))
        return line[given:]

    def close(self) -> None:
        self._closed = True
        with suppress(OSError, AttributeError):  # the library's, when it has ended by itself
            self._stream.close()


class _Nothing:
    """The output of what is not there."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        pass


def _before(said: Iterable[bytes], lines: int) -> int:
    """How many bytes stand before the last lines of an output."""
    ends: deque[int] = deque([0], maxlen=lines + 1)  # the places after the last ends of lines
    size = 0
    for chunk in said:
        ends.extend(size + found.end() for found in re.finditer(b"\n", chunk))
        size += len(chunk)
    if size > ends[-1]:  # a last line without an end
        ends.append(size)
    return ends[0]


def _mount(mount: Mount) -> EngineMount:
    """A mount of the strict kind: a missing source is an error, not a new empty directory."""
    if mount.kind is MountType.BIND:
        return EngineMount(mount.target, mount.source, type="bind", read_only=mount.read_only)
    return EngineMount(mount.target, mount.source, type="volume", read_only=mount.read_only)


def _privileges(program: Program) -> dict[str, Any]:
    """Capabilities, security options and devices of a container."""
    if program.role == "SL":
        runs_as_root = program.user.split(":")[0] in ("", "0")
        return {
            "cap_drop": ["ALL"],
            "cap_add": ["DAC_OVERRIDE"] if runs_as_root else [],
            "security_opt": ["no-new-privileges"],
        }
    options = program.options
    if options is None:
        return {"security_opt": ["no-new-privileges"]}
    found: dict[str, Any] = {"privileged": options.privileged}
    guard = [] if options.privileged else ["no-new-privileges"]
    found["security_opt"] = [*options.security_opt, *guard]
    if options.device:
        found["devices"] = [_device(name) for name in options.device]
    if options.gpus is not None:
        found["device_requests"] = [gpu_request(options.gpus)]
    optional = {
        "ipc_mode": options.ipc,
        "shm_size": options.shm_size,
        "group_add": options.group_add,
        "cap_add": options.cap_add,
    }
    return {**found, **{key: value for key, value in optional.items() if value}}


def _device(name: str) -> str:
    """`/dev/x`, `/dev/x:/dev/y` or the full form, as the engine wants it."""
    parts = name.split(":")
    return ":".join((parts[0], parts[1] if len(parts) > 1 else parts[0], *(parts[2:] or ["rwm"])))


def gpu_request(value: str) -> DeviceRequest:
    """The engine's form of the checked `gpus` option: "all", a number, or "device=3,5"."""
    if value.startswith("device="):
        ids = value.removeprefix("device=").split(",")
        return DeviceRequest(device_ids=ids, capabilities=[["gpu"]])
    return DeviceRequest(count=-1 if value == "all" else int(value), capabilities=[["gpu"]])


def _for_each(act: Callable[[str], None], names: Sequence[str]) -> None:
    """Act on all names at once; the first error is raised when all are done."""
    if not names:
        return
    with ThreadPoolExecutor(max_workers=min(8, len(names))) as pool:
        for future in [pool.submit(act, name) for name in names]:
            future.result()


@contextmanager
def _translated(code: str, what: str) -> Iterator[None]:
    """Turn what the engine's library raises into a LocalError, with its text bounded."""
    try:
        yield
    except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
        raise LocalError(AWAY, f"{what}: the engine does not answer: {_text(error)}") from error
    except FAULTS as error:
        raise LocalError(code, f"{what}: {_text(error)}") from error


def _text(error: Exception) -> str:
    """An engine's explanation on one line."""
    raw = error.explanation if isinstance(error, APIError) and error.explanation else error
    return " ".join(str(raw).split())[:600]
