"""Parsers of what people and programs write: tasks, profiles, commands, tensors, the API's JSON."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import trio
from starlette.types import Message

from sentinel.app import Services, make_app
from sentinel.bootstrap import read_origin, write_origin
from sentinel.limits import Limits
from sentinel.metrics import Metrics
from sentinel.presence import Presence
from sentinel.refusals import Refusals
from sentinel.streams import Pulse
from swarm.api import transport
from swarm.api.client import ApiClient
from swarm.api.models import Endpoint
from swarm.api.taskdef import BODIES, parse_body, parse_task
from swarm.api.watch import Watch
from swarm.errors import LocalError, RemoteError
from swarm.host.hostfile import parse_host
from swarm.identity import Peer, Role
from swarm.learner import reading
from swarm.learner.link_server import Conversation
from swarm.learner.messages import Event, Opened
from swarm.learner.vectors import layout_of
from swarm.ledger import codec
from swarmlearning import link, tensors
from swarmlearning.tensors import Layout, TensorFileError
from swci.command import CommandError
from swci.commands import TABLE, language
from swop.profile import parse_profile
from swop.tree import Tree
from swop.unpacking import unpack
from tests.content import archives
from tests.fuzz.ledger_targets import genesis, identities, signed
from tests.fuzz.source import join, split
from tests.fuzz.target import Target
from tests.host import test_hostfile
from tests.sentinel.fakes import CHAIN, FakeLedger

ROOT = Path(__file__).parents[2]


# ---------------------------------------------------------------- YAML, commands


def run_task(data: bytes) -> None:
    parse_task(data.decode("utf-8", "replace"), "task.yaml")


def tasks() -> list[bytes]:
    return [
        path.read_bytes()
        for path in sorted(ROOT.glob("examples/**/*.yaml"))
        if b"TaskType" in path.read_bytes()
    ]


def run_task_body(data: bytes) -> None:
    """The body of a task as it stands in the ledger; the first byte chooses the type."""
    kind = (*BODIES, "NONE")[data[0] % (len(BODIES) + 1)] if data else "NONE"
    parse_body(kind, data[1:].decode("utf-8", "replace").split("\n"), "task")


def task_bodies() -> list[bytes]:
    found = []
    for text in tasks():
        task = parse_task(text.decode(), "task.yaml")
        found.append(
            bytes([list(BODIES).index(task.TaskType)]) + "\n".join(task.body_lines()).encode()
        )
    return found


def run_profile(data: bytes) -> None:
    parse_profile(data.decode("utf-8", "replace"), "profile.yaml")


def profiles() -> list[bytes]:
    paths = [*ROOT.glob("examples/**/*profile*.yaml"), *ROOT.glob("profiles/**/*.yaml")]
    return [path.read_bytes() for path in sorted(paths)]


def run_host(data: bytes) -> None:
    parse_host(data.decode("utf-8", "replace"), "swarm.yaml")


def hosts() -> list[bytes]:
    return [test_hostfile.WHOLE.encode(), test_hostfile.SMALL.encode()]


def run_command(data: bytes) -> None:
    for line in data.decode("utf-8", "replace").split("\n"):
        language().parse(line)


def commands() -> list[bytes]:
    lines = [command.grammar for command in TABLE]
    scripts = [path.read_bytes() for path in sorted(ROOT.glob("examples/**/swci-init"))]
    return [
        *(line.encode() for line in lines),
        b"WAIT FOR TASKRUNNER x",
        b"EXIT ON FAILURE",
        *scripts,
    ]


# ---------------------------------------------------------------- program and learner


def run_link(data: bytes) -> None:
    """What a program says to its learner. What is accepted can be put on the ledger."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:60_000])
        theirs.close()
        Conversation(link.Connection(ours, link.TO_SL), _heard).listen()


def _heard(event: Event) -> None:
    if isinstance(event, Opened):
        codec.encode(dict(event.rules))


def framed(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return len(body).to_bytes(4, "little") + body


def links() -> list[bytes]:
    samples: dict[type, Any] = {int: 1, str: "mean", bool: False, dict: {"a": 1}}
    each = {
        kind: framed({"type": kind, **{name: samples[of] for name, of in fields.items()}})
        for kind, fields in link.TO_SL.items()
    }
    opening = {"mergeArgs": {"transferDtype": "float16"}, "mergeMethod": "krum"}
    good = framed({**json.loads(each["open"][4:]), "protocol": link.PROTOCOL, **opening})
    return [
        *each.values(),
        good + each["sync"] + each["report"] + each["finish"] + each["bye"],
        each["open"] + each["sync"] + each["report"] + each["finish"] + each["bye"],
    ]


SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def run_tensors(data: bytes) -> None:
    """The memory that a program shares, and the header that a holder sends."""
    try:
        layout_of(data)
    except TensorFileError:
        pass
    descriptor = os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, data)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    with tensors.attach(descriptor) as file:
        for array in file.arrays().values():
            array.sum()
        reading.odd_tensors(file.data, file.layout)


