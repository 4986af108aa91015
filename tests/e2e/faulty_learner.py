"""Learner processes that fail in one named way, at a moment that they reach by their own work.

    FAULT=spoil  python -m tests.e2e.faulty_learner      # as `python -m swarm.learner`

They run the product's learner; a fault is a small change of one of its classes, made before it
starts. It happens in round `FAULT_ROUND` and from then on; the file `fault` in the learner's folder
has the moment (of the monotonic clock, which all processes of a machine share).

`--parent` makes a parent of learners: it imports everything once, and forks one for each line of
its input (`{"env": …, "log": …}`), and prints the pid. A start takes a tenth of a second then.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from swarm.api.client import ApiClient
from swarm.learner import __main__ as product
from swarm.learner import learner as learner_module
from swarm.learner.learner import Learner
from swarm.merge.exchange import Exchange
from swarm.merge.mean import WeightedMean
from swarm.merge.progress import Limits
from swarm.merge.wire import Channel, ConnectionGone, Kind

FAULT, ROUND, STALL, NAMESPACE = "FAULT", "FAULT_ROUND", "FAULT_STALL", "FAULT_NAMESPACE"
VICTIM = "FAULT_VICTIM"  # a port
MOMENT, GO_ON = "fault", "go-on"  # files in the learner's folder
CLONE_NEWNET = 0x40000000  # <linux/sched.h>

_running: Exchange | None = None  # the last one
_noting = threading.Lock()  # several threads may fail at once


def armed() -> bool:
    """The round of the fault is there."""
    return _running is not None and _running.key.round >= int(os.environ.get(ROUND, "0"))


def happened() -> None:
    """Now: note the moment, once."""
    path = Path(os.environ["SWARM_LINK"]) / MOMENT
    with _noting:
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_text(repr(time.monotonic()))
            part.rename(path)


def told_to_go_on() -> None:
    """Wait until the test makes the file `go-on`."""
    path = Path(os.environ["SWARM_LINK"]) / GO_ON
    while not path.exists():
        threading.Event().wait(0.02)


def pause(seconds: float) -> None:
    """Do nothing for a while, unless the attempt has ended."""
    assert _running is not None
    attempt = _running.attempt
    with attempt.changed:
        if attempt.changed.wait_for(lambda: attempt.aborted, seconds):
            raise ConnectionGone("the exchange ended")


class Watched(Exchange):
    """Lets faults know it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        global _running
        super().__init__(*args, **options)
        _running = self


# ------------------------------------------------------------------ how to fail

Send = Callable[[Channel, Kind, int, memoryview], None]


def instead_of_sending(kind: Kind, act: Callable[[Channel, int, memoryview, Send], None]) -> None:
    """Replace what a chunk of `kind` is sent by; `act` gets the real thing as its last argument."""
    real = Channel.send_chunk

    def send(channel: Channel, sent: Kind, index: int, data: memoryview) -> None:
        if sent is kind and armed():
            channel.flush()  # nothing is held back, to be sent together
            act(channel, index, data, real)
            channel.flush()
        else:
            real(channel, sent, index, data)

    Channel.send_chunk = send  # type: ignore[method-assign, assignment]


def end_by(number: int) -> None:
    """End, or stop, at once and without a word."""
    happened()
    os.kill(os.getpid(), number)


def in_the_middle_of_sending(number: int) -> None:
    """A signal to itself between its second contribution chunk and the third, to whomever."""
    chunks = itertools.count(1)

    def act(channel: Channel, index: int, data: memoryview, real: Send) -> None:
        if next(chunks) == 3:
            end_by(number)
        real(channel, Kind.CONTRIB, index, data)

    instead_of_sending(Kind.CONTRIB, act)


def in_the_middle_of_reducing(number: int) -> None:
    """A signal to itself when two chunks of its shard are reduced and the third is about to be."""
    real, chunks = WeightedMean.reduce, itertools.count(1)

    def reduce(self: WeightedMean, *args: Any, **options: Any) -> None:
        if armed() and next(chunks) == 3:
            end_by(number)
        real(self, *args, **options)

    WeightedMean.reduce = reduce  # type: ignore[method-assign]


def late_with_its_word() -> None:
    """It holds back what it says of its result until it is told to go on."""
    real = ApiClient.submit

    def submit(self: ApiClient, op: str, args: Mapping[str, Any], **options: Any) -> Any:
        if op == "round.merged" and armed():
            happened()
            told_to_go_on()
        return real(self, op, args, **options)

    ApiClient.submit = submit  # type: ignore[method-assign]


Victims = Callable[[Channel], bool]


def the_victim(channel: Channel) -> bool:
    """The other end is the learner that the environment names by its port."""
    return int(channel.sock.getpeername()[1]) == int(os.environ[VICTIM])


def spoiled_contribution(victims: Victims = lambda channel: True) -> None:
    """One byte of a block is not what its digest says."""

    def act(channel: Channel, index: int, data: memoryview, real: Send) -> None:
        if index == 1 and victims(channel):
            happened()
            data = memoryview(bytes([data[0] ^ 1]) + bytes(data[1:]))
        real(channel, Kind.CONTRIB, index, data)

    instead_of_sending(Kind.CONTRIB, act)


