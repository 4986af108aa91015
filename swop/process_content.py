"""Content under PROCESS: volumes are directories below `<data>/volumes/`.

A child process fills directories below `<data>/filling/`; each goes to its place by one rename, so
what is in `volumes` is whole. What is found in `filling` at a start was interrupted, and goes. What
a volume was made of stands in `<data>/contents/<volume>`, written before the rename: a record
without its volume means nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from swarm.errors import LocalError
from swop.content import ContentRequest, finished, taken
from swop.filling import JOB
from swop.hearing import listen
from swop.work import Work

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "TMPDIR")


def clean(data: Path) -> None:
    """Drop what an operator that was killed has left half filled."""
    shutil.rmtree(data / "filling", ignore_errors=True)


def fill(data: Path, request: ContentRequest, user: tuple[int, int] | None, work: Work) -> str:
    """See `Runtime.fill`."""
    there = [name for name in request.volumes if _is_there(data, name, request.digest)]
    missing = [name for name in request.volumes if name not in there]
    if not missing:
        return finished((), there, "")
    for place in (data / "filling", data / "contents"):
        place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data / "filling", ignore_cleanup_errors=True) as directory:
        filling = Path(directory)
        filling.chmod(0o711)
        for name in missing:
            (filling / name).mkdir()
            if user is not None:
                os.chown(filling / name, *user)
        text = _run(request, [str(filling / name) for name in missing], user, work)
        work.check()
        for name in missing:
            _publish(data, filling / name, request.digest)
    return finished(missing, there, text)


def _is_there(data: Path, name: str, digest: str) -> bool:
    """Is this volume made of these steps? LocalError SW7026 when it is something else."""
    volume = data / "volumes" / name
    if not volume.is_dir() or not any(volume.iterdir()):
        return False
    try:
        found = (data / "contents" / name).read_text(encoding="ascii")
    except FileNotFoundError:
        found = ""
    if found != digest:
        raise taken(name)
    return True


def _publish(data: Path, filled: Path, digest: str) -> None:
    record = data / "contents" / filled.name
    temporary = record.with_name(f"{filled.name}.tmp")
    temporary.write_text(digest, encoding="ascii")
    temporary.replace(record)
    try:
        filled.rename(data / "volumes" / filled.name)  # over an empty directory at most
    except OSError as error:
        raise taken(filled.name) from error


def _run(
    request: ContentRequest, volumes: list[str], user: tuple[int, int] | None, work: Work
) -> str:
    """The filling process from begin to end; it ends with us, as its standard input does."""
    options: dict[str, object] = {}
    if user is not None:
        options = {"user": user[0], "group": user[1], "extra_groups": []}
    child = subprocess.Popen(  # type: ignore[call-overload]
        [sys.executable, "-I", "-m", "swop.filling"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=_environment(request, volumes),
        **options,
    )
    try:
        with work.on_give_up(child.kill):
            return listen(iter(lambda: child.stdout.readline(65536), b""), work)
    except OSError as error:
        raise LocalError("SW7028", str(error)) from error
    finally:
        child.kill()
        child.communicate()


def _environment(request: ContentRequest, volumes: list[str]) -> Mapping[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, JOB: request.job(volumes, lifeline=True).to_json()}