def tensor_files() -> list[bytes]:
    layout = Layout([("w", "float32", (2, 3)), ("b", "bfloat16", (5,)), ("s", "bool", ())])
    narrow = Layout([("w", "float64", (2, 3)), ("b", "bfloat16", (5,))], "bfloat16")
    return [layout.header(), *(one.header() + bytes(one.size) for one in (layout, narrow))]


# ---------------------------------------------------------------- the API's server


@lru_cache(maxsize=1)
def application() -> Any:
    clock = lambda: 0.0  # noqa: E731 - nobody waits here
    ledger, refusals, limits = FakeLedger(), Refusals(clock), Limits(clock)
    limits_off(limits)
    services = Services(
        ledger=lambda: ledger,
        status=lambda: {"height": 0},
        bootstrap=bootstrap,
        presence=Presence(clock),
        ages=dict,
        moved=lambda uid, came: None,
        pulse=Pulse(),
        refusals=refusals,
        metrics=Metrics(dict, refusals.counts, limits.refused()),
        limits=limits,
    )
    return make_app(services)


async def bootstrap() -> dict[str, Any]:
    return {"chain": CHAIN, "genesis": "", "peers": []}


def limits_off(limits: Any) -> None:
    """A member without limits: here one member asks without end."""

    class Free:
        async def enter(self, kind: Any) -> None:
            await trio.lowlevel.checkpoint()

        async def pay(self, *args: Any) -> None:
            await trio.lowlevel.checkpoint()

        def leave(self, *args: Any) -> None:
            pass

    limits.member = lambda peer: Free()


PEER = Peer("ab" * 32, Role.SN, "cd" * 32, "SN-1", b"key")


def run_request(data: bytes) -> None:
    """Any request of an authenticated member: an answer, and never one that says "failed here"."""
    method, path, query, kind, *body = [*split(data), *[b""] * 5]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.decode("latin-1").upper() or "GET",
        "path": "/" + path.decode("utf-8", "replace"),
        "raw_path": b"/" + path,
        "root_path": "",
        "scheme": "https",
        "query_string": query,
        "headers": [(b"content-type", kind), (b"host", b"x")],
        "state": {"peer": PEER, "refused": ""},
    }
    trio.run(_request, scope, body[0])


async def _request(scope: dict[str, Any], body: bytes) -> None:
    sent: list[Message] = []
    asked = False

    async def receive() -> Message:
        nonlocal asked
        await trio.lowlevel.checkpoint()
        if asked:
            await trio.sleep(0.005)  # then the client of a stream goes
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    await application()(scope, receive, send)
    assert sent and sent[0]["status"] != 500, sent


def requests() -> list[bytes]:
    cbor = b"application/cbor"
    return [
        join([b"GET", b"v1/status", b"", b"", b""]),
        join([b"GET", b"v1/state/nodes", b"min_height=0", b"", b""]),
        join([b"GET", b"v1/state/nodes/abc", b"", b"", b""]),
        join([b"GET", b"v1/bootstrap", b"", b"", b""]),
        join([b"GET", b"metrics", b"", b"", b""]),
        join([b"GET", b"v1/events", b"watch=contracts/x&watch=nodes/y", b"", b""]),
        join([b"GET", b"v1/events", b"from=0&uid=" + b"0" * 32, b"", b""]),
        join([b"POST", b"v1/transactions", b"wait=0.01", cbor, signed("task.create", name="t")]),
        join([b"POST", b"v1/transactions", b"", cbor, b"junk"]),
    ]


# ---------------------------------------------------------------- the API's clients


class Answering(transport.Transport):
    """An SN that answers everything with the same bytes."""

    def __init__(self, data: bytes) -> None:
        self.endpoint = Endpoint("sn", 1)
        self._data = data
        self._at = 0

    def exchange(self, method: str, path: str, **_: Any) -> transport.Answer:
        data = self._data
        return transport.Answer(200, transport._json_of(data), transport._text_of(data))

    def stream(self, path: str, timeout: float) -> Any:
        return self

    def readline(self) -> bytes:
        start, self._at = self._at, (self._data.find(b"\n", self._at) + 1) or len(self._data)
        return self._data[start : self._at]

    def close(self) -> None:
        pass