def two_faces(victims: Victims = lambda channel: True) -> None:
    """Its shard is another one for each of its victims."""

    def act(channel: Channel, index: int, data: memoryview, real: Send) -> None:
        if victims(channel):
            happened()
            face = int(channel.sock.getpeername()[1]) % 251 + 1
            data = memoryview(bytes([data[0] ^ face]) + bytes(data[1:]))
        real(channel, Kind.REDUCED, index, data)

    instead_of_sending(Kind.REDUCED, act)


def repeated_chunks() -> None:
    """Whatever it sends it sends again: frames of this attempt, replayed."""

    def act(channel: Channel, index: int, data: memoryview, real: Send) -> None:
        happened()
        real(channel, Kind.CONTRIB, index, data)
        real(channel, Kind.CONTRIB, index, data)

    instead_of_sending(Kind.CONTRIB, act)


def stale_frames() -> None:
    """It goes on to send what belongs to the round before."""
    real = Channel.send_json

    def send(self: Channel, kind: Kind, value: object) -> None:
        if kind is Kind.HELLO and armed() and isinstance(value, dict) and "round" in value:
            happened()
            value = {**value, "round": value["round"] - 1}
        real(self, kind, value)

    Channel.send_json = send  # type: ignore[method-assign]


def random_frames() -> None:
    """In the place of a frame, random bytes, properly sealed."""

    def act(channel: Channel, index: int, data: memoryview, real: Send) -> None:
        happened()
        channel._sendall(random.Random(index).randbytes(100_000))

    instead_of_sending(Kind.CONTRIB, act)


def random_bytes() -> None:
    """On the bare connection, random bytes."""

    def act(channel: Channel, index: int, data: memoryview, real: Send) -> None:
        happened()
        try:
            socket.socket.sendall(channel.sock, random.Random(index).randbytes(100_000))
        except OSError as error:
            raise ConnectionGone(str(error)) from None

    instead_of_sending(Kind.CONTRIB, act)


def silence() -> None:
    """Connections stand, it listens to all, and says nothing."""

    def act(channel: Channel, index: int, data: memoryview, real: Send) -> None:
        happened()
        while True:
            pause(3600)

    instead_of_sending(Kind.CONTRIB, act)


def excuses(kind: Kind) -> None:
    """In the place of `kind`, it says for whom it waits, with numbers that look like progress."""

    def act(channel: Channel, index: int, data: memoryview, real: Send) -> None:
        happened()
        assert _running is not None
        attempt, count = _running.attempt, 0
        while True:
            count += 1
            names = [uid for k, uid in enumerate(attempt.uids) if k != attempt.me]
            channel.send_json(Kind.WAIT, {"for": dict.fromkeys(names, count)})
            channel.flush()
            pause(0.5)

    instead_of_sending(kind, act)


FAULTS: Mapping[str, Callable[[], None]] = {
    "": lambda: None,
    "killed-sending": partial(in_the_middle_of_sending, signal.SIGKILL),
    "killed-reducing": partial(in_the_middle_of_reducing, signal.SIGKILL),
    "stopped-sending": partial(in_the_middle_of_sending, signal.SIGSTOP),
    "late-word": late_with_its_word,
    "spoiled": spoiled_contribution,
    "spoiled-for-one": partial(spoiled_contribution, the_victim),
    "two-faces": two_faces,
    "a-face-for-one": partial(two_faces, the_victim),
    "repeated": repeated_chunks,
    "stale": stale_frames,
    "random-frames": random_frames,
    "random-bytes": random_bytes,
    "silent": silence,
    "early-excuses": partial(excuses, Kind.CONTRIB),
    "excuses": partial(excuses, Kind.REDUCED),
}


# ------------------------------------------------------------------ the process


def run() -> int:
    """Be a learner with the fault that the environment names."""
    if NAMESPACE in os.environ:
        enter(os.environ[NAMESPACE])
    FAULTS[os.environ.get(FAULT, "")]()
    learner_module.Exchange = Watched  # type: ignore[misc]
    if STALL in os.environ:
        limits = Limits(stall=float(os.environ[STALL]))
        product.Learner = partial(Learner, limits=limits)  # type: ignore[misc, assignment]
    return product.main()


def enter(namespace: str) -> None:
    """Move this process to a network namespace. (`os.setns` came with Python 3.12.)"""
    with open(f"/run/netns/{namespace}") as file:  # noqa: PTH123 - a descriptor is needed
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def parent() -> None:
    """For each line of the input, fork a learner."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets those that have ended
    socket.getaddrinfo("localhost", 1)  # loads what looks up names
    gc.freeze()  # a collection would touch, and so copy, every page of the fork
    assert threading.active_count() == 1, "threads would not survive a fork"
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            child(asked["env"], asked["log"])
        print(pid, flush=True)


def child(env: Mapping[str, str], log: str) -> None:
    """The forked learner."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.environ.update(env)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    random.seed()  # or all of them would draw the same numbers
    status = 1
    try:
        status = run()
    except BaseException:  # the fork must end here, whatever happens
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1:] == ["--parent"]:
        parent()
    else:
        sys.exit(run())
