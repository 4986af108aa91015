"""Content under DOCKER: engine volumes, filled by a container of the operator's own image.

The filling container has no privileges at all (no capability, bounded memory and processes), runs
as the user of the programs, and stands on the engine's default network, apart from the learners'
one. Its name is made from the task's outcome, so it is the lock as well: operators that share an
engine fill a volume one after the other, and the second finds it there.

An engine cannot rename a volume. So a volume is whole unless a filling container names it
(`require_whole`); one that ended badly takes its volumes with it, and one that its operator left
behind is found by its labels (`drop_interrupted`).

Docker makes the volumes, with their labels, in one act with the container. Podman forgets the
labels; there the lock is a container of its own, and the volumes are made before that which fills.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import Mount as EngineMount

from swarm.errors import LocalError
from swop.content import ContentRequest, finished, taken
from swop.engine import (
    LABEL_UNTIL,
    SILENCE_SECONDS,
    connect,
    discard,
    find,
    is_podman,
    is_stale,
    is_taken,
)
from swop.filling import JOB
from swop.hearing import listen
from swop.plan import LABEL_NODE, LABEL_ROLE
from swop.work import Work

FILLER = "FILLER"
LABEL_CONTENT = "swarm.content"  # of a volume: digest of the steps that it was made by
LABEL_FILL = "swarm.fill"  # of a volume and of the container that fills it: one attempt
LABEL_VOLUMES = "swarm.volumes"  # of that container: their names
NOBODY = "65534:65534"
MEMORY = 3 << 29  # bytes: more than the process takes, so that it can say why it ends
PROCESSES = 64
LOOK_SECONDS = 1.0
FILES = "/files"  # where a filling container sees the directory that the host offers
COMMAND = ("python3", "-I", "-m", "swop.filling")


def fill(engine: Any, uid: str, image: str, request: ContentRequest, work: Work) -> str:
    """See `Runtime.fill`. Raises the engine's errors as they are."""
    name = f"swarm-fill-{hashlib.sha256(request.outcome.encode()).hexdigest()[:12]}"
    told = False
    while True:
        if (holder := find(engine, name)) is None:
            there = [v for v in request.volumes if _is_there(engine, v, request.digest)]
            missing = [v for v in request.volumes if v not in there]
            if not missing:
                return finished((), there, "")
            filler = _create(engine, name, uid, image, request, missing, work.ends_at)
            if filler is not None:
                break
        elif is_stale(holder):
            drop_interrupted(engine, holder)
        elif not told:
            work.progress(f"waiting for another operator that makes {request.outcome} here")
            told = True
        work.pause(LOOK_SECONDS)
    done = False
    try:
        text = _run(engine, filler, request, missing, work)
        done = True
    finally:
        _drop(engine, filler.labels[LABEL_FILL], () if done else missing)
    return finished(missing, there, text)


def _is_there(engine: Any, name: str, digest: str) -> bool:
    """Is this volume made of these steps? LocalError SW7026 when it is something else."""
    try:
        labels = engine.volumes.get(name).attrs.get("Labels") or {}
    except NotFound:
        return False
    if labels.get(LABEL_CONTENT) != digest:
        raise taken(name)
    return True


def _create(
    engine: Any,
    name: str,
    uid: str,
    image: str,
    request: ContentRequest,
    volumes: Sequence[str],
    ends_at: int,
) -> Container | None:
    """The filling container and, with it, its volumes. None when another was faster."""
    attempt = uuid.uuid4().hex
    labels = {
        LABEL_NODE: uid,
        LABEL_ROLE: FILLER,
        LABEL_FILL: attempt,
        LABEL_VOLUMES: ",".join(volumes),
        LABEL_UNTIL: str(ends_at),
    }
    of_volumes = {LABEL_CONTENT: request.digest, LABEL_FILL: attempt}
    try:
        if is_podman(engine):
            engine.containers.create(image, list(COMMAND), name=name, labels=labels)
            for volume in volumes:
                engine.volumes.create(volume, labels=of_volumes)
            name = f"{name}-{attempt[:8]}"
        filler = _create_filler(engine, name, image, request, volumes, labels, of_volumes)
    except APIError as error:
        _drop(engine, attempt, volumes)  # what was made before it failed
        if is_taken(error):
            return None
        raise
    if all(_attempt_of(engine, volume) == attempt for volume in volumes):
        return filler
    # Somebody made one of them between our look and our lock: look again.
    _drop(engine, attempt, volumes)
    return None