def run_answer(data: bytes) -> None:
    """Any answer of an SN to a client's questions, and to a node that joins."""
    client = ApiClient(identities()[0], [("sn", 1)])
    client._transports = {Endpoint("sn", 1): Answering(data)}
    answer = Answering(data).exchange("GET", "/")
    transport.code_of(answer)
    accepted = 0
    for question in (
        client.status,
        client.version,
        client.presence,
        lambda: client.table("nodes"),
        lambda: client.record("nodes", "x"),
        lambda: client._verdict("op", answer),
        lambda: read_origin(answer.value),
    ):
        try:
            question()
            accepted += 1
        except RemoteError:
            continue
    if not accepted:
        raise RemoteError("SW5004", "nothing was understood")


def answers() -> list[bytes]:
    verdict = {"ok": True, "code": "", "text": "", "result": {}, "height": 3}
    origin = write_origin(genesis(), [("Q" * 46, ["/ip4/1.2.3.4/tcp/5"])])
    node = {"type": "SN", "active": True, "host": "h", "port": 30304}
    found = [
        {"chain": "00" * 32, "height": 7, "version": "1"},
        {"height": 7, "digest": "00", "records": {"u": node}},
        {"height": 7, "record": {"a": 1}},
        {"u": 1.5},
        verdict,
        {**origin, "chain": origin["chain"].hex()},
    ]
    return [json.dumps(value).encode() for value in found]


def run_events(data: bytes) -> None:
    """Any event stream of an SN: the watch goes to the next one."""
    watch = Watch(lambda: (), ["contracts/x"], "")
    log = logging.getLogger("swarm.api")
    before, log.disabled = log.disabled, True
    try:
        watch._follow(Answering(data))
    finally:
        log.disabled = before
    assert not watch.connected


def events() -> list[bytes]:
    def lines() -> Iterator[bytes]:
        yield b": ping\n\n"
        for height in (1, 2, 3):
            value = {"height": height, "records": {"contracts/x": {"round": height}}}
            yield b"event: records\ndata: " + json.dumps(value).encode() + b"\n\n"

    return [b"".join(lines()), *lines()]


# ---------------------------------------------------------------- content


class _Meter:
    """A limit for what one input may write."""

    def __init__(self) -> None:
        self.left = 1 << 20

    def add(self, count: int) -> None:
        self.expect(count)
        self.left -= count

    def expect(self, count: int) -> None:
        if count > self.left:
            raise LocalError("SW7025", "too much")


def run_archive(data: bytes) -> None:
    """An archive that a task brings: whatever it holds, nothing comes out beside the volume."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "volume"
        root.mkdir()
        try:
            with Tree(root) as tree:
                unpack(io.BytesIO(data), len(data), tree, "", _Meter())
                tree.check_links("content")
        finally:
            assert [path.name for path in Path(name).iterdir()] == ["volume"]


def archive_seeds() -> list[bytes]:
    members = (
        archives.member("d", tarfile.DIRTYPE),
        archives.file("d/x", b"data" * 50),
        archives.symlink("d/l", "x"),
        archives.hardlink("h", "d/x"),
    )
    return [
        *(archives.tar(*members, mode=mode) for mode in ("w", "w:gz", "w:bz2", "w:xz")),
        archives.sparse("s", 1000),
        archives.zipped(("d/", b""), ("d/x", b"data"), ("l", b"d/x"), kinds=(0, 0, 0o120777)),
    ]


LOCAL, REMOTE = (LocalError,), (RemoteError,)
TARGETS = (
    Target("task", "task definitions", run_task, LOCAL, tasks),
    Target("task-body", "bodies of tasks in the ledger", run_task_body, REMOTE, task_bodies),
    Target("profile", "SWOP profiles", run_profile, LOCAL, profiles),
    Target("host", "files of whole hosts", run_host, LOCAL, hosts),
    Target("archive", "archives of content tasks", run_archive, LOCAL, archive_seeds),
    Target("command", "commands and scripts", run_command, (CommandError,), commands),
    Target("link", "a program's messages", run_link, (), links),
    Target("tensors", "tensor files", run_tensors, (TensorFileError,), tensor_files),
    Target("api-request", "requests to the API", run_request, (), requests),
    Target("api-answer", "answers of the API", run_answer, REMOTE, answers),
    Target("api-events", "event streams of the API", run_events, (), events),
)
