"""The learner's end of the link to its program: one program after the other, each with one session.

Messages become events; the order in which a program may say things is checked here, so that the
round driver sees sane sequences only. The next program is listened to when the driver has done with
the one before; until then it waits, and hears why.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from swarm.errors import LocalError
from swarm.learner.messages import Broken, Bye, Event, Opened, ProgramGone, Reported, Synced
from swarm.merge import methods
from swarmlearning import link

log = logging.getLogger("swarm.learner")

WEIGHT_UNIT = 10_000  # what a weightage of 1 is on the ledger
MOST_WAITING = 4  # programs that may wait for the one that is served
BUSY = "another program uses this learner (SL); waiting for its end"
MOST = 1 << 40  # of anything that a program counts


class Shared(NamedTuple):
    """The event of memory that a program shares, before what it has to say of the weights there."""

    descriptor: int


class Rewritten(NamedTuple):
    """The event of weights that a program has written to that memory once more."""


class LinkServer:
    """Listens on the link's socket; hands events to `post`, in a thread of its own."""

    def __init__(self, folder: Path, post: Callable[[Event | Shared | Rewritten], None]) -> None:
        self._folder = folder
        self._post = post
        self._listener: socket.socket | None = None
        self._programs: queue.Queue[link.Connection | None] = queue.Queue(MOST_WAITING)
        self._connection: link.Connection | None = None  # of the program that is served
        self._released = threading.Event()
        self._closed = False

    def start(self) -> None:
        """Create the socket and wait for programs. Raises LocalError SW6002."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._listener = link.listen(self._folder)
        except OSError as error:
            raise LocalError("SW6002", f"{self._folder}: {error.strerror}") from error
        for name, run in (("link", self._run), ("link door", self._accept)):
            threading.Thread(target=run, name=name, daemon=True).start()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message to the program; its absence shows in the events."""
        connection = self._connection
        if connection is None:
            return
        try:
            connection.send(message)
        except link.LinkError as error:
            log.info("the program does not listen: %s", error)

    def release(self) -> None:
        """The program that is gone is forgotten: listen to the next one."""
        self._connection = None
        self._released.set()

    def close(self) -> None:
        """End the session."""
        self._closed = True
        if self._listener is not None:
            # Closing alone does not wake a thread that sits in accept().
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            (self._folder / link.SOCKET).unlink(missing_ok=True)
        connection = self._connection
        if connection is not None:
            connection.close()
        self._released.set()
        with contextlib.suppress(queue.Empty):
            while (waiting := self._programs.get_nowait()) is not None:
                waiting.close()
        self._programs.put_nowait(None)

    # ---------------------------------------------------------- in the threads

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._closed:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if not self._closed:
                    log.warning("a program could not connect: %s", error.strerror)
                    time.sleep(0.1)  # out of file descriptors: give others the time to return some
                continue
            connection = link.Connection(sock, link.TO_SL)
            try:
                if self._connection is not None:
                    connection.send({"type": "waiting", "text": BUSY})
                self._programs.put_nowait(connection)
            except (link.LinkError, queue.Full):
                connection.close()

    def _run(self) -> None:
        while (connection := self._programs.get()) is not None and not self._closed:
            self._released.clear()
            self._connection = connection
            with connection:
                why = Conversation(connection, self._post).listen()
                if not why:
                    # The learner ends, and its last words go out before the link is closed.
                    self._released.wait()
                    return
                if not self._closed:
                    self._post(ProgramGone(why))
                    self._released.wait()


class Conversation:
    """What one program says, in the order in which it may be said."""

    def __init__(
        self, connection: link.Connection, post: Callable[[Event | Shared | Rewritten], None]
    ) -> None:
        self._connection = connection
        self._post = post
        self._opened = False
        self._finished = False

    def listen(self) -> str:
        """Post events until the program says good-bye (""), or is gone, for the reason returned."""
        while True:
            try:
                event = self._event(self._connection.receive())
            except link.LinkClosed as error:
                return str(error)
            except link.OtherProtocol as error:
                self._post(Broken("SW6005", str(error)))
                return ""
            except link.LinkError as error:
                with contextlib.suppress(link.LinkError):
                    self._connection.send({"type": "error", "code": "SW6008", "text": str(error)})
                return f"SW6008: {error}"
            self._post(event)
            if isinstance(event, (Bye, Broken)):
                return ""

    def _event(self, message: link.Message) -> Event | Rewritten:
        kind = message["type"]
        if kind == "again" and self._opened:
            return Rewritten()
        if kind == "bye":
            return Bye(message["ok"], message["text"])
        if (kind == "open") == self._opened or (kind in ("sync", "finish") and self._finished):
            raise link.LinkError(f"message {kind!r} at the wrong time")
        for name, value in message.items():
            low = -1 if name == "round" and kind != "report" else 0
            if isinstance(value, int) and not low <= value < MOST:
                raise link.LinkError(f"message {kind!r} with {str(value)[:20]} as {name[:40]!r}")
        if kind == "open":
            self._opened = True
            return _open(message)
        if kind in ("sync", "finish"):
            self._finished = kind == "finish"
            descriptor = self._connection.descriptor()
            if descriptor < 0:
                raise link.LinkError(f"message {kind!r} without the memory that holds the weights")
            self._post(Shared(descriptor))
            return Synced(
                message["seq"],
                message["weightage"] * WEIGHT_UNIT,
                message.get("samples", 0),
                self._finished,
                message["round"],
                message.get("own", True),
            )
        return Reported(
            message["round"],
            message["loss"],
            message["metric"],
            message["epochs"],
            message["totalEpochs"],
        )


def _open(message: link.Message) -> Event:
    log.info("the program opened its link, library %.40r", message["library"])
    try:
        method, args = methods.agreed(
            message["mergeMethod"], message["mergeArgs"], message["minPeers"]
        )
    except LocalError as error:
        return Broken(error.code, error.cause)
    rules = {
        "min_peers": message["minPeers"],
        "merge_method": method,
        "merge_args": args,
        "sync_frequency": message["syncFrequency"],
        "adaptive": message["adaptive"],
    }
    return Opened(message["contract"], rules, message["mode"], message["round"])
