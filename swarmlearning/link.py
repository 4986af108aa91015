"""What a user's program and its learner (SL) say to each other over their Unix socket.

A frame is a u32 length (little-endian) and that many bytes of UTF-8 JSON: one object with a string
under "type". Weights never travel here. They lie in memory that the program allocates and whose
descriptor travels with each `sync` and `finish` (SCM_RIGHTS, see unix(7)), and in `merged.bin`, a
file that the learner writes; see `swarmlearning.tensors` for both.

The conversation, program on the left:

    open     ->                        contract and rules; the round of the model it has, or -1
             <- waiting*  opened       hasModel: merged.bin holds the model of `round` - 1
    sync     ->                        the memory holds the weights, made from that of `round`
             <- (waiting | again)*     each again is answered by one
             <- merged                 the memory holds the weights to load
    report   ->                        loss and metric of that round
             <- saved                  merged.bin holds them as well
    finish   ->                        the loop has ended; the memory holds the final weights
             <- (waiting | merged)*    merged.bin holds the weights to load; each merged is answered
                                       by one report; the last has over = true
    bye      ->                        and then waits until the learner closes the link

A `sync` after training is over is answered by `over`. `error` may come instead of any answer and
ends the conversation. `merged.bin` is replaced as a whole, so what has been opened stays as it is.

From `sync` to `saved` the memory is the learner's, which merges in place: what lies there turns
into the merged weights. When an attempt fails half-way, it asks for the weights once more by
`again`, and so says the program when it has written them. From `finish` on the learner only reads
final weights, as they may be contributed more than once.

Either side may be restarted. A program whose learner is gone connects again, says `open` with the
round of the model it has, and repeats the call that was not answered: the learner keeps nothing
that the calls do not say. A `sync` comes with new memory then, as the learner that is gone had
begun to merge in the old one. `round` tells what weights were made from (-1: from no decided
model), so weights older than the last decided model never contribute; they are answered by that
model. `own` of a finish is false once its final weights are no longer what is contributed. A
learner whose program is gone waits for the next one, which starts with an `open` of its own; while
it serves one program another one waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PROTOCOL = 3

SOCKET = "link.sock"
MERGED = "merged.bin"
DIRECTORY_VARIABLE = "SWARM_LINK"
DEFAULT_DIRECTORY = "/tmp/hpe-swarm"  # noqa: S108 - the agreed mount point inside containers

MAX_FRAME = 1 << 20  # bytes of JSON
SEND_TIMEOUT = 30.0  # seconds; the other side reads at once when it is alive
_LENGTH = struct.Struct("<I")
_DESCRIPTOR = struct.Struct("i")
# sun_path holds 108 bytes on Linux, 104 elsewhere, the closing zero included.
_MAX_SOCKET_PATH = 103

Message = dict[str, Any]
Schema = Mapping[str, Mapping[str, type]]

TO_SL: Schema = {
    "open": {
        "protocol": int,
        "library": str,
        "contract": str,
        "minPeers": int,
        "syncFrequency": int,
        "adaptive": bool,
        "mergeMethod": str,
        "mergeArgs": dict,
        "mode": str,
        "weightage": int,
        "totalEpochs": int,
        "round": int,
    },
    "sync": {"seq": int, "weightage": int, "samples": int, "epochs": int, "round": int},
    "report": {"round": int, "loss": str, "metric": str, "epochs": int, "totalEpochs": int},
    "finish": {"seq": int, "weightage": int, "epochs": int, "round": int, "own": bool},
    "again": {},
    "bye": {"ok": bool, "text": str},
}
TO_ML: Schema = {
    "opened": {"round": int, "uid": str, "hasModel": bool},
    "waiting": {"text": str},
    "merged": {
        "seq": int,
        "round": int,
        "next": int,
        "over": bool,
        "peers": int,
        "counted": bool,  # these weights are in it
        "shared": bool,  # the weights lie in the memory, not in merged.bin
    },
    "again": {},
    "saved": {},
    "over": {"seq": int, "hasModel": bool},
    "error": {"code": str, "text": str},
}


class LinkError(Exception):
    """The other side broke the rules of the link, or cannot be reached."""


class LinkClosed(LinkError):
    """The other side is gone."""


class OtherProtocol(LinkError):
    """The program's library is of a version that this learner does not understand."""


class LinkTimeout(LinkError):
    """Nothing, or only a part of a message, came in time. The link is still usable."""