def _create_filler(
    engine: Any,
    name: str,
    image: str,
    request: ContentRequest,
    volumes: Sequence[str],
    labels: dict[str, str],
    of_volumes: dict[str, str],
) -> Container:
    """The filling container itself, which makes those of its volumes that are not there yet."""
    mounts = [
        EngineMount(place, volume, type="volume", labels=of_volumes, no_copy=True)
        for place, volume in _places(volumes)
    ]
    if request.uses_files:
        mounts.append(EngineMount(FILES, request.rules.files, type="bind", read_only=True))
    job = request.job([place for place, _ in _places(volumes)], FILES)
    return engine.containers.create(  # type: ignore[no-any-return]
        image,
        list(COMMAND),
        name=name,
        entrypoint=[],
        environment={JOB: job.to_json()},
        mounts=mounts,
        labels=labels,
        user=request.user or NOBODY,
        working_dir="/",
        dns=list(request.dns),
        network_mode="bridge" if request.uses_network else "none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit=MEMORY,
        pids_limit=PROCESSES,
    )


def _places(volumes: Sequence[str]) -> list[tuple[str, str]]:
    """Where a filling container sees each volume."""
    return [(f"/content/{number}", volume) for number, volume in enumerate(volumes)]


def _attempt_of(engine: Any, volume: str) -> str:
    try:
        labels = engine.volumes.get(volume).attrs.get("Labels") or {}
    except NotFound:
        return ""
    return str(labels.get(LABEL_FILL, ""))


def _run(
    engine: Any, filler: Container, request: ContentRequest, volumes: Sequence[str], work: Work
) -> str:
    places = [place for place, _ in _places(volumes)]
    filler.put_archive("/", _owned(places, request.user or NOBODY))
    with _unlimited(engine, filler) as output, work.on_give_up(output.close):
        filler.start()
        return listen(_lines(output), work)


def _owned(places: Iterable[str], user: str) -> bytes:
    """An archive that gives these directories to the user: the engine unpacks it as root."""
    uid, _, gid = user.partition(":")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for place in places:
            member = tarfile.TarInfo(place.lstrip("/"))
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            member.uid, member.gid = int(uid), int(gid or uid)
            archive.addfile(member)
        end = archive.offset + 2 * tarfile.BLOCKSIZE
    # Without the padding behind its end: Podman's helper ends there, and now and then before the
    # rest has been written to it, which fails the call.
    return stream.getvalue()[:end]


@contextmanager
def _unlimited(engine: Any, filler: Container) -> Iterator[Any]:
    """The container's output on a connection of its own, as it may say nothing for minutes."""
    line = connect(SILENCE_SECONDS, engine.api.api_version)
    try:
        yield line.containers.get(str(filler.id)).attach(stream=True, logs=True)
    finally:
        line.close()


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines; one without an end is cut, not kept."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        rest = rest[:65536]
    if rest:
        yield rest


def _drop(engine: Any, attempt: str, volumes: Iterable[str] = ()) -> None:
    """Remove the containers of an attempt, and those of the volumes that it made."""
    if not attempt:
        return
    mine = {"label": f"{LABEL_FILL}={attempt}"}
    for container in engine.containers.list(all=True, filters=mine, ignore_removed=True):
        discard(container)
    for name in volumes:
        if _attempt_of(engine, name) == attempt:
            with suppress(NotFound):  # another may be removing it, too
                engine.volumes.get(name).remove()


def drop_interrupted(engine: Any, filler: Container) -> None:
    """A filling container that its operator left behind: what it made is not whole."""
    volumes = filler.labels.get(LABEL_VOLUMES, "").split(",")
    _drop(engine, filler.labels.get(LABEL_FILL, ""), filter(None, volumes))


def require_whole(engine: Any, volume: str) -> None:
    """LocalError SW7027 while a volume is being filled."""
    fillers = {"label": f"{LABEL_ROLE}={FILLER}"}
    for filler in engine.containers.list(all=True, filters=fillers, ignore_removed=True):
        if volume in filler.labels.get(LABEL_VOLUMES, "").split(","):
            raise LocalError("SW7027", f"the volume {volume} is being filled")
