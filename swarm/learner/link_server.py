"""The learner's end of the link to its program: one program, one session.

Messages become events; the order in which a program may say things is checked here, so that the
round driver sees sane sequences only.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from swarm.errors import LocalError
from swarm.learner.messages import Broken, Bye, Event, Opened, ProgramGone, Reported, Synced
from swarmlearning import link

log = logging.getLogger("swarm.learner")

WEIGHT_UNIT = 10_000  # what a weightage of 1 is on the ledger
MERGE_METHODS = ("mean",)


class LinkServer:
    """Listens on the link's socket; hands events to `post`, in a thread of its own."""

    def __init__(self, folder: Path, post: Callable[[Event], None]) -> None:
        self._folder = folder
        self._post = post
        self._listener: socket.socket | None = None
        self._connection: link.Connection | None = None
        self._opened = False
        self._finished = False
        self._closed = False

    def start(self) -> None:
        """Create the socket and wait for the program. Raises LocalError SW6002."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._listener = link.listen(self._folder)
        except OSError as error:
            raise LocalError("SW6002", f"{self._folder}: {error.strerror}") from error
        threading.Thread(target=self._run, name="link", daemon=True).start()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message to the program; its absence shows in the events."""
        if self._connection is None:
            return
        try:
            self._connection.send(message)
        except link.LinkError as error:
            log.info("the program does not listen: %s", error)

    def close(self) -> None:
        """End the session."""
        self._closed = True
        if self._listener is not None:
            # Closing alone does not wake a thread that sits in accept().
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            (self._folder / link.SOCKET).unlink(missing_ok=True)
        if self._connection is not None:
            self._connection.close()

    # ----------------------------------------------------------- in the thread

    def _run(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # closed before a program came
        self._connection = link.Connection(sock, link.TO_SL)
        try:
            while True:
                message = self._connection.receive()
                event = self._event(message)
                self._post(event)
                if isinstance(event, (Bye, Broken)):
                    return
        except link.LinkError as error:
            if not self._closed:
                self._post(ProgramGone(str(error)))

    def _event(self, message: link.Message) -> Event:
        kind = message["type"]
        if (kind == "open") == self._opened or (kind in ("sync", "finish") and self._finished):
            raise link.LinkError(f"message {kind!r} at the wrong time")
        if kind == "open":
            self._opened = True
            return self._open(message)
        if kind in ("sync", "finish"):
            self._finished = kind == "finish"
            weight = message["weightage"] * WEIGHT_UNIT
            return Synced(message["seq"], weight, message.get("samples", 0), self._finished)
        if kind == "report":
            return Reported(
                message["round"],
                message["loss"],
                message["metric"],
                message["epochs"],
                message["totalEpochs"],
            )
        return Bye(message["ok"], message["text"])

    def _open(self, message: link.Message) -> Event:
        log.info("the program opened its link, library %s", message["library"])
        if message["protocol"] != link.PROTOCOL:
            return Broken(
                "SW6005",
                f"the program speaks protocol {message['protocol']}, this learner {link.PROTOCOL}",
            )
        if message["mergeMethod"] not in MERGE_METHODS:
            return Broken("SW6006", f"merge method {message['mergeMethod']!r} is not known")
        rules = {
            "min_peers": message["minPeers"],
            "merge_method": message["mergeMethod"],
            "merge_args": message["mergeArgs"],
            "sync_frequency": message["syncFrequency"],
            "adaptive": message["adaptive"],
        }
        return Opened(message["contract"], rules, message["mode"])