class Connection:
    """One end of the link. `send` may be called from any thread, `receive` from one."""

    def __init__(self, sock: socket.socket, accepts: Schema | None = None) -> None:
        """Take over a connected stream socket.

        `accepts` is TO_SL or TO_ML: messages with other types, or fields that are missing or of the
        wrong type, make `receive` raise LinkError. None accepts any object with a type.
        """
        sock.setblocking(False)
        self._socket = sock
        self._accepts = accepts
        self._buffer = bytearray()
        self._descriptor = -1  # the newest one that came and was not taken
        self._writing = threading.Lock()

    def send(self, message: Mapping[str, Any], descriptor: int = -1) -> None:
        """Send one message, and a descriptor with it.

        Raises LinkClosed when nobody is there, LinkError when the message is too long.
        """
        body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
        if len(body) > MAX_FRAME:
            raise LinkError(f"message of {len(body)} B, at most {MAX_FRAME} B are allowed")
        deadline = time.monotonic() + SEND_TIMEOUT
        with self._writing:
            rest = memoryview(_LENGTH.pack(len(body)) + body)
            while rest:
                try:
                    if descriptor < 0:
                        count = self._socket.send(rest)
                    else:
                        count = socket.send_fds(self._socket, [rest], [descriptor])
                        descriptor = -1
                    rest = rest[count:]
                except BlockingIOError:
                    self._wait(select.POLLOUT, deadline)
                except OSError as error:
                    raise LinkClosed(f"the other side is gone: {error}") from None

    def receive(self, timeout: float | None = None) -> Message:
        """The next message; waits at most `timeout` seconds, for ever with None.

        Raises LinkTimeout (a message that came in part is kept), LinkClosed, or LinkError when the
        bytes are no valid message; after that the connection is of no use any more.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            body = self._take()
            if body is not None:
                return self._decode(body)
            try:
                data = self._read()
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            except OSError as error:
                raise LinkClosed(f"the other side is gone: {error}") from None
            if not data:
                middle = " in the middle of a message" if self._buffer else ""
                raise LinkClosed(f"the other side closed the link{middle}")
            self._buffer += data

    def descriptor(self) -> int:
        """Take the descriptor that came with the last message; -1 when none did."""
        taken, self._descriptor = self._descriptor, -1
        return taken

    def close(self) -> None:
        """Close the socket; the other side sees the end. A `receive` in another thread ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._drop()

    def fileno(self) -> int:
        """Descriptor of the socket, for a selector; -1 when closed."""
        return self._socket.fileno()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> bytes:
        if self._accepts is not TO_SL:
            return self._socket.recv(1 << 16)
        # Not by `recv_fds`, which forgets its flags. There is room for one; more are dropped.
        room = socket.CMSG_LEN(_DESCRIPTOR.size)
        data, parts, _, _ = self._socket.recvmsg(1 << 16, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, raw in parts:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._drop()
                (self._descriptor,) = _DESCRIPTOR.unpack(raw)
        return data

    def _drop(self) -> None:
        if (descriptor := self.descriptor()) >= 0:
            os.close(descriptor)

    def _take(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > MAX_FRAME:
            raise LinkError(f"message of {length} B, at most {MAX_FRAME} B are allowed")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return body

    def _decode(self, body: bytes) -> Message:
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise LinkError(f"message is not JSON: {error}") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise LinkError("message is not an object with a type")
        if self._accepts is not None:
            check(message, self._accepts)
        return message

    def _wait(self, event: int, deadline: float | None) -> None:
        descriptor = self._socket.fileno()
        if descriptor < 0:
            raise LinkClosed("this side closed the link")
        poll = select.poll()
        poll.register(descriptor, event)
        if deadline is None:
            poll.poll()
            return
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise LinkTimeout("no message in time")


def check(message: Message, schema: Schema) -> None:
    """Raise LinkError unless `message` is one of `schema` with all fields of the right type."""
    fields = schema.get(message["type"])
    if fields is None:
        raise LinkError(f"unexpected message {message['type'][:40]!r}")
    if message["type"] == "open":
        # Before all else: what another version says besides may be anything.
        theirs = message.get("protocol")
        if isinstance(theirs, int) and theirs != PROTOCOL:
            text = f"the program speaks protocol {str(theirs)[:20]}, this learner {PROTOCOL}"
            raise OtherProtocol(text)
    for field, kind in fields.items():
        value = message.get(field)
        # bool is an int to isinstance, but `true` is no number.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise LinkError(f"message {message['type']!r} needs {field!r} of type {kind.__name__}")


def directory(environment: Mapping[str, str] = os.environ) -> Path:
    """The directory that the program and its learner share."""
    return Path(environment.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY)


def connect(folder: Path) -> Connection:
    """Connect a program to its learner. Raises LinkError when no learner listens there (yet)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(folder) as address:
            sock.connect(address)
    except OSError as error:
        sock.close()
        raise LinkError(f"no learner listens on {folder / SOCKET}: {error.strerror}") from None
    return Connection(sock, TO_ML)


def listen(folder: Path) -> socket.socket:
    """Listen for the program: the learner's side. Replaces a socket left by a predecessor.

    The socket is open to all users, as program and learner may run as different ones; what protects
    it is the directory, which must be private to the pair. Raises OSError.
    """
    (folder / SOCKET).unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(folder) as address:
            sock.bind(address)
        (folder / SOCKET).chmod(0o666)
        sock.listen(1)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _address(folder: Path) -> Iterator[str]:
    """A name for the socket that fits into `sun_path`, however deep `folder` lies."""
    plain = folder / SOCKET
    if len(os.fsencode(plain)) <= _MAX_SOCKET_PATH:
        yield str(plain)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
