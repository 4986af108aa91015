"""MAKE_USER_CONTAINER and PULL_IMAGE under DOCKER: images, with the engine's words passed on.

The engine's output goes to the operator's log line by line (`work.say`, bounded), and its end into
the task's status. A build that is given up is cut off from the engine, which then stops the step's
container and removes it; the lock goes with it, and the image's name stays what it was.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import IO, Any

from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import Mount as EngineMount
from docker.utils import parse_repository_tag

from swarm.errors import LocalError
from swop.docker_content import require_whole
from swop.engine import (
    LABEL_UNTIL,
    EngineLine,
    discard,
    find,
    is_stale,
    is_taken,
    refuse_own_image,
)
from swop.mask import Mask
from swop.plan import LABEL_NODE, LABEL_ROLE
from swop.pulling import PullRequest, changes, credentials, masked
from swop.runtime import BuildRequest, bounded_tail
from swop.status_text import status_text
from swop.work import Work

DOCKERFILE = "swarm-task.Dockerfile"
HELPER = "HELPER"
CONTEXT = "/context"  # where a helper sees the context volume
LOCK_SECONDS = 1.0
LOG_BYTES = 1 << 20  # of one build's or pull's output in the operator's log
LINE = 2000  # characters of one line
TAIL = 1200  # characters of the output's end in the task's status


class Output:
    """What the engine prints, as whole lines for the log, and its end."""

    def __init__(self, work: Work, mask: Mask) -> None:
        self._work = work
        self._mask = mask
        self._rest = ""
        self._left = LOG_BYTES
        self._last: deque[str] = deque(maxlen=100)

    def add(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        self._rest = self._rest[-LINE:]
        for line in lines:
            self._line(line)

    def close(self) -> None:
        if self._rest:
            self._line(self._rest)
            self._rest = ""

    def _line(self, line: str) -> None:
        line = self._mask.line(status_text(line[-LINE:]))
        if not line.strip():
            return
        self._last.append(line)
        if self._left <= 0:
            return
        self._left -= len(line)
        more = "" if self._left > 0 else f" … (the rest is left out: more than {LOG_BYTES} bytes)"
        self._work.say(line + more)

    @property
    def tail(self) -> str:
        return bounded_tail("\n".join(self._last), TAIL)


# ------------------------------------------------------------------ build


def build(engine: Any, uid: str, image: str, request: BuildRequest, work: Work) -> str:
    """See `Runtime.build`. Raises the engine's errors as they are."""
    work.progress("Docker Build Args and context Created")
    refuse_own_image(engine, image, request.outcome)
    with _lock(engine, uid, image, request, work) as helper, _context(request, helper) as context:
        work.progress("Task Startup : created build prerequisites")
        output = Output(work, Mask(request.proxies))
        with EngineLine() as line, work.on_give_up(line.cut):
            work.progress("Build thread has started")
            answer = line.api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=DOCKERFILE,
                tag=request.outcome,
                buildargs=dict(request.proxies),
                rm=True,
                forcerm=True,  # else the container of a failed step stays
                decode=True,
            )
            _follow_build(answer, output, request.outcome)
    done = f"Build Task Completed : image {request.outcome}"
    return f"{done}; last lines of the build:\n{output.tail}"


def _follow_build(answer: Iterable[Mapping[str, Any]], output: Output, outcome: str) -> None:
    for item in answer:
        if "error" in item:
            output.close()
            reason = " ".join(str(item["error"]).split())[:600]
            cause = f"image {outcome}: {reason}; last lines of the build:\n{output.tail}"
            raise LocalError("SW7010", cause)
        output.add(str(item.get("stream", "")))
    output.close()


@contextmanager
def _lock(
    engine: Any, uid: str, image: str, request: BuildRequest, work: Work
) -> Iterator[Container]:
    """A container that is created and never started, named after the image to be built.

    Through it the context volume is read. Its name is the lock: operators that share an engine
    build an image one after the other, and the second finds all layers made by the first.
    """
    mounts = []
    if request.context_volume:
        _require_volume(engine, request.context_volume)
        mounts = [EngineMount(CONTEXT, request.context_volume, type="volume", read_only=True)]
    name = f"swarm-build-{hashlib.sha256(request.outcome.encode()).hexdigest()[:12]}"
    labels = {LABEL_NODE: uid, LABEL_ROLE: HELPER, LABEL_UNTIL: str(work.ends_at)}
    told = False
    while True:
        work.check()
        try:
            helper = engine.containers.create(
                image, ["true"], name=name, mounts=mounts, labels=labels
            )
            break
        except APIError as error:
            if not is_taken(error):
                raise
        if not told:
            work.progress(f"waiting for another operator that builds {request.outcome} here")
            told = True
        if (holder := find(engine, name)) is not None and is_stale(holder):
            discard(holder)
        work.pause(LOCK_SECONDS)
    try:
        yield helper
    finally:
        discard(helper)


def _require_volume(engine: Any, name: str) -> None:
    try:
        engine.volumes.get(name)
    except NotFound as error:
        cause = f"the volume {name} of BuildContext does not exist on this host"
        raise LocalError("SW7007", cause) from error
    require_whole(engine, name)


@contextmanager
def _context(request: BuildRequest, helper: Container) -> Iterator[IO[bytes]]:
    """The build context: the files of the context volume and the Dockerfile of the steps.

    On disk, as a volume may hold any amount.
    """
    with tempfile.TemporaryFile() as stream, tempfile.TemporaryFile() as content:
        with tarfile.open(fileobj=stream, mode="w") as context:
            if request.context_volume:
                chunks, _ = helper.get_archive(f"{CONTEXT}/.")
                for chunk in chunks:
                    content.write(chunk)
                content.seek(0)
                with tarfile.open(fileobj=content) as files:
                    for found in files:
                        context.addfile(found, files.extractfile(found) if found.isreg() else None)
            dockerfile = "\n".join(request.steps).encode() + b"\n"
            member = tarfile.TarInfo(DOCKERFILE)
            member.size = len(dockerfile)
            context.addfile(member, BytesIO(dockerfile))
        stream.seek(0)
        yield stream


# ------------------------------------------------------------------ pull


def pull(engine: Any, image: str, request: PullRequest, work: Work) -> str:
    """See `Runtime.pull`. Raises the engine's errors as they are, without secrets."""
    login = credentials(request)
    for name in (request.reference, request.outcome):
        refuse_own_image(engine, image, name)
    mask = masked(login)
    output = Output(work, mask)
    work.progress(f"Pulling image {request.reference}")
    try:
        with EngineLine() as line, work.on_give_up(line.cut):
            answer = line.api.pull(
                request.repository, request.tag, stream=True, decode=True, auth_config=login
            )
            for change in changes(answer):
                output.add(f"{change}\n")
        pulled = engine.images.get(request.reference)
    except APIError as error:
        reason = mask.line(" ".join((error.explanation or str(error)).split())[:600])
        raise LocalError("SW7029", f"image {request.reference}: {reason}") from None
    except LocalError as fault:
        if fault.code == "SW7020":
            raise
        raise LocalError(fault.code, mask.line(f"{request.reference}: {fault.cause}")) from None
    pulled.tag(*_named(request.outcome))
    what = f"image {request.outcome} is {request.reference} ({pulled.short_id})"
    return f"Pull Task Completed : {what}"


def _named(outcome: str) -> tuple[str, str]:
    repository, tag = parse_repository_tag(outcome)
    return repository, tag or "latest"
