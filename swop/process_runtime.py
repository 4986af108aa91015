"""The PROCESS runtime: pairs as local processes, no container engine and no root needed.

Each program has a directory `<data>/<operation>/<index>/<role>/` with its private root and what its
keeper (`keeper.py`) writes. A program is alive as long as its keeper holds the lock there, which
needs no pids to be compared and survives the operator. Output goes to `<data>/logs/<name>.log` and
stays there when the program is removed, as far as logs are kept (`kept_logs.py`).

A "volume" is a directory below `<data>/volumes/`. An "image" is a record that a build task left
below `<data>/environments/` after it had checked the local Python environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from swarm import logfile
from swarm.errors import LocalError
from swop import keeper
from swop.content import ContentRequest
from swop.environment import EnvironmentRecord, examine
from swop.kept_logs import MIB, KeptLogs
from swop.plan import LINK_DIRECTORY, Mount, Program
from swop.private_root import build_root, remove_links
from swop.process_content import clean, fill
from swop.profile import MountType
from swop.pulling import PullRequest
from swop.runtime import (
    KILLED,
    STOP_GRACE,
    BuildRequest,
    Found,
    Output,
    RunState,
    RunStatus,
    bounded_tail,
)
from swop.work import Work

TAIL_BYTES = 64 * 1024
MARK = "SWARM_PROGRAM"  # in the environment of a program and so of all its descendants
# A Unix socket's path holds about 100 bytes; longer link directories get a short alias.
LONGEST_LINK = 80
# Variables of the operator's own that must not leak into what it starts.
OWN_PREFIXES = ("SWARM_", "SN_", "SL_", "SWOP_", "SWCI_", "SENTINEL_", "THIS_NODE_IP", "USR_DIR")
OPERATION = re.compile(r"[0-9a-f]{16}")
KILL_SECONDS = 2.0
TAKE_OVER_SECONDS = 20.0


class ProcessRuntime:
    """Runs pairs as processes of this host, below the directory `data`."""

    def __init__(self, uid: str, data: Path, keep_logs: int = 64 * MIB) -> None:
        self.uid = uid
        self.data = data.absolute()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._places: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._logs = KeptLogs(self.data / "logs", keep_logs)
        try:
            for name in ("volumes", "environments"):
                (self.data / name).mkdir(parents=True, exist_ok=True)
            clean(self.data)
        except OSError as error:
            raise LocalError("SW7015", f"{self.data}: {error}") from error

    # ------------------------------------------------------------------ environments

    def check(self) -> str:
        return f"local processes with {sys.executable}, below {self.data}"

    def has_image(self, name: str) -> bool:
        return self._environment_file(name).exists()

    def build(self, request: BuildRequest, work: Work) -> str:
        return self._check_environment(request.outcome, "built", work)

    def pull(self, request: PullRequest, work: Work) -> str:
        return self._check_environment(request.outcome, "pulled", work)

    def _check_environment(self, outcome: str, what: str, work: Work) -> str:
        """There are no images here: an outcome stands for the Python beside the operator."""
        work.progress(f"No image is {what} under PROCESS : checking the local environment")
        work.check()
        record = examine(sys.executable)
        work.check()
        _write_json(self._environment_file(outcome), {"outcome": outcome, **record.as_dict()})
        return (
            f"No image was {what} under PROCESS : the local environment ({record.summary}) was"
            f" checked and recorded as {outcome}"
        )

    def fill(self, request: ContentRequest, work: Work) -> str:
        return fill(self.data, request, switch_to(request.user), work)

    def _environment_file(self, name: str) -> Path:
        return self.data / "environments" / f"{name.replace('/', '%')}.json"

    def _interpreter(self, program: Program) -> str:
        """The Python that the program's image stands for."""
        if not program.image:
            return sys.executable
        try:
            value = json.loads(self._environment_file(program.image).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            cause = f"{program.name}: environment {program.image} was not prepared on this host"
            raise LocalError("SW7009", cause) from error
        return EnvironmentRecord.from_dict(value).python

    # ------------------------------------------------------------------ start

    def start(self, program: Program) -> None:
        place = self._place(program)
        with self._lock:
            self._places[program.name] = place
        if _is_held(place) or any((place / f).exists() for f in ("keeper.json", "exit.json")):
            return  # it runs, or it has ended
        python = self._interpreter(program)
        try:
            self._prepare(program, place, python)
            self._launch(program.name, place)
        except OSError as error:
            raise LocalError("SW7011", f"{program.name}: {error}") from error

    def _place(self, program: Program) -> Path:
        return self.data / program.operation / str(program.index) / program.role

    def _prepare(self, program: Program, place: Path, python: str) -> None:
        """Private root, links and `launch.json` of a program."""
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        link = self._volume(program.link, mode=0o700)
        mounts = [(mount.target, self._source(mount)) for mount in program.mounts]
        root, outside = build_root(
            place / "root", [*mounts, (LINK_DIRECTORY, link)], program.workdir
        )
        user = switch_to(program.user)
        alias = _short_alias(link, place)
        environment = {
            **_inherited(python),
            **_visible_gpus(program),
            **root.rewrite_values(program.environment),
            "SWARM_LINK": str(alias or link),
            MARK: program.name,
        }
        argv = root.rewrite_all([*program.entrypoint, *program.command])
        if user is not None:
            # Not the place itself: what is written down there decides what is removed later.
            place.chmod(0o711)
            for path in (place / "root", link, *([alias.parent] if alias else [])):
                os.chown(path, *user)
        log = self._logs.path(program.name)
        _write_json(
            place / "program.json",
            {
                "name": program.name,
                "role": program.role,
                "operation": program.operation,
                "index": program.index,
                "owner": self.uid,
                "link": program.link,
                "log": str(log),
                "outside": [str(path) for path in outside],
                "alias": str(alias) if alias else "",
            },
        )
        launch = {
            "argv": argv,
            "environment": environment,
            "workdir": str(root.path(program.workdir)),
            "log": str(log),
            "user": user,
        }
        _write_json(place / "launch.json", launch)

    def _source(self, mount: Mount) -> Path:
        if mount.kind is MountType.VOLUME:
            return self._volume(mount.source)
        return Path(mount.source)

    def _volume(self, name: str, mode: int = 0o755) -> Path:
        path = self.data / "volumes" / name.replace("/", "%")
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        return path

    def _launch(self, name: str, place: Path) -> None:
        """Start the keeper in a session of its own, so that no signal of ours reaches it.

        Returns when it has taken over. Raises LocalError SW7011 when it does not.
        """
        complaints = place / "keeper.log"
        with complaints.open("wb") as log:
            child = subprocess.Popen(
                # Isolated: small, fast, and blind to the program's modules and variables.
                [sys.executable, "-I", "-S", str(Path(keeper.__file__).absolute()), str(place)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        with self._lock:
            self._children[name] = child
        deadline = time.monotonic() + TAKE_OVER_SECONDS
        while not (place / "keeper.json").exists():
            if child.poll() is not None or time.monotonic() > deadline:
                child.kill()
                said = bounded_tail(complaints.read_text(errors="replace"), 500)
                raise LocalError("SW7011", f"{name}: its keeper did not start: {said}")
            time.sleep(0.01)

    # ------------------------------------------------------------------ observe

    def status(self, name: str) -> RunStatus:
        place = self._find(name)
        if place is None:
            return RunStatus(RunState.MISSING)
        child = self._children.get(name)
        if child is not None:
            child.poll()  # so that it does not stay a zombie
        alive = _is_held(place)
        # Read after the look at the lock: a keeper that has gone has written what it had to say.
        ended = _read_json(place / "exit.json")
        if ended is not None:
            return RunStatus(RunState.EXITED, int(ended["code"]), str(ended["note"]))
        if alive:
            return RunStatus(RunState.RUNNING)
        if not (place / "keeper.json").exists():
            return RunStatus(RunState.CREATED)
        self._end_remains(name)
        return RunStatus(RunState.EXITED, KILLED, "its keeper was killed")

    def log_tail(self, name: str) -> str:
        try:
            with self._logs.path(name).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
                return bounded_tail(log.read().decode("utf-8", "replace"))
        except FileNotFoundError:
            return ""

    def follow(self, name: str, lines: int | None = None) -> Output:
        alive = (RunState.CREATED, RunState.RUNNING)
        # Before its keeper has written anything, a program that was started counts as created.
        return _Following(
            self._logs.path(name), lambda: self.status(name).state not in alive, lines
        )

    def adopt(self) -> list[Found]:
        found = []
        for path, value in self._records():
            if value["owner"] != self.uid:
                continue
            with self._lock:
                self._places[value["name"]] = path.parent
            fields = ("name", "role", "operation", "index", "link")
            found.append(Found(**{field: value[field] for field in fields}))
        return found

    def _records(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """What is written down of all programs below the data directory.

        Below the names of operations alone: into volumes, programs write what they like.
        """
        for path in sorted(self.data.glob("*/*/*/program.json")):
            if not OPERATION.fullmatch(path.parts[-4]):
                continue
            value = _read_json(path)
            if value is not None:
                yield path, value

    def _find(self, name: str) -> Path | None:
        with self._lock:
            place = self._places.get(name)
        return place if place is not None and (place / "program.json").exists() else None

    # ------------------------------------------------------------------ end

    def stop(self, names: Sequence[str], grace: float = STOP_GRACE) -> None:
        places = {name: place for name in names if (place := self._find(name)) is not None}
        self._signal_and_wait(places, grace)
        self._signal_and_wait(places, KILL_SECONDS)
        for name, place in places.items():
            if _is_held(place):
                _kill_tree(_keeper_pid(place))
            self._end_remains(name)
            self._reap(name)

    def _signal_and_wait(self, places: Mapping[str, Path], seconds: float) -> None:
        """SIGTERM to all keepers that live: the first asks their programs, the second kills."""
        for place in places.values():
            if _is_held(place) and (pid := _keeper_pid(place)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while any(_is_held(place) for place in places.values()):
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            place = self._find(name)
            if place is None:
                continue
            if _is_held(place):
                self.stop([name], 0.0)
            value = _read_json(place / "program.json") or {}
            others = self._links_of_others(name)
            remove_links(p for p in map(Path, value.get("outside", ())) if p not in others)
            if value.get("alias"):
                shutil.rmtree(Path(value["alias"]).parent, ignore_errors=True)
            shutil.rmtree(place, ignore_errors=True)
            with self._lock:
                self._places.pop(name, None)
            self._tidy(place, str(value.get("link", "")))
            self._logs.settle(name)
        self._logs.trim(living={value["name"] for _, value in self._records()})

    def _links_of_others(self, name: str) -> set[Path]:
        """Links inside sources that other programs rely on."""
        links: set[Path] = set()
        for _, value in self._records():
            if value["name"] != name:
                links.update(Path(link) for link in value["outside"])
        return links

    def _tidy(self, place: Path, link: str) -> None:
        """Remove the pair's directories, and its link with the last of its members."""
        for directory in (place.parent, place.parent.parent):
            with contextlib.suppress(OSError):
                directory.rmdir()
        if link and not place.parent.exists():
            shutil.rmtree(self._volume(link), ignore_errors=True)

    def _reap(self, name: str) -> None:
        with self._lock:
            child = self._children.pop(name, None)
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(KILL_SECONDS)

    def _end_remains(self, name: str) -> None:
        """Kill whatever carries the program's mark: what is left when a keeper was killed."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == name:
                    process.kill()

    def close(self) -> None:
        with self._lock:
            children, self._children = self._children, {}
        for child in children.values():
            child.poll()
            child.returncode = child.returncode or 0  # it goes on; do not warn that it does


class _Following:
    """The output of a local program: its log file, followed."""

    def __init__(self, path: Path, is_over: Callable[[], bool], lines: int | None) -> None:
        self._closed = threading.Event()
        self._chunks = logfile.follow(path, is_over, lines=lines, closed=self._closed)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._closed.set()


def _inherited(python: str) -> dict[str, str]:
    """What a program takes over from the operator: not its own settings, and Python first."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith(OWN_PREFIXES)}
    kept["PATH"] = f"{Path(python).parent}:{kept.get('PATH', os.defpath)}"
    return kept


def _visible_gpus(program: Program) -> dict[str, str]:
    """The `gpus` option as the variable by which NVIDIA's libraries choose devices."""
    gpus = program.options.gpus if program.options is not None else None
    if gpus is None or gpus == "all":
        return {}
    if gpus.isdigit():
        gpus = ",".join(str(number) for number in range(int(gpus)))
    return {"CUDA_VISIBLE_DEVICES": gpus.removeprefix("device=")}


def switch_to(user: str) -> tuple[int, int] | None:
    """The uid and gid to run as, when that is possible and differs from our own."""
    if not user or os.geteuid() != 0:
        return None
    uid, _, gid = user.partition(":")
    found = (int(uid), int(gid or uid))
    return found if found != (os.geteuid(), os.getegid()) else None


def _short_alias(link: Path, place: Path) -> Path | None:
    """A short path to a link directory whose own path a Unix socket could not hold."""
    if len(str(link)) <= LONGEST_LINK:
        return None
    before = _read_json(place / "program.json") or {}
    if before.get("alias") and Path(before["alias"]).is_symlink():
        return Path(before["alias"])
    alias = Path(tempfile.mkdtemp(prefix="swarm-")) / "link"
    alias.symlink_to(link)
    return alias


def _is_held(place: Path) -> bool:
    """Does a keeper hold the lock of this program?"""
    try:
        descriptor = os.open(place / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _keeper_pid(place: Path) -> int:
    return int((_read_json(place / "keeper.json") or {"pid": 0})["pid"])


def _kill_tree(pid: int) -> None:
    """Kill a process and all below it, where a keeper itself does not answer."""
    if not pid:
        return
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [*root.children(recursive=True), root]:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file of ours; None when it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write as a whole or not at all, readable by this user alone."""
    temporary = path.with_suffix(".tmp")
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    temporary.replace(path)
